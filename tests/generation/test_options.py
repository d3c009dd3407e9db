"""Options: names, values, and what does not go together, all reported at once."""

from __future__ import annotations

import ast
import dataclasses
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tfloader import ConfigError
from tfloader.errors import ArgumentError
from tfloader.generation.option_rules import RULES
from tfloader.generation.options import GenerationOptions
from tfloader.generation.trie import Trie

ROOT = Path(__file__).parents[2]


def test_defaults_are_plain_greedy_search():
    options = GenerationOptions()
    assert options == GenerationOptions.of()
    assert (options.do_sample, options.num_beams, options.max_new_tokens) == (False, 1, 64)
    assert options.eos_token_ids == ()


def test_every_option_has_a_rule():
    assert list(RULES) and set(RULES) == {item.name for item in dataclasses.fields(GenerationOptions)}


def test_every_option_is_documented_with_its_default():
    text = (ROOT / "docs" / "generation.md").read_text("utf-8")
    table = {name: cell.strip(" `") for name, cell in re.findall(r"^\| `(\w+)` \|(.*?)\|", text, re.MULTILINE)}
    written = {name: None if cell in ("", "the model's") else ast.literal_eval(cell) for name, cell in table.items()}
    defaults = {item.name: item.default for item in dataclasses.fields(GenerationOptions)}
    assert written == defaults


def test_lists_arrays_and_single_values_are_kept_as_plain_tuples():
    options = GenerationOptions.of(
        eos_token_id=np.array([3, 4]),
        suppress_tokens=[np.int64(5)],
        bad_words_ids=[[1, 2], (9,)],
        stop_strings="。",
        logits_processor=len,
        max_new_tokens=np.int32(7),
        repetition_penalty=np.float32(1.5),
    )
    assert options.eos_token_ids == (3, 4)
    assert options.suppress_tokens == (5,)
    assert options.bad_words_ids == ((1, 2), (9,))
    assert options.stop_strings == ("。",)
    assert options.logits_processor == (len,)
    assert (type(options.max_new_tokens), type(options.repetition_penalty)) == (int, float)
    assert hash(options) == hash(options.replace())
    assert GenerationOptions.of(eos_token_id=7).eos_token_ids == (7,)
    assert GenerationOptions.of(logits_processor=[], suppress_tokens=[]) == GenerationOptions()


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("topk", "top_k"),
        ("max_length", "max_new_tokens"),
        ("num_beam", "num_beams"),
        ("repetition_penality", "repetition_penalty"),
        ("output_scores", "return_scores"),
    ],
)
def test_an_unknown_name_is_refused_with_the_nearest(name, hint):
    with pytest.raises(ConfigError, match=f"'{name}'; did you mean '?{hint}"):
        GenerationOptions.of(**{name: 1})


@pytest.mark.parametrize(
    ("name", "values"),
    {
        "do_sample": [1, "yes", None],
        "num_beams": [0, -1, 1.0, True, None],
        "num_beam_groups": [0, 1.0],
        "num_return_sequences": [0],
        "max_new_tokens": [0, -5, 2.5, 2**31],
        "min_new_tokens": [-1],
        "temperature": [0, 0.0, -1, 1e-39, 1e39, float("nan"), float("inf"), "1"],
        "top_k": [0, -1, 2.0],
        "top_p": [0, -0.1, 1.1, float("nan")],
        "min_p": [-0.1, 1.5],
        "typical_p": [0, 2],
        "penalty_alpha": [0, -0.1, 1.1],
        "repetition_penalty": [0, -1, 1e-39, 1e39],
        "no_repeat_ngram_size": [-1, 1.5],
        "length_penalty": [None, float("inf")],
        "diversity_penalty": [-0.1, 1e39, float("nan"), None],
        "early_stopping": ["always", 1, None],
        "eos_token_id": [-1, "2", [1, -1], [1.0], True],
        "pad_token_id": [-1, 1.5],
        "suppress_tokens": [3, [-1]],
        "bad_words_ids": [[1, 2], [[]], [[1], []], 3],
        "forced_bos_token_id": [-1, [1]],
        "forced_eos_token_id": [-1, [[1]]],
        "prefix_allowed_tokens_fn": [[1, 2], 3],
        "logits_processor": [3, [len, 3]],
        "stop_strings": ["", ["a", ""], 3],
        "sliding_context": [0, -1, 2.5],
        "seed": [-1, 1.5, 2**31, [1, -1], [1.5], "1"],
        "return_scores": [1],
    }.items(),
)
def test_impossible_values_are_refused_by_name(name, values):
    for value in values:
        with pytest.raises(ConfigError, match=f"- {name} must be"):
            GenerationOptions.of(**{name: value})


def test_temperature_zero_says_what_to_do():
    with pytest.raises(ConfigError, match="do_sample=False"):
        GenerationOptions.of(do_sample=True, temperature=0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": 0.7}, "only sampling uses temperature: add do_sample=True"),
        ({"top_p": 0.9, "min_p": 0.1}, "only sampling uses top_p, min_p"),
        ({"top_k": 5}, "only sampling or contrastive search uses top_k: add do_sample=True or penalty_alpha"),
        ({"length_penalty": -17, "num_beams": 2}, "out of range for float32"),
        ({"length_penalty": 2.0}, "only beam search uses length_penalty: add num_beams"),
        ({"early_stopping": True}, "only beam search uses early_stopping"),
        ({"do_sample": True, "num_beams": 2}, "not implemented"),
        ({"num_beams": 4, "num_beam_groups": 3, "diversity_penalty": 1.0}, "num_beams=4 is not a multiple of"),
        ({"num_beam_groups": 2, "diversity_penalty": 1.0}, "num_beams=1 is not a multiple of num_beam_groups=2"),
        ({"num_beams": 4, "num_beam_groups": 2}, "num_beam_groups needs a diversity_penalty above 0"),
        ({"num_beams": 4, "diversity_penalty": 1.0}, "only diverse beam search uses diversity_penalty"),
        ({"num_beams": 4, "num_beam_groups": 2, "diversity_penalty": 1.0, "do_sample": True}, "not implemented"),
        ({"num_return_sequences": 2}, "more than num_beams=1"),
        ({"num_beams": 2, "num_return_sequences": 3}, "more than num_beams=2"),
        ({"min_new_tokens": 9, "max_new_tokens": 8}, "min_new_tokens=9 is more than max_new_tokens=8"),
        ({"forced_bos_token_id": 5, "suppress_tokens": [5]}, "forced_bos_token_id and suppress_tokens"),
        ({"eos_token_id": 5, "bad_words_ids": [[5]]}, "forbids the stop token"),
    ],
)
def test_options_that_do_not_go_together_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        GenerationOptions.of(**options)
    with pytest.raises(ConfigError, match=message):
        GenerationOptions(**options)


@pytest.mark.parametrize(
    "options",
    [
        {"do_sample": True, "temperature": 0.7, "top_k": 5, "top_p": 1, "min_p": 0, "num_return_sequences": 3},
        {"num_beams": 4, "num_return_sequences": 4, "early_stopping": "never", "length_penalty": -1},
        {"num_beams": 4, "num_return_sequences": 4, "num_beam_groups": 2, "diversity_penalty": 0.5},
        {"penalty_alpha": 0.6, "top_k": 4, "seed": [1, 2], "sliding_context": 30},
        {"temperature": 1, "top_k": None, "length_penalty": 1, "early_stopping": False},
    ],
)
def test_what_goes_together_is_accepted(options):
    assert GenerationOptions.of(**options)


def test_all_problems_come_at_once():
    with pytest.raises(ConfigError) as caught:
        GenerationOptions.of(topp=0.5, temperature=0, top_k=0, seed=-1)
    assert all(name in str(caught.value) for name in ("'topp'", "temperature", "top_k", "seed"))


def test_what_the_vocabulary_decides_is_checked_against_it():
    options = GenerationOptions.of(
        num_beams=30,
        eos_token_id=[3, 20],
        pad_token_id=21,
        suppress_tokens=[22],
        bad_words_ids=[[1, 23]],
        forced_bos_token_id=24,
        forced_eos_token_id=25,
        prefix_allowed_tokens_fn=Trie([[1, 26]]),
    )
    options.check(40)
    with pytest.raises(ConfigError) as caught:
        options.check(20)
    message = str(caught.value)
    assert "num_beams=30" in message and all(f"[{token}]" in message for token in range(20, 27))


def test_a_trie_needs_a_stop_token_and_as_many_groups_as_prompts():
    options = GenerationOptions.of(prefix_allowed_tokens_fn=Trie.per_prompt([[[1]], [[2]]]))
    with pytest.raises(ConfigError, match="needs an eos_token_id"):
        options.check(10)
    options = options.replace(eos_token_id=0)
    options.check(10, prompts=2)
    with pytest.raises(ConfigError, match="for 2 prompts, but there are 3"):
        options.check(10, prompts=3)


def test_seeds_of_their_own_are_as_many_as_prompts():
    options = GenerationOptions.of(do_sample=True, seed=[1, 2])
    options.check(10, prompts=2)
    with pytest.raises(ConfigError, match="seed has 2 numbers, but there are 3 prompts"):
        options.check(10, prompts=3)


@pytest.mark.parametrize("phrases", [[], [[]], [[1], [-1]], [["a"]], [[1.5]], [[[1]]], [[[1], [2, 3]]], [5]])
def test_a_trie_refuses_what_are_no_phrases(phrases):
    with pytest.raises(ConfigError, match="A Trie needs phrases"):
        Trie(phrases)


@pytest.mark.parametrize("phrases", [5, None, "a"])
def test_a_trie_of_nothing_that_has_items_is_refused_as_an_argument(phrases):
    with pytest.raises(ArgumentError, match="phrases: expected Iterable"):
        Trie(phrases)


@pytest.mark.parametrize("longest", [0, "2", 1.5, None])
def test_spans_have_a_length(longest):
    with pytest.raises(ConfigError, match="longest is"):
        Trie.spans([[1, 2]], longest)


def test_options_are_checked_without_tensorflow():
    code = "import sys, tfloader.generation.options; assert 'tensorflow' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
