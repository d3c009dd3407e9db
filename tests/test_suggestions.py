"""Names that may have been meant."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

from tfloader.suggestions import did_you_mean, near


@pytest.mark.parametrize(
    ("name", "names", "found"),
    [
        ("with_poool", ["hidden_act", "with_pool"], ["with_pool"]),
        ("GPT2-124m", ["gpt2-124M", "t5"], ["gpt2-124M"]),
        ("layer", ["layer_0", "layer_1", "layer_2", "layer_3"], 3),
        ("anything", ["xyz"], []),
        ("anything", [], []),
        ("", ["a", ""], []),
    ],
)
def test_near_names_are_those_spelled_alike_whatever_their_case(name, names, found):
    assert near(name, names) == found if isinstance(found, list) else len(near(name, names)) == found


def test_the_phrase_joins_the_names_or_is_empty():
    assert did_you_mean("kernal", ["kernel"]) == "; did you mean 'kernel'?"
    assert did_you_mean("dense_1", ["dense_2", "dense_3", "dense_4"]).count("'") == 6
    assert " or '" in did_you_mean("dense_1", ["dense_2", "dense_3"])
    assert did_you_mean("anything", ["xyz"]) == ""


def test_names_of_a_hostile_file_cost_neither_time_nor_screen():
    start = time.process_time()
    message = did_you_mean("a" * 10**6, (f"{'a' * 10**4}{number}" for number in range(10**5)))
    assert time.process_time() - start < 20 and len(message) < 1000
    assert "\x1b" not in did_you_mean("a\x1b", ["a\x1bb"])


def test_no_framework_is_imported():
    code = "import sys, tfloader.suggestions; assert not {'keras', 'tensorflow', 'numpy'} & sys.modules.keys()"
    subprocess.run([sys.executable, "-c", code], check=True)
