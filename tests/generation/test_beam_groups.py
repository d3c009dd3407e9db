"""Diverse beam search against transformers' (recorded), and against its rules in plain Python without a cache."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tests.conftest import FIXTURES
from tests.generation.models import generator, reader
from tfloader.generation import cache

GOLDENS = json.loads((FIXTURES / "generation" / "strategies.json").read_text())
CASES = [
    pytest.param(name, row["options"], row["sequences"], row["scores"], id=f"{name}-{number}")
    for name, content in GOLDENS.items()
    for number, row in enumerate(content["cases"])
    if "num_beams" in row["options"]
]
PROMPTS = [[5, 6, 7], [9], [30, 31, 32, 33, 34]]
SEARCH = {"num_beams": 6, "num_beam_groups": 3, "diversity_penalty": 0.8, "num_return_sequences": 6}


@pytest.mark.parametrize(("name", "options", "expected", "scores"), CASES)
def test_sequences_and_scores_equal_hugging_faces(name, options, expected, scores):
    found = generator(name).generate_ids(GOLDENS[name]["prompts"], **options)
    assert found.sequences == expected
    np.testing.assert_allclose(found.scores, scores, atol=1e-4)


class Group:
    """One search of a prompt: its running hypotheses, best first, and its finished ones."""

    def __init__(self, beams):
        self.beams, self.running, self.finished, self.open = beams, [(0.0, [])], [], True

    def advance(self, scores_of, penalised, penalty, stops, last, early):
        """Continues, given the tokens that earlier groups chose; returns its own."""
        candidates = []
        for score, ids in self.running:
            scores = scores_of(ids)
            for token in penalised:
                scores[token] -= penalty
            candidates += [(score + value, [*ids, token]) for token, value in enumerate(scores)]
        candidates.sort(key=lambda item: -item[0])
        full = len(self.finished) >= self.beams
        for score, ids in candidates[: self.beams]:
            if (last or ids[-1] in stops) and self.open and not (early and full):
                self.finished.append((score / len(ids), ids))
        self.finished = sorted(self.finished, key=lambda item: -item[0])[: self.beams]
        self.running = [item for item in candidates[: 4 * self.beams] if item[1][-1] not in stops][: self.beams]
        was_open = self.open
        if len(self.finished) == self.beams and self.running:
            best = self.running[0][0] / len(self.running[0][1])
            self.open = self.open and not early and best > self.finished[-1][0]
        return [ids[-1] for _, ids in self.running] if was_open else []


def by_the_rules(name, prompt, stops, length, early=False):
    """Vijayakumar et al., 2018, with the Hamming diversity; (ids, score) of all hypotheses, best first."""
    groups = [Group(SEARCH["num_beams"] // SEARCH["num_beam_groups"]) for _ in range(SEARCH["num_beam_groups"])]

    def scores_of(ids):
        logits = reader(name)([[*prompt, *ids]], len(prompt))[0][0, -1]
        return logits - np.logaddexp.reduce(logits)

    for step in range(length):
        chosen = []
        for group in groups:
            chosen += group.advance(scores_of, chosen, SEARCH["diversity_penalty"], stops, step == length - 1, early)
        if not any(group.open for group in groups):
            break
    found = [item for group in groups for item in group.finished]
    return sorted(found, key=lambda item: -item[0])


@pytest.mark.parametrize("early", [False, True])
def test_each_row_of_a_ragged_batch_is_what_the_rules_find_and_what_it_is_alone(early):
    made = generator("hf_gpt2")
    # Stop tokens that do come, and end some groups before others, which then pay no penalty for them.
    stops = [46, 94, 61]
    options = {**SEARCH, "eos_token_id": stops, "early_stopping": early, "max_new_tokens": 7}
    found = made.generate_ids(PROMPTS, **options)
    lengths = set()
    for row, prompt in enumerate(PROMPTS):
        expected = by_the_rules("hf_gpt2", prompt, stops, 7, early)
        own = slice(6 * row, 6 * row + 6)
        assert found.sequences[own] == [ids for _, ids in expected]
        np.testing.assert_allclose(found.scores[own], [score for score, _ in expected], atol=1e-5)
        lengths |= set(map(len, found.sequences[own]))
        alone = made.generate_ids([prompt], **options)
        assert alone.sequences == found.sequences[own]
        np.testing.assert_allclose(alone.scores, found.scores[own], atol=1e-5)
    assert len(lengths) > 2


def test_fewer_sequences_are_the_best_of_all_groups():
    made = generator("hf_gpt2")
    options = {**SEARCH, "eos_token_id": None, "max_new_tokens": 6}
    every = made.generate_ids(PROMPTS, **options)
    assert (np.diff(every.scores.reshape(3, 6)) <= 0).all()
    two = made.generate_ids(PROMPTS, **{**options, "num_return_sequences": 2})
    assert two.sequences == [every.sequences[at] for at in (0, 1, 6, 7, 12, 13)]


def test_with_a_great_penalty_groups_never_choose_the_same_token_at_the_same_step():
    found = generator("hf_gpt2").generate_ids(
        PROMPTS,
        num_beams=3,
        num_beam_groups=3,
        num_return_sequences=3,
        diversity_penalty=1000.0,
        max_new_tokens=8,
        eos_token_id=0,
    )
    for row in range(3):
        for tokens in zip(*found.sequences[3 * row : 3 * row + 3], strict=False):
            assert len(set(tokens)) == 3


def test_another_penalty_or_prompt_compiles_nothing_and_longer_texts_neither(monkeypatch):
    made = generator("hf_gpt2")
    options = {**SEARCH, "eos_token_id": None, "max_new_tokens": 12}
    whole = made.generate_ids(PROMPTS, **options)
    traces = made.decoder.traces
    made.generate_ids([[7] * 11], **{**options, "diversity_penalty": 0.1, "max_new_tokens": 4})
    monkeypatch.setattr(cache, "SLOTS", 4)
    assert made.generate_ids(PROMPTS, **options).sequences == whole.sequences
    assert made.decoder.traces == traces


def test_a_function_and_processors_see_one_group_at_a_time():
    rows = []

    def allowed(prompt, ids):
        rows.append(prompt)
        return [20 + prompt, 40 + prompt, 60 + prompt]

    found = generator("hf_gpt2").generate_ids(
        PROMPTS, **{**SEARCH, "eos_token_id": None, "max_new_tokens": 3}, prefix_allowed_tokens_fn=allowed
    )
    for row, ids in enumerate(found.sequences):
        assert {token % 20 for token in ids} == {row // 6}
    assert rows[:6] == [0, 0, 1, 1, 2, 2]
