"""kubectl's own log-in, for what ours does not know: `kubectl proxy` on a socket that only we can reach.

All goes through it as it would to the API server, exec and port-forward included. A shell stands between, so that kubectl ends and
its socket goes when we do, even by SIGKILL: it waits for the end of a pipe whose other end is ours.
"""

from __future__ import annotations

import os
import select
import shutil
import subprocess
import tempfile

from sidestage.cluster.errors import ClusterError
from sidestage.cluster.kubeconfig import Access

LOGIN_TIMEOUT = 600.0  # seconds: a human may be asked
START_TIMEOUT = 20.0
# The folder is removed by whoever comes last: kubectl itself, or the end of the pipe.
GUARD = """\
folder=$1; shift
"$@" 2>&1 & kubectl=$!
exec >/dev/null # now the end of its words is seen
cat
kill $kubectl
rm -rf "$folder"
"""


class Kubectl:
    """The program, as this context needs it. Raises ClusterError if it can't log in either; it may ask on the terminal."""

    def __init__(self, kubeconfig: str, access: Access) -> None:
        program = shutil.which("kubectl")
        if program is None:
            raise ClusterError("kubectl is not on PATH, and its log-in was to be used", "install kubectl")
        named = access.context and (access.user_file or not access.cluster.server)  # in a pod there is none
        self.command = [program, *(["--context", access.context] if named else [])]
        self.command += ["--insecure-skip-tls-verify"] if access.cluster.insecure else []
        # As a variable, since a flag takes no list of files.
        self.env = {**os.environ, **({"KUBECONFIG": os.path.expanduser(kubeconfig)} if kubeconfig else {})}
        self._log_in()

    def _log_in(self) -> None:
        try:
            done = subprocess.run(
                [*self.command, "get", "--raw", "/version"], stdin=None if os.isatty(2) else subprocess.DEVNULL,
                stdout=subprocess.DEVNULL, stderr=None if os.isatty(2) else subprocess.PIPE, env=self.env,
                timeout=LOGIN_TIMEOUT, check=False,
            )  # fmt: skip
        except (OSError, subprocess.TimeoutExpired) as error:
            raise ClusterError(f"kubectl could not log in: {error}", "`kubectl version` must work") from error
        if done.returncode:
            said = (done.stderr or b"").decode(errors="replace").strip().splitlines()
            raise ClusterError(
                f"kubectl can't log in either: {said[-1] if said else f'exit status {done.returncode}'}",
                "`kubectl version` must work with the same context",
            )


class Proxy:
    """Raises ClusterError if kubectl can't serve one, or does so where we can't reach it."""

    def __init__(self, kubectl: Kubectl) -> None:
        self._folder = tempfile.mkdtemp(prefix="sidestage-", dir=os.environ.get("XDG_RUNTIME_DIR"))
        self.path = os.path.join(self._folder, "kubectl")
        # By default kubectl proxy refuses exec, since its port is anybody's; this socket is not. Nothing at all is an expression
        # that matches all paths, in older versions: no path is empty.
        proxy = [*kubectl.command, "proxy", f"--unix-socket={self.path}", "--reject-paths=^$"]
        self._guard = subprocess.Popen(
            ["sh", "-c", GUARD, "sh", self._folder, *proxy],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=kubectl.env, start_new_session=True,
        )  # fmt: skip
        self._wait()
        if not os.path.exists(self.path):
            self.close()
            raise ClusterError("`kubectl proxy` serves on another machine", "use a kubectl of this one")

    def _wait(self) -> None:
        """Until it says that it serves."""
        assert self._guard.stdout is not None
        told = b""
        while b"Starting to serve" not in told:
            ready = select.select([self._guard.stdout], [], [], START_TIMEOUT)[0]
            piece = os.read(self._guard.stdout.fileno(), 4096) if ready else b""
            if not piece:
                self.close()
                words = " ".join(told.decode(errors="replace").split()) or "nothing said"
                raise ClusterError(f"`kubectl proxy` did not start: {words}", "update kubectl")
            told += piece

    def close(self) -> None:
        assert self._guard.stdin is not None
        assert self._guard.stdout is not None
        self._guard.stdin.close()
        self._guard.stdout.close()
        try:
            self._guard.wait(5)
        except subprocess.TimeoutExpired:
            self._guard.kill()
            self._guard.wait()
