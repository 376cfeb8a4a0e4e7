"""Calls by path that change the target's files, as trap asks for them: the agent does each, and open files hear of it."""

from __future__ import annotations

import errno as e
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sidestage.session.broker import Args, Reply
    from sidestage.session.fusefs import FuseFiles
    from sidestage.session.recent import Recent

CALLS = frozenset(
    "mkdir rmdir unlink mknod symlink link rename setattr setxattr removexattr getxattr listxattr".split()
)  # of agent/changes.py


class PathChanges:
    def __init__(self, asked: Recent, files: FuseFiles) -> None:
        self._asked, self._files = asked, files

    def change(self, args: Args, _fds: list[int], reply: Reply) -> None:
        """`{call, args, raw?, node?}`; answered with `{raw}`. `node` names an open file in the place of a path."""
        call, told = args["call"], args["args"]
        if call not in CALLS:
            reply(e.ENOSYS)
            return
        if "node" in args:
            told = {**told, **self._files.subject(int(args["node"]))}

        def done(result: dict[str, Any], raw: bytes, errno: int) -> None:
            self._asked.forget()
            self._files.touched(result.get("touched", []))
            reply(errno, raw=bytes(raw))

        self._asked.call(call, told, done, args.get("raw", b""))
