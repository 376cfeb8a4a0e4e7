"""HTTP as far as routing needs it, sans-IO; travels to the target.

`router.py` decides for one intercepted connection; `http1.py` and `http2.py` find where requests, responses and frames end,
`hpack.py` reads header blocks, `filters.py` and `jsonpath.py` say which requests are a session's, `sieve.py` does so for the
mirror. One rule stands above all: what two parties could read in two ways belongs to the target's own program.
"""
