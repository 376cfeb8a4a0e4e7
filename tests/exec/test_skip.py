"""Programs that are let through by name."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from tests.testkit.target import Target


def test_a_build_tool_sees_this_machine(staging: Target, tmp_path: Path) -> None:
    tool = tmp_path / "rustc"
    shutil.copy(shutil.which("cat") or "/bin/cat", tool)
    shell = f"cat /srv/config.txt; {tool} /srv/config.txt"
    plugged = staging.plugged(["sh", "-c", shell])
    assert plugged.out == "remote data\n", plugged.err
    assert not os.path.exists("/srv/config.txt")
    assert "No such file" in plugged.err


def test_names_of_ones_own(staging: Target, tmp_path: Path) -> None:
    config = tmp_path / "c.json"
    config.write_text('{"skip_processes": ["cat"], "skip_build_tools": false}')
    plugged = staging.plugged(["sh", "-c", "cat /srv/config.txt; head -1 /srv/config.txt"], flags=["-f", str(config)])
    assert plugged.out == "remote data\n", plugged.err
