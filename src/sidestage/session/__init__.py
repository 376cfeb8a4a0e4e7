"""One connected agent, and the loopback sockets and FUSE files that stand for remote things."""
