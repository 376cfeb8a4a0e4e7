"""Where kubectl is all there is, and its proxy can't be reached: a wrapper that runs it on a bastion or in a container, for one.

Each request is `kubectl get --raw` or the like, and the agent's stream is `kubectl exec -i`: a client with the face of api.py.
Slow, as each is a log-in of its own, and without port-forward, as its port would be on the other machine. What the API server
refuses is read from kubectl's words (k8s.io/kubectl/pkg/cmd/util: `Error from server (Reason): message`).
"""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import urlencode

from sidestage.cluster.api import TIMEOUT, Api, Upgraded
from sidestage.cluster.channels import MAX_TEXT, Piped
from sidestage.cluster.errors import ApiError, ClusterError
from sidestage.cluster.kubeconfig import Access
from sidestage.cluster.kubectl import Kubectl

LATE = 5.0  # seconds for a watch to end after its time
VERBS = {"GET": ("get",), "POST": ("create", "-f", "-"), "DELETE": ("delete",)}
STATUS = {
    "BadRequest": 400, "Unauthorized": 401, "Forbidden": 403, "NotFound": 404, "MethodNotAllowed": 405, "AlreadyExists": 409,
    "Conflict": 409, "Gone": 410, "Expired": 410, "Invalid": 422, "TooManyRequests": 429, "InternalError": 500,
    "ServiceUnavailable": 503, "Timeout": 504,
}  # fmt: skip
REFUSED = re.compile(r"^(?:Error from server|error: .*) ?\((\w+)\):? ?(.*)", re.MULTILINE | re.DOTALL)
WARNED = re.compile(r"^Warning: (.*)$", re.MULTILINE)


class Commands(Api):
    def __init__(self, access: Access, kubectl: Kubectl) -> None:
        super().__init__(access)
        self._kubectl = kubectl
        self._running: list[subprocess.Popen[bytes]] = []

    def log_in(self) -> None:
        """It has been done."""

    def request(
        self, method: str, path: str, *, query: Mapping[str, str] | None = None, body: Any = None,
        content_type: str = "application/json", accept: str = "application/json", timeout: float = TIMEOUT,
    ) -> Any:  # fmt: skip
        if method not in VERBS:
            raise ClusterError("kubectl has no command that passes this request on", "use another agent.mode: job or in-container")
        verb, *more = VERBS[method]
        command = [*self._kubectl.command, verb, "--raw", _target(path, query), *more]
        data = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        try:
            done = subprocess.run(command, input=data, capture_output=True, env=self._kubectl.env, timeout=timeout, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise ClusterError(f"kubectl did not answer: {error}", "try it by hand: `kubectl version`") from error
        said = done.stderr.decode(errors="replace")
        self.warnings = WARNED.findall(said)
        if done.returncode:
            raise refusal(said)
        try:
            return json.loads(done.stdout)
        except ValueError:
            return done.stdout.decode(errors="replace")

    def watch(self, path: str, *, query: Mapping[str, str] | None = None, timeout: float) -> Iterator[dict[str, Any]]:
        wanted = {**(query or {}), "watch": "true", "timeoutSeconds": str(max(1, int(timeout) + 1))}
        command = [*self._kubectl.command, "get", "--raw", _target(path, wanted)]
        with subprocess.Popen(
            command, env=self._kubectl.env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        ) as process:
            assert process.stdout is not None
            patience = threading.Timer(timeout + LATE, process.kill)
            patience.start()
            try:
                for line in process.stdout:  # the server ends it
                    event = json.loads(line)
                    if event.get("type") == "ERROR":
                        status = event.get("object") or {}
                        raise ApiError(int(status.get("code") or 500), str(status.get("reason")), str(status.get("message")))
                    yield event
            finally:
                patience.cancel()
                process.kill()

    def upgrade(
        self, path: str, query: Sequence[tuple[str, str]], protocols: Sequence[str], timeout: float = TIMEOUT
    ) -> Upgraded:
        raise ClusterError("kubectl runs elsewhere, and so would its port", "use a kubectl of this machine")

    def upgrade_spdy(self, path: str, query: Sequence[tuple[str, str]], protocol: str, timeout: float = TIMEOUT) -> Upgraded:
        return self.upgrade(path, query, [protocol], timeout)

    def exec(self, namespace: str, pod: str, container: str, command: Sequence[str]) -> tuple[Upgraded, Piped]:
        """Its input and output are one socket. It ends with it, and the command with its input."""
        argv = [*self._kubectl.command, "exec", "-i", "-n", namespace, pod, "-c", container, "--", *command]
        ours, theirs = socket.socketpair()
        said = os.memfd_create("kubectl")
        with theirs:
            end = theirs.fileno()
            self._running.append(
                subprocess.Popen(argv, env=self._kubectl.env, stdin=end, stdout=end, stderr=said, start_new_session=True)
            )

        def words() -> str:
            start = max(0, os.fstat(said).st_size - MAX_TEXT)
            return os.pread(said, MAX_TEXT, start).decode(errors="replace")

        return Upgraded(ours, "", b""), Piped(words)

    def close(self) -> None:
        for process in self._running:
            process.terminate()
            process.wait()
        self._running.clear()
        super().close()


def refusal(said: str) -> ClusterError:
    """What kubectl's words stand for."""
    found = REFUSED.search(said)
    words = " ".join(WARNED.sub("", found[2] if found else said).split())
    if found:
        return ApiError(STATUS.get(found[1], 500), found[1], words)
    return ClusterError(f"kubectl: {words[-300:] or 'no word'}", "try it by hand: `kubectl version`")


def _target(path: str, query: Mapping[str, str] | None) -> str:
    return path + (f"?{urlencode(query)}" if query else "")
