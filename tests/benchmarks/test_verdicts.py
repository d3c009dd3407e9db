"""On damaged checkpoints all commands give one verdict: a sample of benchmarks/verdicts.py."""

from __future__ import annotations

import pytest
from verdicts import KINDS, compared, fixtures

SOME = ("hf_bert", "hf_t5_v11", "albert_google", "hf_roformer")


def test_the_judge_tells_every_command_the_same():
    """Four of each kind and fixture here; all of them by `python benchmarks/verdicts.py`."""
    tally, differing = compared(list(fixtures(SOME)), real=0, per_kind=4, seed=1)
    assert differing == []
    assert sum(tally[kind, "judged"] for kind in KINDS) == 120  # Google's tensors have no second spelling
    assert all(tally[kind, "refused"] for kind in KINDS if kind != "doubled, equal")


@pytest.mark.parametrize("name", ["hf_t5_v11"])
def test_the_commands_do_what_the_judge_says(name):
    tally, differing = compared(list(fixtures([name])), real=1, per_kind=1, seed=2)
    assert differing == []
    assert sum(tally[kind, "run"] for kind in KINDS) == len(KINDS)
