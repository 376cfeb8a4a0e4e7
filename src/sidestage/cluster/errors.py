"""What can go wrong with a cluster: we never got an answer (ClusterError), or the API server said no (ApiError)."""

from __future__ import annotations

import json
import os
from typing import Any

from sidestage.targets.spec import TargetError


class ClusterError(TargetError):
    """`cause` and `cure`, a line each."""


class ScaledToNothing(ClusterError):
    """Somebody wants a workload to have no pods: to wait for one is in vain."""


class UnknownLogin(ClusterError):
    """A way to log in that we do not have; kubectl may."""


class ApiError(ClusterError):
    """The API server's refusal: its HTTP status, and `reason` and `message` of its Status object."""

    def __init__(self, status: int, reason: str, message: str, details: dict[str, Any] | None = None) -> None:
        super().__init__(f"the API server refused: {message}" if message else f"the API server answered {status}", _cure(status))
        self.status, self.reason, self.message = status, reason, message
        self.details = details or {}


def from_status(status: int, phrase: str, body: bytes) -> ApiError:
    """The error that an answer of 400 and above stands for; proxies on the way answer in other words than a Status."""
    try:
        told = json.loads(body)
    except ValueError:
        told = None
    if isinstance(told, dict) and told.get("kind") == "Status":
        details = told.get("details")
        return ApiError(
            status, str(told.get("reason") or phrase), str(told.get("message") or phrase),
            details if isinstance(details, dict) else None,
        )  # fmt: skip
    text = " ".join(body[:300].decode(errors="replace").split())
    return ApiError(status, phrase, f"{status} {phrase}" + (f": {text}" if text and not text.startswith("<") else ""))


def _cure(status: int) -> str:
    if status == 401:
        return "log in to the cluster again: `kubectl get --raw /version` must work with the same context"
    if status == 403:
        return "ask the cluster's administrator for it; `sidestage doctor` prints a Role with all that is needed"
    if status == 404:
        return "check the name and the namespace (-n); `sidestage ls` shows what is there"
    if status == 429 or status >= 500:
        return "the API server is overloaded or restarting: try again"
    return "run again with --debug to see the request"


def unreachable(error: OSError, where: str) -> ClusterError:
    """No answer from `where`, and why."""
    import socket
    import ssl

    if isinstance(error, ssl.SSLCertVerificationError):
        return ClusterError(
            f"{where} has a certificate that is not to be trusted: {error.verify_message}",
            "correct certificate-authority or tls-server-name in the kubeconfig; a VPN or proxy may stand between",
        )
    if isinstance(error, ssl.SSLError):
        cure = "check server and client certificate in the kubeconfig"
        return ClusterError(f"TLS with {where} failed: {text_of(error)}", cure)
    if isinstance(error, socket.gaierror):
        cure = "check network and VPN, and the kubeconfig's server"
        return ClusterError(f"the name of {where} is unknown: {text_of(error)}", cure)
    return ClusterError(f"can't reach {where}: {text_of(error)}", "check network and VPN; does `kubectl version` work?")


def text_of(error: OSError) -> str:
    """The words of an OSError; those of ssl, getaddrinfo and of time-outs have no errno to look up."""
    return error.strerror or (os.strerror(error.errno) if error.errno else "") or str(error) or type(error).__name__
