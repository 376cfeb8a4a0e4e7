"""`exec --diff`: what the local program answered differently from the target, summed up when the program ends."""

from __future__ import annotations

import sys
from typing import Any

from sidestage.cli.errors import UserError
from sidestage.cli.progress import clean
from sidestage.config.schema import Diff
from sidestage.views.incoming import IncomingRules

DIFFERENT = 3  # exit status of --fail-on-diff
MAX_ROUTES = 20  # of differences that are shown
MAX_COUNTED = 1000


class DiffSummary:
    def __init__(self, settings: Diff, json: bool) -> None:
        self._settings, self._json = settings, json
        self._compared = self._equal = 0
        self._milliseconds = [0.0, 0.0]  # target, local
        self._found: dict[tuple[str, str, str], list[Any]] = {}  # method, path, where -> [times, target, local]
        self._proposals: list[str] = []
        self._played = False  # to the end of a recording
        self._strayed: dict[str, int] = {}  # from it -> times

    def on_event(self, name: str, args: dict[str, Any]) -> None:
        if name == "replay":
            self._replayed(args["how"], args["what"])
        if name != "compared":
            return
        self._compared += 1
        self._equal += not args["differences"]
        self._milliseconds = [total + ms for total, ms in zip(self._milliseconds, args["ms"], strict=True)]
        self._proposals = args["proposals"]
        path = args["path"].partition("?")[0]
        for where, target, local in args["differences"]:
            key = (args["method"], path, where)
            if key in self._found or len(self._found) < MAX_COUNTED:
                self._found.setdefault(key, [0, target, local])[0] += 1

    def _replayed(self, how: str, what: str) -> None:
        if how == "done":
            self._played = True
        else:
            text = f"not in the recording: {what}" if how == "missing" else f"not what was recorded: {what}"
            self._strayed[text] = self._strayed.get(text, 0) + 1

    def finish(self, status: int) -> int:
        """Prints the summary; the exit status, given the program's own."""
        if self._json:
            import json

            rows = [{"method": m, "path": p, "where": w, "times": t, "target": a, "local": b}
                    for (m, p, w), (t, a, b) in self._found.items()]  # fmt: skip
            print(json.dumps({"type": "diff", "compared": self._compared, "equal": self._equal, "differences": rows,
                              "proposals": self._proposals, "strayed": self._strayed}), file=sys.stderr)  # fmt: skip
        else:
            print(clean(self._text()), file=sys.stderr)
        enough = bool(self._settings.count and self._compared >= self._settings.count)
        if self._settings.fail and (self._compared > self._equal or self._strayed):
            return DIFFERENT
        return 0 if enough or self._played else status

    def _text(self) -> str:
        if not self._compared and not self._strayed and not self._played:
            return "sidestage: no exchange was compared: the target got no HTTP request on a port that the program listens on"
        target, local = (total / (self._compared or 1) for total in self._milliseconds)
        means = f"mean time to answer {target:.1f} ms in the target, {local:.1f} ms here"
        lines = [f"sidestage: {self._compared} exchanges compared, {self._equal} equal; {means}"]
        shown = sorted(self._found.items(), key=lambda item: -item[1][0])[:MAX_ROUTES]
        for (method, path, where), (times, theirs, ours) in shown:
            lines.append(f"  {method} {path}  {where}  ({times}x)")
            lines.append(f"    - target  {_line(theirs)}")
            lines.append(f"    + local   {_line(ours)}")
        if len(self._found) > len(shown):
            lines.append(f"  and {len(self._found) - len(shown)} more")
        lines += [f"  {text}  ({times}x)" for text, times in list(self._strayed.items())[:MAX_ROUTES]]
        if self._proposals and self._found:
            lines.append("  the target itself answers these differently each time; --diff-ignore leaves them out:")
            lines += [f"    --diff-ignore '{rule}'" for rule in self._proposals[:MAX_ROUTES]]
        return "\n".join(lines)


def _line(value: str) -> str:
    return value.replace("\r", "\\r").replace("\n", "\\n") or "(none)"


def check(settings: Diff, incoming: IncomingRules) -> None:
    """Raises UserError where nothing could be compared."""
    from sidestage.exchange.compare import Rule, RuleError

    if incoming.mode != "mirror":
        raise UserError(
            f"--diff needs the target's own answers, and with incoming mode {incoming.mode} there are none", "use mode mirror"
        )
    if getattr(incoming, "filter", None):
        raise UserError("--diff can't be used with an HTTP filter yet", "leave the filter out, or give --diff-ignore rules")
    try:
        for text in settings.ignore:
            Rule.parse(text)
    except RuleError as error:
        raise UserError(str(error), "correct --diff-ignore or feature.diff.ignore") from error
