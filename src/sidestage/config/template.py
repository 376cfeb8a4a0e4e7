"""A configuration file as a template, in the syntax that mirrord's files have (Tera, which is Jinja's but for a few words).

`{{ get_env(name="USER", default="me") }}`, the variables `key` (the session's key) and `git_branch`, and the filters.
Imported only for a file with `{{` or `{%`. Rendered in a sandbox: a file of a repository runs no code.
"""

from __future__ import annotations

import re
import secrets
import subprocess
from collections.abc import Callable, Mapping
from typing import Any

import jinja2
from jinja2.sandbox import ImmutableSandboxedEnvironment


def render(text: str, key: str | None, environ: Mapping[str, str], parse: Callable[[str], Any]) -> str:
    """The file's text. A `key` in the file itself is known only when it is rendered, so it is rendered for that first.

    Raises ValueError for what is wrong with the template.
    """
    made = key or secrets.token_hex(4)
    rendered = _render(text, made, environ)
    if key is None and isinstance(tree := parse(rendered), dict) and isinstance(tree.get("key"), str):
        rendered = _render(text, tree["key"], environ)
    return rendered


def _render(text: str, key: str, environ: Mapping[str, str]) -> str:
    def get_env(name: str, default: object = None) -> object:
        value = environ.get(name, default)
        if value is None:
            raise ValueError(f'the environment has no {name}: set it, or write get_env(name="{name}", default="...")')
        return value

    engine = ImmutableSandboxedEnvironment(undefined=jinja2.StrictUndefined, autoescape=False, keep_trailing_newline=True)
    engine.globals.clear()
    engine.globals["get_env"] = get_env
    engine.filters.update(
        replace=lambda value, **words: str(value).replace(words["from"], words["to"]),
        default=_default,
        slugify=lambda value: re.sub(r"[^a-z0-9]+", "-", str(value).lower()).strip("-"),
        split=lambda value, pat: str(value).split(pat),
        trim_start_matches=lambda value, pat: str(value).removeprefix(pat),
        trim_end_matches=lambda value, pat: str(value).removesuffix(pat),
    )
    variables = {"key": key}
    branch = git_branch() if "git_branch" in text else ""
    if branch:
        variables["git_branch"] = branch
    try:
        return engine.from_string(text).render(variables)
    except jinja2.TemplateError as error:
        line = getattr(error, "lineno", None)
        raise ValueError(f"template: {error}" + (f" (line {line})" if line else "")) from error
    except (KeyError, TypeError) as error:
        raise ValueError(f"template: {error}") from error


def _default(given: object, plain: object = None, /, **words: object) -> object:
    return words.get("value", plain) if isinstance(given, jinja2.Undefined) else given


def git_branch() -> str:
    """The branch that is checked out here; empty without git or with a detached HEAD."""
    try:
        done = subprocess.run(
            ["git", "symbolic-ref", "--quiet", "--short", "HEAD"], capture_output=True, text=True, timeout=5, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip()
