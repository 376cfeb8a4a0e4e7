"""TLS without sockets, for both machines: a client's first message (hello.py), one end of a connection (engine.py), the certificate
that a port shows (identity.py), and how the local program is met (local.py, which stays on the laptop). All but hello.py need the
interpreter's ssl module, and are imported when TLS is asked for.
"""
