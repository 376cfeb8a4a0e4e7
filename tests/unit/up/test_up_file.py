"""The file of `up`: what it means, and what is said of mistakes in it."""

from __future__ import annotations

from pathlib import Path

import pytest

from sidestage.config import ConfigError
from sidestage.up.file import TEMPLATE, choose, load

GOOD = """\
default:
  target: targetless
  restart: on-failure
  env: {A: "1", B: "2"}
  config: {feature: {network: {incoming: mirror}, fs: local}}
services:
  orders:
    target: deployment/orders
    command: ./orders --name "two words" 8080
    dir: sub
    env: {B: "3"}
    config:
      feature: {network: {outgoing: {tcp: false}}, env: {override: {C: "4"}}}
    watch: ["**/*.py", conf/*]
  web:
    command: [npm, run, 8080]
    restart: always
    grace: 2
"""


def write(folder: Path, text: str) -> Path:
    file = folder / "sidestage-up.yaml"
    file.write_text(text)
    return file


def test_a_good_one(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    found = load(write(tmp_path, GOOD))
    orders, web = found["orders"], found["web"]
    assert orders.command == ("./orders", "--name", "two words", "8080")
    assert (orders.dir, orders.watch, orders.restart) == (str(tmp_path / "sub"), ("**/*.py", "conf/*"), "on-failure")
    assert orders.overrides() == {
        "target.path": "deployment/orders", "feature.env.override": {"A": "1", "B": "3", "C": "4"}, "feature.fs.mode": "local",
        "feature.network.incoming.mode": "mirror", "feature.network.outgoing.tcp": False,
    }  # fmt: skip
    assert (web.command, web.restart, web.grace, web.target) == (("npm", "run", "8080"), "always", 2.0, "targetless")
    assert list(choose(found, [])) == ["orders", "web"]
    assert list(choose(found, ["web"])) == ["web"]
    with pytest.raises(ConfigError, match="no service 'order', did you mean 'orders'"):
        choose(found, ["order"])


def test_the_template_is_a_good_one(tmp_path: Path) -> None:
    assert load(write(tmp_path, TEMPLATE))["orders"].command == ("./orders", "--port", "8080")


@pytest.mark.parametrize("text, said", [
    ("", [": services: there are none; `sidestage up init` writes a file to begin with"]),
    ("service: {}\nservices: {a: {command: x}}", [":1: service: unknown key, did you mean 'services'?"]),
    ("services:\n  a: {}", [":2: services.a: no command"]),
    ("services:\n  a:\n    comand: x", [":3: services.a.comand: unknown key, did you mean 'command'?"]),
    ("services:\n  a:\n    command: 'x'\n    restart: allways",
     [":4: services.a.restart: 'allways' is none of", "did you mean 'always'?"]),
    ("services:\n  a:\n    command: x\n    config:\n      feature:\n        netwerk: 1",
     [":6: services.a.config.feature.netwerk: unknown key, did you mean 'network'?"]),
    ("default:\n  restart: 1\nservices:\n  a: {command: x}", [":2: default.restart: 1 is none of"]),
    ("services:\n  init: {command: x}", [":2: services.init: can't be a service's name"]),
    ("services:\n  a:\n    command: x\n    dir: nowhere", [":4: services.a.dir: nowhere: no such folder"]),
    ("services:\n  a:\n    command: 'x \"'", [":3: services.a.command: No closing quotation"]),
    ("services:\n  a: {command: x, grace: -1}\n  b: {command: y, watch: 7}",
     [":2: services.a.grace: seconds", ":3: services.b.watch: must be a list"]),
    ("services: [", ["while parsing"]), ("services: []", ["must be an object of at least one service"]),
])  # fmt: skip
def test_mistakes(tmp_path: Path, text: str, said: list[str]) -> None:
    file = write(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        load(file)
    for each in said:
        assert each in str(caught.value)
    assert str(file) in str(caught.value)


def test_what_stands_twice_is_said(tmp_path: Path) -> None:
    text = "services:\n  a: {command: x, env: {A: b, A: c}}\n  b: {command: y}\n  a: {command: z}\n"
    with pytest.raises(ConfigError) as caught:
        load(write(tmp_path, text))
    said = str(caught.value)
    assert "sidestage-up.yaml:4: services.a: stands there twice" in said
    assert "services.a.env.A: stands there twice" in said
