"""From what the user says of a cluster to a client of it."""

from __future__ import annotations

from dataclasses import replace

from sidestage.cluster.api import Api
from sidestage.cluster.errors import ClusterError, UnknownLogin
from sidestage.cluster.kubeconfig import Access, Cluster, load


def connect(
    kubeconfig: str | None = None, context: str | None = None, namespace: str | None = None, insecure: bool | None = None,
    kubectl: bool = False,
) -> Api:  # fmt: skip
    """A client for a context of the kubeconfig, as kubectl would choose it. Raises ClusterError.

    `insecure` accepts any certificate of the server, or none of those that the kubeconfig would; None leaves it to the kubeconfig.
    With `kubectl`, or where the kubeconfig's way to log in is not ours, kubectl logs in and all goes through it: through a proxy of
    its own, or, where that can't be, a command for each request.
    """
    try:
        access = load(kubeconfig or None, context or None, namespace or None)
    except ClusterError:
        if not kubectl:
            raise
        access = Access(context or "", namespace or "default", Cluster(""), {})  # a kubectl that knows without a file of ours
    if insecure is not None and insecure != access.cluster.insecure:
        cluster = replace(access.cluster, ca_data=b"", ca_file="") if insecure else access.cluster
        access = replace(access, cluster=replace(cluster, insecure=insecure))
    unknown: UnknownLogin | None = None
    if not kubectl:
        try:
            return Api(access)
        except UnknownLogin as error:
            unknown = error
    from sidestage.cluster.kubectl import Kubectl, Proxy  # rarely

    try:
        program = Kubectl(kubeconfig or "", access)
    except ClusterError as error:
        raise ClusterError(f"{unknown.cause}; {error.cause}", unknown.cure) if unknown else error from error
    notes = [f"kubectl logs in: {unknown.cause}"] if unknown else []
    access = replace(access, cluster=Cluster("http://localhost"), user={})
    try:
        proxy = Proxy(program)
    except ClusterError as error:
        from sidestage.cluster.commands import Commands

        api: Api = Commands(access, program)
        notes.append(f"each request is a `kubectl` of its own, which is slow: {error.cause}")
    else:
        api = Api(replace(access, cluster=replace(access.cluster, socket=proxy.path)))
        api.behind = proxy
    api.notes += notes
    return api
