"""Credentials from a command, as clouds give them: client.authentication.k8s.io, v1 and v1beta1.

https://kubernetes.io/docs/reference/access-authn-authz/authentication/#client-go-credential-plugins
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from typing import Any

from sidestage.cluster.errors import ClusterError, UnknownLogin, text_of
from sidestage.cluster.kubeconfig import Access, below, flag, items, text
from sidestage.cluster.tls import Certificate

GROUP = "client.authentication.k8s.io"
VERSIONS = ("v1", "v1beta1")
TIMEOUT = 60.0  # seconds for one that asks nobody
INTERACTIVE_TIMEOUT = 600.0  # a human logs in, in a browser
EARLY = 30.0  # seconds before it expires that a credential is renewed: it must last for what it is used for
MODES = ("Never", "IfAvailable", "Always")


class ExecPlugin:
    def __init__(self, config: dict[str, Any], access: Access) -> None:
        self._config, self._access = config, access
        self._command = text(config, "command")
        group, _, self._version = text(config, "apiVersion").partition("/")
        if not self._command:
            raise ClusterError(f"the exec plugin of {access} names no command", "correct the kubeconfig")
        if group != GROUP or self._version not in VERSIONS:
            raise UnknownLogin(
                f"the exec plugin {self._command} of {access} speaks {text(config, 'apiVersion') or 'no version'}",
                f"it must be {GROUP}/v1 or v1beta1: update the plugin, then write its kubeconfig anew",
            )
        self._mode = text(config, "interactiveMode") or ("" if self._version == "v1" else "IfAvailable")
        if self._mode not in MODES:
            raise ClusterError(
                f"the exec plugin {self._command} of {access} has interactiveMode {self._mode or 'missing'}",
                f"write one of {', '.join(MODES)} into the kubeconfig",
            )
        self._token = ""
        self._given: Certificate | None = None
        self._expires = float("-inf")

    def token(self) -> str:
        self._renew()
        return self._token

    def certificate(self) -> Certificate | None:
        self._renew()
        return self._given

    def forget(self) -> bool:
        self._expires = float("-inf")
        return True

    def _renew(self) -> None:
        if time.time() < self._expires:
            return
        status = self._run()
        self._token = text(status, "token")
        chain, key = text(status, "clientCertificateData"), text(status, "clientKeyData")
        if bool(chain) != bool(key) or not (self._token or chain):
            raise self._failed("its answer has neither a token nor a certificate with its key")
        where = f"from exec plugin {self._command}"
        self._given = Certificate(chain.encode(), key.encode(), where) if chain else None
        self._expires = float("inf")
        if text(status, "expirationTimestamp"):
            import datetime

            try:
                moment = datetime.datetime.fromisoformat(text(status, "expirationTimestamp"))
            except ValueError as error:
                raise self._failed(f"expirationTimestamp {text(status, 'expirationTimestamp')!r} is not a time") from error
            moment = moment if moment.tzinfo else moment.replace(tzinfo=datetime.UTC)
            # One that is born with less than the margin left is used nevertheless, once.
            self._expires = max(moment.timestamp() - EARLY, time.time() + 1)

    def _run(self) -> dict[str, Any]:
        terminal = sys.stdin is not None and not sys.stdin.closed and sys.stdin.isatty()
        interactive = self._mode != "Never" and terminal
        if self._mode == "Always" and not terminal:
            raise self._failed("it wants to ask questions, and standard input is no terminal", "log in on a terminal first")
        env = dict(os.environ)
        for item in items(self._config, "env"):
            if isinstance(item, dict) and text(item, "name"):
                env[text(item, "name")] = text(item, "value")
        env["KUBERNETES_EXEC_INFO"] = json.dumps(self._info(interactive))
        limit = INTERACTIVE_TIMEOUT if interactive else TIMEOUT
        try:
            done = subprocess.run(
                [self._find(), *(str(arg) for arg in items(self._config, "args"))],
                stdin=None if interactive else subprocess.DEVNULL, stdout=subprocess.PIPE,
                stderr=None if os.isatty(2) else subprocess.PIPE, env=env, timeout=limit, check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired as error:
            raise self._failed(f"no answer within {limit:.0f} s") from error
        except OSError as error:
            raise self._failed(text_of(error)) from error
        said = (done.stderr or b"").decode(errors="replace").strip()
        if done.returncode:
            why = f"exit status {done.returncode}" + (f" ({said.splitlines()[-1][:300]})" if said else "")
            raise self._failed(why, "log in again with your cloud's CLI; `kubectl version` must work with the same context")
        if said:
            print(said, file=sys.stderr)
        return self._status(done.stdout)

    def _status(self, output: bytes) -> dict[str, Any]:
        try:
            told = json.loads(output)
        except ValueError as error:
            raise self._failed("its answer is not JSON") from error
        if not isinstance(told, dict) or told.get("kind") != "ExecCredential":
            raise self._failed("its answer is no ExecCredential")
        if told.get("apiVersion") != f"{GROUP}/{self._version}":
            raise self._failed(f"it answered in version {told.get('apiVersion')!r}, not the {self._version} of the kubeconfig")
        return below(told, "status")

    def _info(self, interactive: bool) -> dict[str, Any]:
        spec: dict[str, Any] = {"interactive": interactive}
        if flag(self._config, "provideClusterInfo"):
            import base64

            cluster = self._access.cluster
            spec["cluster"] = {"server": cluster.server, "insecure-skip-tls-verify": cluster.insecure}
            if cluster.tls_server_name:
                spec["cluster"]["tls-server-name"] = cluster.tls_server_name
            if cluster.proxy_url:
                spec["cluster"]["proxy-url"] = cluster.proxy_url
            if cluster.ca_data or cluster.ca_file:
                ca = cluster.ca_data
                if not ca:
                    with open(cluster.ca_file, "rb") as file:
                        ca = file.read()
                spec["cluster"]["certificate-authority-data"] = base64.b64encode(ca).decode()
            for extension in items(cluster.raw, "extensions"):
                if isinstance(extension, dict) and extension.get("name") == f"{GROUP}/exec":
                    spec["cluster"]["config"] = extension.get("extension")
        return {"kind": "ExecCredential", "apiVersion": f"{GROUP}/{self._version}", "spec": spec}

    def _find(self) -> str:
        command = self._command
        if os.sep in command:  # relative to the kubeconfig, as client-go has it
            return os.path.join(os.path.dirname(os.path.abspath(self._access.user_file or ".")), command)
        found = shutil.which(command)
        if found is None:
            hint = " ".join(text(self._config, "installHint").split())
            raise self._failed("it is not on PATH", hint or "install it; your cloud's documentation tells how")
        return found

    def _failed(self, why: str, cure: str = "") -> ClusterError:
        return ClusterError(
            f"the exec plugin {self._command} of {self._access} failed: {why}",
            cure or "run it by hand to see more; `kubectl version` must work with the same context",
        )
