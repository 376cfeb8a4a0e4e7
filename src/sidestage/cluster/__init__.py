"""Kubernetes, spoken over its HTTP API with the standard library only.

`kubeconfig` reads what kubectl reads, `auth` (with `exec_plugin` and `oidc`) turns a user into credentials, `dial` makes the
connection (TLS, proxies), `http` frames requests on it, and `api` is the client that all else uses.
"""
