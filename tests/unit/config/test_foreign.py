"""mirrord's files: read as they are; each of their keys is known, has no effect that is told, or is refused with our way."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sidestage.cli import verify
from sidestage.config import ConfigError, foreign, load
from sidestage.config.check import leaves
from sidestage.config.schema import Config

# Every key that mirrord 3.250's schema has.
THEIRS = """
target key accept_invalid_certificates kubeconfig kube_context operator multi_cluster profile skip_processes skip_build_tools
skip_extra_build_tools skip_sip sip_binaries use_proxy telemetry api startup_retry internal_proxy external_proxy container ci
baggage traceparent experimental
agent.image agent.image_pull_policy agent.image_pull_secrets agent.namespace agent.ephemeral agent.privileged
agent.disabled_capabilities agent.communication_timeout agent.startup_timeout agent.ttl agent.tolerations agent.node_selector
agent.service_account agent.labels agent.annotations agent.priority_class agent.security_context agent.resources
agent.check_out_of_pods agent.flush_connections agent.clean_iptables_on_start agent.nftables agent.dns agent.exclude_from_mesh
agent.disable_mesh_sidecar_injection agent.http_detection_timeout agent.external_ip_fix agent.inject_headers
agent.override_cache_control agent.max_body_buffer_size agent.max_body_buffer_timeout agent.jaq_time_limit agent.metrics
agent.log_level agent.json_log
feature.env.include feature.env.exclude feature.env.override feature.env.env_file feature.env.mapping feature.env.unset
feature.env.load_from_process
feature.fs.mode feature.fs.read_write feature.fs.read_only feature.fs.local feature.fs.not_found feature.fs.mapping
feature.fs.readonly_file_buffer
feature.network.incoming.mode feature.network.incoming.http_filter feature.network.incoming.port_mapping
feature.network.incoming.ports feature.network.incoming.ignore_ports feature.network.incoming.ignore_localhost
feature.network.incoming.listen_ports feature.network.incoming.tls_delivery feature.network.incoming.https_delivery
feature.network.incoming.on_concurrent_steal feature.network.incoming.http_header_filter
feature.network.outgoing.tcp feature.network.outgoing.udp feature.network.outgoing.ignore_localhost
feature.network.outgoing.filter feature.network.outgoing.unix_streams
feature.network.dns.enabled feature.network.dns.filter feature.network.ipv6
feature.hostname feature.magic.aws feature.magic.auto_mount feature.magic.turbo feature.copy_target feature.split_queues
feature.db_branches feature.preview
""".split()


def known() -> set[str]:
    ours = {path for path, _ in leaves(Config)}
    sections = {path.rpartition(".")[0] for path in ours}
    theirs = (foreign.WITHOUT_EFFECT, foreign.REFUSED, foreign.MAPPED, foreign.ALWAYS, foreign.NEEDED)
    return ours | sections | {key for table in theirs for key in table}


@pytest.mark.parametrize("key", THEIRS)
def test_each_of_their_keys_has_an_answer(key: str) -> None:
    assert key in known()


def test_what_is_mapped_is_mapped_to_keys_of_ours() -> None:
    ours = {path for path, _ in leaves(Config)}
    for path, convert in foreign.MAPPED.items():
        for value in (True, "abort", 1000):
            assert convert(value).keys() <= ours, path


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def read(tree: Any) -> tuple[Config, list[str]]:
    Path(".mirrord").mkdir(exist_ok=True)
    Path(".mirrord/mirrord.json").write_text(json.dumps(tree))
    told: list[str] = []
    return load(None, {}, {}, told.append), told


def test_a_file_of_theirs_is_found_and_read() -> None:
    found, told = read({"target": "pod/x", "telemetry": True, "operator": False, "feature": {"network": {"incoming": "mirror"}}})
    assert found.target.path == "pod/x"
    assert [line.partition(": ")[2].split()[0] for line in told] == ["telemetry"]  # what is off needs no word


@pytest.mark.parametrize("off", [False, None, {"enabled": False}, {}])
def test_what_is_switched_off_is_no_problem(off: Any) -> None:
    assert read({"feature": {"copy_target": off}})[1] == []


@pytest.mark.parametrize("key", [key for key in foreign.REFUSED if "jq" not in key])
def test_what_is_refused_is_named_with_our_way(key: str) -> None:
    value: Any = True
    for part in reversed(key.split(".")):
        value = {part: value}
    with pytest.raises(ConfigError, match=key):
        read(value)


@pytest.mark.parametrize("key", [*foreign.ALWAYS, *foreign.NEEDED])
def test_what_is_always_so_is_told_when_it_is_switched_off(key: str) -> None:
    def tree(value: Any) -> Any:
        for part in reversed(key.split(".")):
            value = {part: value}
        return value

    assert read(tree(True)) == (Config(), [])
    if key in foreign.NEEDED:
        with pytest.raises(ConfigError, match=key):
            read(tree(False))
    else:
        assert [f"{key}: false has no effect" in line for line in read(tree(False))[1]] == [True]


def test_null_is_the_default_of_each_of_their_keys() -> None:
    tree: dict[str, Any] = {}
    for key in THEIRS:
        foreign._put(tree, key, None)
    assert read(tree) == (Config(), [])


def test_what_is_wrong_with_a_key_of_theirs_is_found_on_its_line() -> None:
    Path("m.json").write_text('{"feature": {"network": {"incoming": {\n "mode": "steal",\n "on_concurrent_steal": "abotr"}}}}')
    with pytest.raises(ConfigError) as error:
        load("m.json", {}, {})
    assert error.value.located()[0].startswith("m.json:3: feature.network.incoming.on_conflict: 'abotr' is none of")


def test_kubernetes_own_spelling_of_what_theirs_spells_otherwise() -> None:
    given = {"seccomp_profile": {"type": "RuntimeDefault"}, "app_armor_profile": {"type": "Unconfined"}}
    want = {"seccompProfile": {"type": "RuntimeDefault"}, "appArmorProfile": {"type": "Unconfined"}}
    assert read({"agent": {"security_context": given}})[0].agent.security_context == want


@pytest.mark.parametrize("theirs, ours", [("abort", "abort"), ("continue", "wait"), ("override", "override")])
def test_whoever_steals_at_the_same_time(theirs: str, ours: str) -> None:
    found, told = read({"feature": {"network": {"incoming": {"mode": "steal", "on_concurrent_steal": theirs}}}})
    assert found.feature.network.incoming.on_conflict == ours
    assert bool(told) == (theirs != ours)


@pytest.mark.parametrize("incoming, mode", [("steal", "steal"), ({"mode": "steal"}, "steal"), (True, "mirror"), (False, "off")])
def test_connections_of_before(incoming: Any, mode: str) -> None:
    for flush in (True, False):
        found, told = read({"agent": {"flush_connections": flush}, "feature": {"network": {"incoming": incoming}}})
        assert found.feature.network.incoming.flush_connections == flush
        assert found.feature.network.incoming.mode == mode
        assert not told


@pytest.mark.parametrize("value, ports", [("^x-user: me$", None), ({"filter": "^x-user: me$", "ports": [80]}, (80,))])
def test_the_filter_s_former_name(value: Any, ports: Any) -> None:
    found, _ = read({"feature": {"network": {"incoming": {"mode": "steal", "http_header_filter": value}}}})
    assert found.feature.network.incoming.http_filter.header_filter == "^x-user: me$"
    assert found.feature.network.incoming.http_filter.ports == ports


def test_ours_comes_before_theirs() -> None:
    Path(".sidestage").mkdir()
    Path(".sidestage/sidestage.json").write_text('{"target": "process/2"}')
    assert read({"target": "process/1"})[0].target.path == "process/2"


def test_migrate(capsys: pytest.CaptureFixture[str]) -> None:
    read({"target": "process/1", "telemetry": True, "feature": {"fs": "local", "env": {"exclude": "A;B"}}})
    assert verify.migrate([]) == 0
    assert "telemetry" in capsys.readouterr().err
    want = {"target": {"path": "process/1"}, "feature": {"env": {"exclude": ["A", "B"]}, "fs": {"mode": "local"}}}
    assert json.loads(Path(".sidestage/sidestage.json").read_text()) == want
    with pytest.raises(Exception, match="there already"):
        verify.migrate([])


def test_verify_for_editors(capsys: pytest.CaptureFixture[str]) -> None:
    read({"telemetry": True, "feature": {"fs": "local"}})
    assert verify.main(["--ide", ".mirrord/mirrord.json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["type"], said["config"], len(said["warnings"])) == ("Success", {"feature": {"fs": {"mode": "local"}}}, 1)
    Path("t.yaml").write_text("feature:\n  fs: read\ntarget: deploymnt/x\n")
    assert verify.main(["--ide", "t.yaml"]) == 0
    (problem,) = json.loads(capsys.readouterr().out)["errors"]
    assert problem.startswith("t.yaml:3: target.path: unknown kind") and "'deployment'" in problem
    Path("c.yaml").write_text("feature:\n  fs:\n    mod: read\n")
    assert verify.main(["--ide", "c.yaml"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said == {"type": "Fail", "errors": ["c.yaml:3: feature.fs.mod: unknown key, did you mean 'mode'?"]}
