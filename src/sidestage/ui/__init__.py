"""`sidestage ui`: a page on loopback that shows a session live. server.py serves it, page/ is what the browser gets."""
