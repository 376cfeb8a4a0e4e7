"""Kubernetes, spoken over its HTTP API with the standard library only.

`kubeconfig` reads what kubectl reads, `auth` (with `exec_plugin` and `oidc`) turns a user into credentials, `dial` makes the
connection (TLS, proxies), `http` frames requests on it, and `api` is the client that all else uses; `connect` makes one.
`targets` (with `kinds` and `pods`) goes from a name to pods, `listing` from nothing to names, `permissions` and `refusals` tell
what we may and why not. The agent's side is `keeper`, which starts, carries and removes agents, and `pool`, whose Jobs
several sessions share; see ARCHITECTURE.md.
"""
