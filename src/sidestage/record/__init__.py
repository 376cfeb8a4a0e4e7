"""A session's conversation with its agent, kept in a file and played again without any target.

link.py writes what crosses the link to a tape (tape.py), secrets masked (mask.py); reel.py reads it back, and player.py answers
in the agent's place, for `sidestage replay`.
"""
