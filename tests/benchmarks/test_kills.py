"""What is killed while it writes a folder: the old state is there or the new one; the next run leaves nothing else."""

from __future__ import annotations

import os

import pytest
from kills import TASKS, kill_again_and_again

KILLS = int(os.environ.get("TFLOADER_KILLS", "4"))


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="the benchmark forks")
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")  # which only writes and ends
@pytest.mark.parametrize("task", TASKS)
def test_what_is_killed_leaves_all_of_the_old_or_all_of_the_new(task, tmp_path):
    """At two random moments, before and after the rename by which things appear; at more with TFLOADER_KILLS=100."""
    found = kill_again_and_again(task, str(tmp_path.resolve()), KILLS, KILLS)
    assert found["old"] + found["new"] == KILLS and found["killed"] >= KILLS // 2
    assert found["old"] >= 1 and found["new"] >= 1  # before and after the last rename
    assert found["wrong"] == {} and found["left"] == []
