"""The configuration's http_filter, as the agent reads it (http/filters.py), and what is wrong with it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sidestage.config.texts import python_pattern

if TYPE_CHECKING:
    from sidestage.config.schema import Config, HttpFilter

WHERE = "feature.network.incoming.http_filter"
_NAMES = {"header_filter": "header", "path_filter": "path", "method_filter": "method", "body_filter": "body"}
_FILTERS = (*_NAMES, "all_of", "any_of")


def spec(config: Config) -> dict[str, Any] | None:
    """The filter as it is sent to the agent; None: there is none."""
    given = config.feature.network.incoming.http_filter
    found = {_NAMES.get(key, key): getattr(given, key) for key in _given(given)}
    if not found:
        return None
    agent = config.agent
    options = {"probes": given.probes, "max_body": agent.max_body_buffer_size, "body_time": agent.max_body_buffer_timeout}
    return {key: _item(key, value) for key, value in found.items()} | options


def problems(config: Config) -> list[str]:
    """Each with the key it is about."""
    incoming = config.feature.network.incoming
    given = incoming.http_filter
    names = _given(given)
    if len(names) > 1:
        return [f"{WHERE}: {' and '.join(names)} exclude each other; put them into all_of or any_of"]
    if not names:
        return [f"{WHERE}: ports without a filter; name one of {', '.join(_FILTERS)}"] if given.ports is not None else []
    from sidestage.http.filters import Filter, FilterError

    try:
        Filter(spec(config) or {})
    except FilterError as error:
        first, *rest = error.where.split(".")
        ours = {inner: outer for outer, inner in _NAMES.items()}
        return [f"{'.'.join([WHERE, ours.get(first, first), *rest])}: {error.text}"]
    if config.feature.diff.enabled:
        return [f"{WHERE}: feature.diff compares all of a connection; use one of the two"]
    if incoming.mode == "off":
        return [f"{WHERE}: has no effect while feature.network.incoming.mode is off; choose mirror or steal"]
    return []


def _given(given: HttpFilter) -> list[str]:
    return [key for key in _FILTERS if (value := getattr(given, key)) is not None and value not in ("", {})]


def _inner(value: Any) -> Any:
    """mirrord's form of a body's filter within a list, {body: json, query, matches}, in ours; patterns in Python's spelling."""
    if isinstance(value, list | tuple):
        return [_inner(item) for item in value]
    if not isinstance(value, dict):
        return value
    if isinstance(value.get("body"), str) and "query" in value:
        value = {"body": value}
    return {key: _item(key, item) for key, item in value.items()}


def _item(key: Any, item: Any) -> Any:
    if key in ("all_of", "any_of"):
        return _inner(item)
    if key == "body" and isinstance(item, dict):
        return {inner: _item(inner, value) for inner, value in item.items()}
    return python_pattern(item) if key in ("header", "path", "matches") and isinstance(item, str) else item
