"""A conversion or save that is killed: the target is whole or not there, the old save or the new one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the benchmark forks")
@pytest.mark.parametrize("task", ["convert", "save", "save-in-place"])
def test_killed_at_random_moments_nothing_is_there_in_part(task, tmp_path):
    """Four times here; a hundred times by `python benchmarks/kills.py TASK 100`, or with TFLOADER_KILLS=100."""
    kills = os.environ.get("TFLOADER_KILLS", "4")
    command = [sys.executable, str(ROOT / "benchmarks" / "kills.py"), task, kills, kills]
    environment = {**os.environ, "TMPDIR": str(tmp_path), "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    good = {"convert": ("absent", "whole")}.get(task, ("old", "new"))
    assert found["kills"] == int(kills) == sum(found.get(what, 0) for what in good)
    assert found["bad"] == 0 and found["left"] == []
