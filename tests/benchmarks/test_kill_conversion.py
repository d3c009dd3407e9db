"""A conversion that is killed: the target is whole or not there."""

from __future__ import annotations

import os

from kill_conversion import kill_again_and_again


def test_killed_at_random_moments_the_target_is_whole_or_not_there(tmp_path):
    """Four times here; fifty times by `python benchmarks/kill_conversion.py`, or with TFLOADER_KILLS=50."""
    kills = int(os.environ.get("TFLOADER_KILLS", "4"))
    found = kill_again_and_again(str(tmp_path), kills, seed=kills)
    assert found["kills"] == kills == found.get("absent", 0) + found.get("whole", 0)
    assert found["source changed"] == found["not whole"] == 0
