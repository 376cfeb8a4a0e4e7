"""One connected agent, and the loopback sockets and FUSE files that stand for remote things."""

MARK = "SIDESTAGE_SESSION"  # in the environment of the program and all that it starts: names their session
