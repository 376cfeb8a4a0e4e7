"""The command line of `sidestage exec`, parsed; flags that have a key in the configuration become overrides of it."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn

from sidestage.cli.errors import UserError

USAGE = 2
CONTAINER_COMMAND = "podman|docker run [OPTIONS] IMAGE [COMMAND...]"


@dataclass(frozen=True, slots=True)
class ExecOptions:
    command: list[str]
    config_file: str | None = None
    overrides: dict[str, Any] = field(default_factory=dict)  # dotted key of the configuration -> value
    output: str = "auto"  # auto | plain | json
    ui: bool = False
    record: str = ""  # file to record to
    secrets: bool = False
    replay: str = ""  # recording that stands for a target
    service: str = ""  # of `sidestage up`
    pool: str = ""  # whose agents it shares with the other services (cluster/pool.py)
    debug: bool = False
    container: bool = False  # the command is an engine's, which starts a container


class Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UserError(message, f"see `{self.prog} --help`", USAGE)


def exec_parser(verb: str = "exec") -> argparse.ArgumentParser:
    container = verb == "container"
    parser = Parser(
        prog=f"sidestage {verb}",
        usage=f"sidestage {verb} -t TARGET [flags] -- {CONTAINER_COMMAND if container else 'COMMAND [ARGS...]'}",
        description="Start a container as if it were inside TARGET." if container else "Run COMMAND as if it were inside TARGET.",
    )
    add = parser.add_argument
    add("-t", "--target", metavar="TARGET", help="KIND/NAME[/container/NAME], process/PID, container/NAME, targetless")
    add_cluster_flags(parser)
    add("-k", "--key", metavar="KEY", help="names the session; `{{ key }}` in a configuration that is a template")
    add("--fs-mode", choices=["local", "localwithoverrides", "read", "write"], help="whose files the program sees")
    add("--incoming", choices=["mirror", "steal", "off"], help="what becomes of the target's incoming traffic")
    add("--steal", action="store_true", help="take it: short for --incoming steal")
    add("--http-header-filter", metavar="REGEX", help="only requests with such a line `Name: value`")
    add("--http-path-filter", metavar="REGEX", help="only requests of such a path, with or without its query")
    add("--http-method-filter", metavar="METHOD", help="only requests of this method")
    add("--http-filter-ports", metavar="PORT;...", help="filter on these ports only, and take the others whole")
    add("--tls-certificate", metavar="FILE", help="TLS of stolen ports ends beside the target: PEM, here or at target:/PATH")
    add("--tls-key", metavar="FILE", help="its private key, here or at target:/PATH (default: in the same file or folder)")
    add("--tls-delivery", choices=["tls", "plain"], help="how the program gets what was inside: encrypted anew, or in plain")
    add("--when-down", choices=["pass", "502"], help="what clients get while the program doesn't listen: the target, or an error")
    add("--on-conflict", choices=["abort", "wait", "override"], help="when somebody else has the port")
    add("--flush-connections", action="store_true", help="end the target's connections, so that clients come anew")
    add("--record", metavar="FILE", help="keep all that the session exchanges with the target, for `sidestage replay`")
    add("--secrets", action="store_true", help="record secrets too, instead of x's in their place")
    add("--ui", action="store_true", help="show the session live in a page on this machine")
    add("--diff", action="store_true", help="compare the program's answers with the target's own, and sum up at the end")
    add("--diff-ignore", action="append", metavar="RULE", help="status, header:NAME or body:PATH, maybe behind METHOD and PATH")
    add("--diff-count", type=int, metavar="N", help="end when so many exchanges are compared")
    add("--fail-on-diff", action="store_true", help="exit status 3 when anything differs")
    add("--no-outgoing", action="store_true", help="connections leave from this machine")
    add("--no-tcp-outgoing", action="store_true")
    add("--no-udp-outgoing", action="store_true")
    add("--no-remote-dns", action="store_true", help="names are looked up here")
    add("-x", "--env-exclude", action="append", metavar="NAME", help="variables not to take, * and ? allowed")
    add("-s", "--env-include", action="append", metavar="NAME", help="take only these variables")
    add("--env-file", metavar="FILE", help="variables from a file, over the target's")
    add_agent_flags(parser)
    add("--output", choices=["auto", "plain", "json"], default="auto", help="how progress is told")
    add("--debug", action="store_true", help="tracebacks of our own errors")
    add("command", nargs=argparse.REMAINDER, metavar="COMMAND")
    return parser


def add_cluster_flags(parser: argparse.ArgumentParser, *, file: bool = True) -> None:
    """Which cluster and namespace, and which configuration unless that is `file` False; the same for every verb that has them."""
    add = parser.add_argument
    add("-n", "--namespace", "--target-namespace", metavar="NS", help="the target's namespace (default: the context's)")
    add("--context", metavar="NAME", help="context of the kubeconfig")
    add("--kubeconfig", metavar="FILE", help="instead of KUBECONFIG and ~/.kube/config")
    add("-c", "--accept-invalid-certificates", action="store_true", help="do not verify the API server's certificate")
    if file:
        add("-f", "--config-file", metavar="FILE", help="configuration (default: .sidestage/sidestage.{json,toml,yaml})")


def cluster_keys(given: argparse.Namespace) -> dict[str, Any]:
    """The overrides that these flags stand for."""
    found = {
        "target.namespace": given.namespace, "kube_context": given.context, "kubeconfig": given.kubeconfig,
        "accept_invalid_certificates": given.accept_invalid_certificates or None,
    }  # fmt: skip
    return {key: value for key, value in found.items() if value is not None}


def add_agent_flags(parser: argparse.ArgumentParser) -> None:
    """How the agent is started in a cluster; the same for every verb that has one."""
    add = parser.add_argument
    add("-e", "--ephemeral-container", action="store_true", help="the agent is an ephemeral container of the target's pod")
    add("--in-container", action="store_true", help="the agent runs in the target's container, with its Python")
    add("-i", "--agent-image", metavar="IMAGE", help="image with Python 3.9 or later for the agent")
    add("-a", "--agent-namespace", metavar="NS", help="where the agent's Job is made (default: the target's)")
    add("--agent-startup-timeout", type=int, metavar="SECONDS", help="until the agent must have begun (default: 60)")
    add("--agent-ttl", type=int, metavar="SECONDS", help="how long the finished Job stays (default: 1)")


def agent_keys(given: argparse.Namespace) -> dict[str, Any]:
    """The overrides that these flags stand for. Raises UserError."""
    if given.ephemeral_container and given.in_container:
        raise UserError("-e and --in-container exclude each other", "keep one", USAGE)
    found = {
        "agent.mode": "ephemeral" if given.ephemeral_container else "in-container" if given.in_container else None,
        "agent.image": given.agent_image, "agent.namespace": given.agent_namespace,
        "agent.startup_timeout": given.agent_startup_timeout, "agent.ttl": given.agent_ttl,
    }  # fmt: skip
    return {key: value for key, value in found.items() if value is not None}


def parse_exec(argv: Sequence[str], verb: str = "exec") -> ExecOptions:
    """Raises UserError."""
    head, command = list(argv), []
    if "--" in head:
        at = head.index("--")
        head, command = head[:at], head[at + 1 :]
    given = exec_parser(verb).parse_args(head)
    command = [*given.command, *command]
    if given.steal and given.incoming not in (None, "steal"):
        raise UserError(f"--steal and --incoming {given.incoming} exclude each other", "keep one", USAGE)
    if not command:
        what = CONTAINER_COMMAND if verb == "container" else "COMMAND [ARGS...]"
        raise UserError("no command", f"write: sidestage {verb} -t TARGET -- {what}", USAGE)
    keys: tuple[tuple[str, Any], ...] = (
        ("target.path", given.target),
        ("key", given.key),
        ("feature.fs.mode", given.fs_mode),
        ("feature.network.incoming.mode", "steal" if given.steal else given.incoming),
        ("feature.network.incoming.http_filter.header_filter", given.http_header_filter),
        ("feature.network.incoming.http_filter.path_filter", given.http_path_filter),
        ("feature.network.incoming.http_filter.method_filter", given.http_method_filter),
        ("feature.network.incoming.http_filter.ports", _ports(given.http_filter_ports)),
        ("feature.network.incoming.tls.certificate", given.tls_certificate),
        ("feature.network.incoming.tls.key", given.tls_key),
        ("feature.network.incoming.tls.delivery", given.tls_delivery),
        ("feature.network.incoming.when_down", given.when_down),
        ("feature.network.incoming.on_conflict", given.on_conflict),
        ("feature.network.incoming.flush_connections", given.flush_connections or None),
        ("feature.diff.enabled", bool(given.diff or given.fail_on_diff or given.diff_count or given.diff_ignore) or None),
        ("feature.diff.ignore", given.diff_ignore),
        ("feature.diff.count", given.diff_count),
        ("feature.diff.fail", given.fail_on_diff or None),
        ("feature.network.outgoing.tcp", False if given.no_outgoing or given.no_tcp_outgoing else None),
        ("feature.network.outgoing.udp", False if given.no_outgoing or given.no_udp_outgoing else None),
        ("feature.network.dns.enabled", False if given.no_remote_dns else None),
        ("feature.env.exclude", given.env_exclude),
        ("feature.env.include", given.env_include),
        ("feature.env.env_file", given.env_file),
    )
    overrides = cluster_keys(given) | agent_keys(given) | {key: value for key, value in keys if value is not None}
    return ExecOptions(
        command, given.config_file, overrides, given.output, given.ui, given.record or "", given.secrets, debug=given.debug,
        container=verb == "container",
    )


def _ports(text: str | None) -> list[int | str] | None:
    """What is no number is left for the schema's check to say so."""
    return None if text is None else [int(part) if part.strip().isdecimal() else part for part in text.replace(",", ";").split(";")]
