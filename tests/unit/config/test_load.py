"""The configuration: formats, short forms, precedence, and errors that name the key and the nearest right one."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from sidestage.config import Config, ConfigError, load
from sidestage.config import http_filter as http_filters


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def read(tree: Any, **overrides: Any) -> Config:
    Path("c.json").write_text(json.dumps(tree))
    return load("c.json", {key.replace("__", "."): value for key, value in overrides.items()}, {})


def problems(tree: Any) -> list[str]:
    with pytest.raises(ConfigError) as error:
        read(tree)
    return error.value.problems


def test_nothing_given_is_all_defaults() -> None:
    assert load(None, {}, {}) == Config()


@pytest.mark.parametrize(
    "name, text",
    [
        ("sidestage.json", '{"target": "process/1", "feature": {"network": {"incoming": {"ports": [80]}}}}'),
        ("sidestage.toml", 'target = "process/1"\n[feature.network.incoming]\nports = [80]\n'),
        ("sidestage.yaml", "target: process/1\nfeature:\n  network: {incoming: {ports: [80]}}\n"),
    ],
)
def test_each_format_is_found_and_means_the_same(name: str, text: str, empty_folder: Path) -> None:
    (empty_folder / ".sidestage").mkdir()
    (empty_folder / ".sidestage" / name).write_text(text)
    found = load(None, {}, {})
    assert found.target.path == "process/1"
    assert found.feature.network.incoming.ports == (80,)


def test_two_files_are_not_guessed_between(empty_folder: Path) -> None:
    (empty_folder / ".sidestage").mkdir()
    for name in ("sidestage.json", "sidestage.toml"):
        (empty_folder / ".sidestage" / name).write_text("")
    with pytest.raises(ConfigError, match="keep one"):
        load(None, {}, {})


@pytest.mark.parametrize(
    "short, long",
    [
        ({"fs": "local"}, {"fs": {"mode": "local"}}),
        ({"fs": False}, {"fs": {"mode": "local"}}),
        ({"fs": True}, {}),
        ({"env": False}, {"env": {"exclude": "*"}}),
        ({"env": {"include": "A;B"}}, {"env": {"include": ["A", "B"]}}),
        ({"network": {"incoming": "off"}}, {"network": {"incoming": {"mode": "off"}}}),
        ({"network": {"outgoing": False}}, {"network": {"outgoing": {"tcp": False, "udp": False}}}),
        ({"network": {"dns": False}}, {"network": {"dns": {"enabled": False}}}),
        ({"network": False}, {"network": {"incoming": False, "outgoing": False, "dns": False}}),
    ],
)
def test_short_forms(short: Any, long: Any) -> None:
    assert asdict(read({"feature": short})) == asdict(read({"feature": long}))


def test_flag_over_variable_over_file() -> None:
    Path("c.json").write_text('{"target": "process/1", "feature": {"fs": "local"}}')
    assert load("c.json", {}, {}).target.path == "process/1"
    assert load("c.json", {}, {"SIDESTAGE_TARGET": "process/2"}).target.path == "process/2"
    assert load("c.json", {"target.path": "process/3"}, {"SIDESTAGE_TARGET": "process/2"}).target.path == "process/3"
    assert load("c.json", {"feature.fs.mode": "read"}, {}).feature.fs.mode == "read"


def test_a_flag_keeps_what_a_short_form_said() -> None:
    found = read({"feature": {"network": False}}, feature__network__outgoing__tcp=True)
    assert found.feature.network.outgoing.tcp
    assert not found.feature.network.outgoing.udp
    assert found.feature.network.incoming.mode == "off"


JSON_BODY = {"body": "json", "query": "$", "matches": "x"}


def http_filter(mode: str = "steal", **keys: Any) -> Any:
    return {"feature": {"network": {"incoming": {"mode": mode, "http_filter": keys}}}}


@pytest.mark.parametrize(
    "keys, spec",
    [
        ({}, None),
        ({"header_filter": "^x: y$"}, {"header": "^x: y$"}),
        ({"path_filter": "/a", "ports": [80]}, {"path": "/a"}),
        ({"method_filter": "PUT"}, {"method": "PUT"}),
        ({"body_filter": JSON_BODY}, {"body": JSON_BODY}),
        (
            {"any_of": [{"header": "a"}, {"body": "json", "query": "$", "matches": "x"}, {"all_of": [{"method": "PUT"}]}]},
            {"any_of": [{"header": "a"}, {"body": JSON_BODY}, {"all_of": [{"method": "PUT"}]}]},
        ),
    ],
)
def test_http_filters(keys: Any, spec: Any) -> None:
    config = read(http_filter(**keys))
    assert http_filters.spec(config) == (spec and {**spec, "probes": False, "max_body": 65535, "body_time": 1000})


@pytest.mark.parametrize(
    "tree, said",
    [
        ({"targt": "x"}, ["targt", "'target'"]),
        ({"feature": {"fs": {"mod": "read"}}}, ["feature.fs.mod", "'mode'"]),
        ({"feature": {"fs": "raed"}}, ["feature.fs.mode", "'read'"]),
        ({"feature": {"network": {"incoming": "stael"}}}, ["incoming.mode", "did you mean 'steal'?"]),
        ({"feature": {"network": {"incoming": {"when_down": 503}}}}, ["incoming.when_down", "pass, 502"]),
        (http_filter(header_filter="a", path_filter="b"), ["http_filter: header_filter and path_filter exclude each other"]),
        (http_filter(header_filter="("), ["http_filter.header_filter: not a regular expression"]),
        (http_filter(any_of=[]), ["http_filter.any_of: must be a list of filters, and not empty"]),
        (http_filter(all_of=[{"path": "a"}, {"header": "["}]), ["http_filter.all_of[1].header: not a regular expression"]),
        (http_filter(all_of=[{"path_filter": "a"}]), ["http_filter.all_of[0].path_filter: unknown"]),
        (http_filter(body_filter={"body": "json", "query": "$[", "matches": "a"}), ["body_filter.query: not a JSONPath"]),
        (http_filter(body_filter={"body": "json", "query": "$"}), ["body_filter.matches: must be a text"]),
        (http_filter(ports=[80]), ["http_filter: ports without a filter"]),
        (http_filter("off", path_filter="a"), ["http_filter: has no effect while"]),
        (http_filter(headr_filter="a"), ["http_filter.headr_filter: unknown key, did you mean 'header_filter'?"]),
        ({"feature": {"hostname": "yes"}}, ["feature.hostname", "true or false"]),
        ({"feature": {"network": {"incoming": {"ports": 80}}}}, ["incoming.ports", "list"]),
        ({"feature": {"network": {"incoming": {"port_mapping": [[1, 2], [1, 3]]}}}}, ["port_mapping", "twice"]),
        ({"feature": {"network": {"incoming": {"ports": [1], "ignore_ports": [2]}}}}, ["ports", "keep one"]),
        ({"feature": {"env": {"include": "A", "exclude": "B"}}}, ["feature.env", "keep one"]),
        ({"feature": {"env": {"override": ["A"]}}}, ["feature.env.override", "names"]),
        ({"agent": {"silence": "long"}}, ["agent.silence", "a number"]),
        ({"agent": {"silence": True}}, ["agent.silence", "a number"]),
        ({"agent": {"silence": 9}}, ["silence", "twice heartbeat"]),
        ({"agent": {"heartbeat": 0}}, ["silence", "twice heartbeat"]),
        ({"feature": {"fs": {"local": ["a", "("]}}}, ["feature.fs.local[1]: not a regular expression: '('"]),
        ({"feature": {"fs": {"mapping": {"(": "/a"}}}}, ["feature.fs.mapping: not a regular expression"]),
        ({"feature": {"env": {"mapping": {"[": "a"}}}}, ["feature.env.mapping: not a regular expression"]),
        ({"feature": {"network": {"outgoing": {"unix_streams": "*"}}}}, ["outgoing.unix_streams[0]: not a regular expression"]),
        ({"feature": {"network": {"outgoing": {"filter": {"local": "tcp:/x"}}}}}, ["filter.local[0]: 'tcp:/x' is not [tcp://|"]),
        ({"feature": {"network": {"outgoing": {"filter": {"remote": "a:70000"}}}}}, ["filter.remote[0]", "no port 70000"]),
        ({"feature": {"network": {"dns": {"filter": {"local": ["a", "a:b:c"]}}}}}, ["dns.filter.local[1]: 'a:b:c' is not"]),
        ({"target": "targetless", "feature": {"network": {"incoming": "steal"}}}, ["incoming.mode", "name a target"]),
        ({"target": "targetless", "agent": {"mode": "ephemeral"}}, ["agent.mode", "use job"]),
        ([], ["object"]),
    ],
)
def test_one_problem_names_key_and_cure(tree: Any, said: list[str]) -> None:
    (only,) = problems(tree)
    assert all(part in only for part in said), only


def test_seconds_may_be_whole_or_not() -> None:
    agent = read({"agent": {"heartbeat": 0.5, "silence": 2}}).agent
    assert (agent.heartbeat, agent.silence) == (0.5, 2.0)


def test_all_problems_at_once() -> None:
    found = problems({"targt": "x", "feature": {"fs": {"mod": 1}, "hostname": 3}})
    assert [line.partition(":")[0] for line in found] == ["targt", "feature.fs.mod", "feature.hostname"]


@pytest.mark.parametrize("name, text", [("c.json", "{"), ("c.toml", "a ="), ("c.yaml", "a: [1"), ("c.json", "\xff")])
def test_a_broken_file_is_named(name: str, text: str) -> None:
    Path(name).write_bytes(text.encode("latin-1"))
    with pytest.raises(ConfigError, match=name):
        load(name, {}, {})


@pytest.mark.parametrize(
    "name, text, line", [("c.json", '{\n "a": \n}', 3), ("c.toml", "\n\na = ]", 3), ("c.yaml", "a: b\nb: [\nc: }\n", 3)]
)
def test_a_broken_file_s_line_is_named(name: str, text: str, line: int) -> None:
    Path(name).write_text(text)
    with pytest.raises(ConfigError) as error:
        load(name, {}, {})
    assert error.value.located()[0].startswith(f"{name}:{line}: ")


def test_what_is_wrong_with_a_variable_is_not_the_file_s() -> None:
    Path("c.yaml").write_text("feature:\n  fs: {mode: write, local: [a]}\n  hostname: 1\n")
    given = {"SIDESTAGE_FEATURE_FS_MODE": "wriet", "SIDESTAGE_FEATURE_FS_LOCAL": "a;("}
    with pytest.raises(ConfigError) as error:
        load("c.yaml", {"agent.ttl": "x"}, given)
    assert [line.partition(": ")[0] for line in error.value.located()] == [
        "SIDESTAGE_FEATURE_FS_MODE", "SIDESTAGE_FEATURE_FS_LOCAL", "c.yaml:3", "flags",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "target, agent, told",
    [
        ("pod/x", {"node_selector": {"a": "b"}}, "agent.node_selector"),
        ("targetless", {"node_selector": {"a": "b"}}, ""),
        ("pod/x", {"namespace": "n", "mode": "ephemeral"}, "agent.namespace"),
        ("pod/x", {"namespace": "n"}, ""),
    ],
)
def test_what_has_no_effect_beside_the_rest_is_told(target: str, agent: Any, told: str) -> None:
    Path("c.json").write_text(json.dumps({"target": target, "agent": agent}))
    notes: list[str] = []
    load("c.json", {}, {}, notes.append)
    assert [note.partition(" ")[0] for note in notes] == [told] * bool(told)


def test_a_pipe_and_the_mark_of_an_editor() -> None:
    reading, writing = os.pipe()
    os.write(writing, '\ufeff{"target": "process/9"}'.encode())
    os.close(writing)
    try:
        assert load(f"/dev/fd/{reading}", {}, {}).target.path == "process/9"
    finally:
        os.close(reading)


def test_what_is_commented_out_is_the_default() -> None:
    Path("c.yaml").write_text("target:\nfeature:\n  env:\n  #  exclude: A\n  fs:\n  network: {incoming: {mode: null, ports:}}\n")
    assert load("c.yaml", {"feature.env.include": ["A"]}, {}).feature.env.include == ("A",)
    assert load("c.yaml", {}, {}) == Config()


def test_groups_are_named_as_in_rust_and_javascript_too() -> None:
    fs = read({"feature": {"fs": {"mapping": {r"^/home/(?<user>\S+)/x": "/data/$user"}, "local": r"\(?<a(?<=a)(?<!b)"}}}).feature.fs
    assert list(fs.mapping) == [r"^/home/(?P<user>\S+)/x"]
    assert fs.local == (r"\(?<a(?<=a)(?<!b)",)
    spec = http_filters.spec(read(http_filter(all_of=[{"path": "(?<a>b)"}, {"body": {**JSON_BODY, "matches": "(?<a>b)"}}])))
    assert spec is not None
    assert spec["all_of"] == [{"path": "(?P<a>b)"}, {"body": {**JSON_BODY, "matches": "(?P<a>b)"}}]


def test_a_missing_file_is_named() -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.json"):
        load("nowhere.json", {}, {})


@pytest.mark.parametrize(
    "written, path, namespace",
    [
        ("pod/a", "pod/a", ""),
        (None, "", ""),
        ({"path": "pod/a", "namespace": "n"}, "pod/a", "n"),
        ({"path": "pod/a", "namespace": None}, "pod/a", ""),
        ({"deployment": "a"}, "deployment/a", ""),
        ({"deployment": "a", "container": "c", "namespace": "n"}, "deployment/a/container/c", "n"),
        ({"path": {"deployment": "a", "container": "c"}, "namespace": "n"}, "deployment/a/container/c", "n"),
        ({"path": {"stateful_set": "a"}}, "statefulset/a", ""),
        ({"path": {"labels": {"app": "a", "tier": "web"}}}, "label/app=a,tier=web", ""),
        ({"label": "app=a"}, "label/app=a", ""),
    ],
)
def test_targets_as_mirrord_writes_them(written: Any, path: str, namespace: str) -> None:
    found = read({"target": written}).target
    assert (found.path, found.namespace) == (path, namespace)


@pytest.mark.parametrize(
    "tree, said",
    [
        ({"deployement": "x"}, ["target.deployement", "'deployment'"]),
        ({"path": {"deployment": "x", "pod": "y"}}, ["target.path", "text"]),
        ({"path": "pod/a", "namspace": "n"}, ["target.namspace", "'namespace'"]),
        ({"deployment": "x", "contaner": "y"}, ["target.contaner"]),
        (["pod/a"], ["target", "object"]),
    ],
)
def test_a_target_that_is_none(tree: Any, said: list[str]) -> None:
    (only,) = problems({"target": tree})
    assert all(part in only for part in said), only


def test_a_variable_keeps_the_namespace_of_the_file() -> None:
    Path("c.json").write_text('{"target": {"path": "pod/a", "namespace": "n"}}')
    found = load("c.json", {}, {"SIDESTAGE_TARGET": "pod/b"}).target
    assert (found.path, found.namespace) == ("pod/b", "n")


def test_the_agent_as_mirrord_writes_it() -> None:
    found = read({
        "agent": {
            "image": {"registry": "r.example/python", "tag": "3.13"}, "ephemeral": True, "tolerations": [{"operator": "Exists"}],
            "image_pull_secrets": [{"name": "one"}, "two"], "resources": {"limits": {"cpu": 1}},
            "disabled_capabilities": ["NET_RAW"], "labels": {"team": "x"},
        }
    }).agent  # fmt: skip
    assert (found.image, found.mode, found.image_pull_secrets) == ("r.example/python:3.13", "ephemeral", ("one", "two"))
    assert (found.tolerations, found.resources) == (({"operator": "Exists"},), {"limits": {"cpu": 1}})
    assert found.disabled_capabilities == ("NET_RAW",)


@pytest.mark.parametrize(
    "agent, said",
    [
        ({"mode": "jobb"}, ["agent.mode", "'job'"]),
        ({"ttl": "1"}, ["agent.ttl", "whole number"]),
        ({"disabled_capabilities": ["NET_ADMIM"]}, ["agent.disabled_capabilities[0]", "'NET_ADMIN'"]),
        ({"resources": [1]}, ["agent.resources", "object"]),
        ({"tolerations": [1]}, ["agent.tolerations[0]", "object"]),
        ({"image": {"tag": "x"}}, ["agent.image", "text"]),
    ],
)
def test_an_agent_that_is_wrong(agent: Any, said: list[str]) -> None:
    (only,) = problems({"agent": agent})
    assert all(part in only for part in said), only


@pytest.mark.parametrize("name, letter", [("c.json", "["), ("c.json", '{"a":'), ("c.yaml", "[")])
def test_what_nests_without_end_is_an_error(name: str, letter: str) -> None:
    Path(name).write_text(letter * 100_000)
    with pytest.raises(ConfigError, match="nests too deeply"):
        load(name, {}, {})
