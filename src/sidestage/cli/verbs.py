"""The verbs, and a line on each: for the help, for misspelt ones and for the shell."""

from __future__ import annotations

VERBS = {
    "exec": "run a command plugged into a target",
    "container": "start a container plugged into a target",
    "ls": "what can be a target in the cluster",
    "doctor": "what this machine and the cluster allow, and the cure for each lack",
    "status": "sessions that run now, what one does, and its end",
    "port-forward": "ports here that lead into the target's network, and the target's that lead here",
    "record": "exec, and keep the session in a file",
    "replay": "run a command against a recording, with no target at all",
    "dump": "the target's traffic, live, or as a file for Wireshark or a browser",
    "diagnose": "how fast a target can be worked with from here, and what limits that",
    "up": "several services at once, from one file",
    "clean": "agents that were left over: told and removed",
    "ui": "a session live in a page on this machine",
    "verify-config": "is this configuration right?",
    "migrate": "write our configuration from mirrord's",
    "ext": "for editors: what to put before a program's command line",
    "completion": "completion for bash, zsh or fish",
    "demo": "a small staging on this machine, to see it work",
}

# Verbs that run in a module of their own, with `parser()` and `main(argv)`
MODULES = {"port-forward": "forward", "dump": "dump", "diagnose": "diagnose", "up": "up", "clean": "clean"}
