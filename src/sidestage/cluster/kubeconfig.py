"""Reads kubeconfigs as kubectl does: the files of KUBECONFIG merged (the first to name a thing wins), paths relative to their file.

Pure but for reading the files. The result is one resolved context; what it means to be that user is auth.py's business.
https://kubernetes.io/docs/concepts/configuration/organize-cluster-access-kubeconfig/
"""

from __future__ import annotations

import base64
import binascii
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sidestage.cluster import untyped
from sidestage.cluster.errors import ClusterError, text_of

DEFAULT = "~/.kube/config"
SERVICE_ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"
MAX_SIZE = 16 << 20  # bytes of one file; the largest seen in the wild hold some thousand contexts in a few MiB
TRUE = ("true", "True", "TRUE", True)
NULL = (None, "", "null", "~", "Null", "NULL")
# Paths that are relative to the file they stand in (client-go's ResolveLocalPaths).
CLUSTER_PATHS = ("certificate-authority",)
USER_PATHS = ("client-certificate", "client-key", "tokenFile")


@dataclass(frozen=True, slots=True)
class Cluster:
    server: str
    ca_data: bytes = b""  # PEM; empty: the system's
    ca_file: str = ""
    insecure: bool = False
    tls_server_name: str = ""
    proxy_url: str = ""
    socket: str = ""  # of a proxy on this machine, which has logged in already
    raw: Mapping[str, Any] = field(default_factory=dict)  # for exec plugins that ask for it


@dataclass(frozen=True, slots=True)
class Access:
    """One context, resolved."""

    context: str  # its name; "in-cluster" for a pod's own service account
    namespace: str
    cluster: Cluster
    user: Mapping[str, Any]  # as written, its paths made absolute
    user_file: str = ""  # the file that the user stands in

    def __str__(self) -> str:
        return f"context {self.context!r}"


def load(
    kubeconfig: str | None = None, context: str | None = None, namespace: str | None = None,
    environ: Mapping[str, str] = os.environ,
) -> Access:  # fmt: skip
    """The context to use; raises ClusterError. `kubeconfig` may be a list, as KUBECONFIG is."""
    explicit = kubeconfig is not None and kubeconfig != ""
    files = _files(kubeconfig if explicit else environ.get("KUBECONFIG"))
    merged = _merge(files, explicit)
    if not merged.contexts and not merged.current and not context and not explicit:
        inside = in_cluster(environ, namespace)
        if inside:
            return inside
    places = ", ".join(merged.read) or " and ".join(files)
    name = context or merged.current
    if not name:
        if not merged.contexts:
            raise ClusterError(
                f"no Kubernetes context is configured ({places})",
                "set KUBECONFIG or pass --kubeconfig FILE; your cloud's CLI writes one",
            )
        raise ClusterError(
            f"no current context in {places}", f"pass --context NAME, one of: {_some(merged.contexts)}"
        )  # fmt: skip
    if name not in merged.contexts:
        import difflib  # only for a message

        near = difflib.get_close_matches(name, merged.contexts, 1, 0.5)
        raise ClusterError(
            f"there is no context {name!r} in {places}",
            f"did you mean {near[0]!r}?" if near else f"there are: {_some(merged.contexts) or 'none'}",
        )
    chosen = merged.contexts[name][0]
    cluster = _named(merged.clusters, text(chosen, "cluster"), "cluster", name, places)
    user_name = text(chosen, "user")
    user, user_file = _named(merged.users, user_name, "user", name, places) if user_name else ({}, "")
    return Access(name, namespace or text(chosen, "namespace") or "default", _cluster(*cluster, name), user, user_file)


def contexts(kubeconfig: str | None = None, environ: Mapping[str, str] = os.environ) -> dict[str, tuple[str, str]]:
    """The names of all contexts, each with its cluster and user. Raises ClusterError."""
    merged = _merge(_files(kubeconfig or environ.get("KUBECONFIG")), bool(kubeconfig))
    return {name: (text(item, "cluster"), text(item, "user")) for name, (item, _) in merged.contexts.items()}


def in_cluster(environ: Mapping[str, str], namespace: str | None = None, folder: str = SERVICE_ACCOUNT) -> Access | None:
    """The service account that Kubernetes mounts into a pod, if we run in one."""
    host, port = environ.get("KUBERNETES_SERVICE_HOST"), environ.get("KUBERNETES_SERVICE_PORT")
    token = os.path.join(folder, "token")
    if not host or not port or not os.path.exists(token):
        return None
    if namespace is None:
        try:
            with open(os.path.join(folder, "namespace"), encoding="utf-8") as file:
                namespace = file.read().strip()
        except OSError:
            namespace = "default"
    server = f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"
    return Access("in-cluster", namespace, Cluster(server, ca_file=os.path.join(folder, "ca.crt")), {"tokenFile": token})


def text(tree: Mapping[str, Any], key: str) -> str:
    value = tree.get(key)
    return "" if value in NULL or isinstance(value, (dict, list)) else str(value)


def flag(tree: Mapping[str, Any], key: str) -> bool:
    return tree.get(key) in TRUE


def items(tree: Mapping[str, Any], key: str) -> list[Any]:
    value = tree.get(key)
    return value if isinstance(value, list) else []


def below(tree: Mapping[str, Any], key: str) -> dict[str, Any]:
    value = tree.get(key)
    return value if isinstance(value, dict) else {}


def data(tree: Mapping[str, Any], key: str, where: str) -> bytes:
    """A field of base64; raises ClusterError."""
    try:
        return base64.b64decode("".join(text(tree, key).split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise ClusterError(f"{key} of {where} is not base64", "copy it again, in one piece") from error


@dataclass(slots=True)
class _Merged:
    current: str = ""
    contexts: dict[str, tuple[dict[str, Any], str]] = field(default_factory=dict)  # name -> (as written, its file)
    clusters: dict[str, tuple[dict[str, Any], str]] = field(default_factory=dict)
    users: dict[str, tuple[dict[str, Any], str]] = field(default_factory=dict)
    read: list[str] = field(default_factory=list)


def _files(listed: str | None) -> list[str]:
    names = [os.path.expanduser(name) for name in (listed or "").split(os.pathsep) if name]
    return list(dict.fromkeys(names or [os.path.expanduser(DEFAULT)]))


def _merge(files: list[str], explicit: bool) -> _Merged:
    merged = _Merged()
    for file in files:
        tree = _read(file, explicit)
        if tree is None:
            continue
        merged.read.append(file)
        merged.current = merged.current or text(tree, "current-context")
        folder = os.path.dirname(os.path.abspath(file))
        for kind, single, known, paths in (
            ("contexts", "context", merged.contexts, ()),
            ("clusters", "cluster", merged.clusters, CLUSTER_PATHS),
            ("users", "user", merged.users, USER_PATHS),
        ):
            for item in items(tree, kind):
                if isinstance(item, dict) and text(item, "name") and text(item, "name") not in known:
                    known[text(item, "name")] = (_absolute(below(item, single), paths, folder), file)
    return merged


def _read(file: str, must_exist: bool) -> dict[str, Any] | None:
    try:
        with open(file, "rb") as stream:
            content = stream.read(MAX_SIZE + 1)
    except OSError as error:
        if isinstance(error, FileNotFoundError) and not must_exist:
            return None  # kubectl skips these too
        raise ClusterError(f"kubeconfig {file} can't be read: {text_of(error)}", "check --kubeconfig and KUBECONFIG") from error
    if len(content) > MAX_SIZE:
        raise ClusterError(f"kubeconfig {file} is larger than {MAX_SIZE >> 20} MiB", "is it a kubeconfig?")
    try:
        tree = untyped.read(content)
    except ValueError as error:
        raise ClusterError(
            f"kubeconfig {file} is not YAML: {' '.join(str(error).split())}", "`kubectl config view` checks it too"
        ) from error
    if tree in NULL:
        return {}
    if not isinstance(tree, dict):
        raise ClusterError(f"kubeconfig {file} is not an object of keys", "is it a kubeconfig?")
    return tree


def _absolute(tree: dict[str, Any], paths: tuple[str, ...], folder: str) -> dict[str, Any]:
    return {**tree, **{key: os.path.join(folder, text(tree, key)) for key in paths if text(tree, key)}}


def _named(
    known: Mapping[str, tuple[dict[str, Any], str]], name: str, kind: str, context: str, places: str
) -> tuple[dict[str, Any], str]:
    if not name:
        raise ClusterError(f"context {context!r} names no {kind} ({places})", "complete it: `kubectl config set-context`")
    if name not in known:
        raise ClusterError(
            f"context {context!r} names {kind} {name!r}, which is not in {places}", "`kubectl config view` shows what is there"
        )
    return known[name]


def _cluster(tree: Mapping[str, Any], file: str, context: str) -> Cluster:
    where = f"the cluster of context {context!r} ({file})"
    server = text(tree, "server")
    if not server:
        raise ClusterError(f"{where} has no server", "`kubectl config set-cluster NAME --server=https://...`")
    if "://" not in server:
        server = f"http://{server}"  # as client-go's DefaultServerURL without TLS settings
        if text(tree, "certificate-authority") or text(tree, "certificate-authority-data"):
            server = "https" + server[4:]
    insecure = flag(tree, "insecure-skip-tls-verify")
    ca_data = data(tree, "certificate-authority-data", where)
    ca_file = "" if ca_data else text(tree, "certificate-authority")  # data wins, as in client-go
    if insecure and (ca_data or ca_file):
        raise ClusterError(
            f"{where} has insecure-skip-tls-verify and a certificate authority", "remove one: kubectl refuses this as well"
        )
    return Cluster(server.rstrip("/"), ca_data, ca_file, insecure, text(tree, "tls-server-name"), text(tree, "proxy-url"), raw=tree)


def _some(names: Mapping[str, Any], limit: int = 8) -> str:
    shown = sorted(names)[:limit]
    return ", ".join(shown) + (f" and {len(names) - limit} more" if len(names) > limit else "")
