"""The verbs that start nothing: what they print, and how they fail. Start-up stays cheap, since `exec` pays it each time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from sidestage.cli.progress import clean


def sidestage(*args: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "sidestage", *args],
        capture_output=True, text=True, timeout=30, check=False, env={**os.environ, **env},
    )  # fmt: skip


@pytest.mark.parametrize(
    "args, code, said",
    [
        (["exce"], 64, "did you mean 'exec'?"),
        (["exec", "-t", "process/1"], 2, "no command"),
        (["exec", "--", "true"], 1, "no target"),
        (["exec", "-t", "pord/x", "--", "true"], 1, "unknown kind of target"),
        (["exec", "-t", "process/4194303", "--", "true"], 1, "4194303"),
        (["exec", "-t", "pod/orders", "--", "true"], 1, "Kubernetes"),
        (["exec", "-t", "process/1", "--steal", "--incoming", "off", "--", "true"], 2, "exclude each other"),
        (["exec", "-t", "process/1", "--no-such-flag", "--", "true"], 2, "--no-such-flag"),
        (["exec", "-t", "process/1", "--", "no-such-command"], 127, "command not found"),
        (["exec", "-t", "process/1", "--", __file__], 126, "not executable"),
        (["exec", "-t", "process/1", "-f", "nowhere.json", "--", "true"], 1, "nowhere.json"),
        (["verify-config"], 2, "FILE"),
        (["doctor", "--outptu"], 2, "--outptu"),
    ],
)
def test_bad_input_is_one_message_with_its_cure(args: list[str], code: int, said: str) -> None:
    done = sidestage(*args)
    assert done.returncode == code
    assert done.stdout == ""
    assert said in done.stderr
    assert done.stderr.startswith("sidestage: ")
    assert "\n  " in done.stderr, "a cure on its own line"
    assert "Traceback" not in done.stderr


def test_verify_config_prints_what_the_file_means(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("feature: {fs: local}\n")
    done = sidestage("verify-config", str(tmp_path / "c.yaml"))
    assert done.returncode == 0
    assert json.loads(done.stdout)["feature"]["fs"]["mode"] == "local"


def test_verify_config_says_all_that_is_wrong(tmp_path: Path) -> None:
    (tmp_path / "c.json").write_text('{"targt": 1, "feature": {"fs": {"mod": 1}}}')
    done = sidestage("verify-config", str(tmp_path / "c.json"))
    assert done.returncode == 1
    assert "targt" in done.stderr
    assert "feature.fs.mod" in done.stderr


def test_version_imports_nothing_heavy() -> None:
    code = "import sys; sys.argv = ['sidestage', '--version']\nfrom sidestage.cli.main import main\n"
    code += "try:\n main()\nexcept SystemExit: pass\nprint(' '.join(sys.modules))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    loaded = set(out.splitlines()[1].split())
    assert not loaded & {"rich", "yaml", "asyncio", "argparse", "ctypes", "sidestage.trap", "sidestage.config"}


def test_remote_text_can_not_steer_the_terminal() -> None:
    assert clean("a\x1b[2Jb\x9bc\x7f\x00\r\tü") == "a?[2Jb?c???\tü"
