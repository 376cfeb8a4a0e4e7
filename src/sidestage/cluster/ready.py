"""Why an agent that was started by exec did not say READY, or ended: its own last words, its exit code, or the runtime's. Pure."""

from __future__ import annotations

import re

from sidestage.cluster.channels import Command
from sidestage.cluster.errors import ClusterError

# agent/main.py and agent/stage0.py end with these.
NO_PYTHON, NO_PERMISSION, NO_PROCESS, NO_GUARD = 95, 96, 97, 98
KILLED = 128 + 9
NO_PROGRAM = re.compile(r'exec: "?([^":]+)"?: (executable file not found in \$PATH|(?:stat \S+: )?no such file or directory)')
CURES = {
    NO_PYTHON: "choose an image with Python 3.9 or later in agent.image",
    NO_PERMISSION: "the node forbids it (SELinux, AppArmor): set agent.privileged, or use -e or --in-container",
    NO_PROCESS: "the target's container has just ended or restarted: try again",
    NO_GUARD: "try again; the API server or the node was slow",
}


def why(channels: Command, error: BaseException, mode: str) -> ClusterError:
    said = channels.stderr.splitlines()
    code = channels.exit_code()
    message = str(channels.status().get("message") or "")
    if code in CURES and said:
        return ClusterError(f"the agent could not start: {said[-1]}", CURES[code])
    missing = no_program(message)
    if missing:
        if mode == "in-container":
            return ClusterError(f"the target's container has no Python ({missing})", "name it in agent.python, or use -e")
        return ClusterError(f"the agent's image has no Python ({missing})", "name it in agent.python, or another agent.image")
    told = said[-1] if said else message or channels.ended or str(error)
    return ClusterError(f"the agent could not start: {told}", "run again with --debug to see more")


def no_program(message: str) -> str:
    """The part of a container runtime's long sentence that says that a program is not there; empty if it doesn't."""
    found = NO_PROGRAM.search(message)
    return f"{found[1]}: {found[2]}" if found else ""


def last_words(channels: Command) -> str:
    """Of an agent that had started; empty if the stream just broke."""
    said = channels.stderr.splitlines()
    if said:
        return f"the agent ended: {said[-1]}"
    code = channels.exit_code()
    if code == KILLED:
        return "the agent was killed (for its memory, or by somebody)"
    return f"the agent ended with {code}" if code else ""
