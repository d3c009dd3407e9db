"""What is killed while it writes a folder: the target is whole or not there, the old one or the new one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


NEW, REPLACED = ("absent", "whole"), ("old", "new")
GOOD = {"convert": NEW, "save": REPLACED, "save-in-place": REPLACED, "unpack": NEW, "download": NEW, "backup": REPLACED}
KILLS = os.environ.get("TFLOADER_KILLS", "4")


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What one process, which loads TensorFlow once, reports of each task."""
    command = [sys.executable, str(ROOT / "benchmarks" / "kills.py"), ",".join(GOOD), KILLS, KILLS]
    environment = {**os.environ, "TMPDIR": str(tmp_path_factory.mktemp("kills")), "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return {line["task"]: line for line in map(json.loads, done.stdout.splitlines())}


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="the benchmark forks")
@pytest.mark.parametrize("task", GOOD)
def test_killed_at_random_moments_nothing_is_there_in_part(task, found):
    """Four times here; a hundred times by `python benchmarks/kills.py TASK 100`, or with TFLOADER_KILLS=100."""
    tally = found[task]
    assert tally["kills"] == int(KILLS) == sum(tally.get(what, 0) for what in GOOD[task])
    assert tally["bad"] == 0 and tally["left"] == []
