"""Contrastive search against transformers' (recorded), and against the paper's formula without a cache."""

from __future__ import annotations

import json

import numpy as np
import pytest
import tensorflow as tf

from tests.conftest import FIXTURES
from tests.generation.models import LANGUAGE_MODELS, TWO_LAYERS, generator, reader
from tfloader.errors import ConfigError
from tfloader.generation import cache, processors
from tfloader.generation.contrastive import ContrastiveSearch
from tfloader.generation.options import GenerationOptions

GOLDENS = json.loads((FIXTURES / "generation" / "strategies.json").read_text())
CASES = [
    pytest.param(name, row["options"], row["sequences"], id=f"{name}-{number}")
    for name, content in GOLDENS.items()
    for number, row in enumerate(content["cases"])
    if "penalty_alpha" in row["options"]
]
SEARCH = {"penalty_alpha": 0.6, "top_k": 4, "eos_token_id": None}


@pytest.mark.parametrize(("name", "options", "expected"), CASES)
def test_sequences_equal_hugging_faces(name, options, expected):
    assert generator(name).generate_ids(GOLDENS[name]["prompts"], **options).sequences == expected


def by_the_papers_formula(read, prompt, alpha, k, count, allowed=None):
    """Su et al., 2022, equation 2, everything read anew for each candidate; (tokens, log-probabilities)."""
    text, scores = list(prompt), []
    for _ in range(count):
        logits = read([text], len(prompt))[0][0, -1]
        log_probabilities = logits - np.logaddexp.reduce(logits)
        if allowed is not None:
            logits = np.where(np.isin(np.arange(len(logits)), allowed), logits, -np.inf)
        shares = np.exp(logits - np.logaddexp.reduce(logits))
        candidates = [token for token in np.argsort(-shares, kind="stable")[:k].tolist() if shares[token] > 0]
        hidden = read([[*text, token] for token in candidates], len(prompt))[1]
        directions = hidden / np.linalg.norm(hidden, axis=-1, keepdims=True)
        likeness = np.einsum("rh,rlh->rl", directions[:, -1], directions[:, :-1]).max(axis=1)
        best = candidates[int(np.argmax((1 - alpha) * shares[candidates] - alpha * likeness))]
        text.append(best)
        scores.append(log_probabilities[best])
    return text[len(prompt) :], scores


@pytest.mark.parametrize(("name", "options"), LANGUAGE_MODELS, ids=[row[0] for row in LANGUAGE_MODELS])
def test_each_row_of_a_ragged_batch_is_what_the_formula_finds_and_what_it_is_alone(name, options):
    options = {**TWO_LAYERS, **options}
    made, read = generator(name, **options), reader(name, **options)
    random = np.random.default_rng(4)
    prompts = [random.integers(1, 90, size).tolist() for size in (1, 6, 3)]
    search = {**SEARCH, "max_new_tokens": 8, "return_scores": True}
    found = made.generate_ids(prompts, **search)
    for row, prompt in enumerate(prompts):
        expected, scores = by_the_papers_formula(read, prompt, 0.6, 4, 8)
        assert found.sequences[row] == expected
        np.testing.assert_allclose(found.token_scores[row], scores, atol=1e-5)
        assert made.generate_ids([prompt], **search).sequences == [expected]


def test_padding_and_room_for_more_are_nothing_that_a_candidate_could_be_like():
    search = ContrastiveSearch(GenerationOptions.of(penalty_alpha=0.5, top_k=2), generator("hf_gpt2").config)
    context = tf.constant([[[1.0, -1.0, 0.0], [0.0, 0.0, 0.0]]])  # directions of padding, text, room
    directions = tf.constant([[[1.0, 0.0], [0.0, 1.0]]])  # the first is like the padding and unlike the text
    prompt = tf.constant([[4, 5]])
    state = search.start(prompt, prompt > 0, 1, tf.zeros([1, 2, 2]))
    state = state._replace(context=context, shares=tf.constant([[0.1, 0.2]]))
    for real, best in (([0, 1, 0], 0), ([1, 1, 0], 1), ([0, 1, 1], 1), ([0, 0, 0], 1)):
        state = state._replace(real=tf.constant([real]) == 1)
        assert search.best(directions, state, 0.5).numpy().tolist() == [best]


def test_a_token_that_is_ruled_out_never_wins_however_unlike_the_text_it_is():
    allowed = [5, 9, 70]
    rules = {"prefix_allowed_tokens_fn": lambda prompt, ids: allowed}
    search = {**SEARCH, "top_k": 8, "penalty_alpha": 1.0, "max_new_tokens": 6}
    found = generator("hf_gpt2").generate_ids([[7, 8], [30]], **search, **rules)
    for prompt, ids in zip([[7, 8], [30]], found.sequences, strict=True):
        assert ids == by_the_papers_formula(reader("hf_gpt2"), prompt, 1.0, 8, 6, allowed)[0]


def test_a_stop_token_in_the_prompt_ends_nothing_and_a_generated_one_its_row():
    made = generator("hf_gpt2")
    search = {**SEARCH, "max_new_tokens": 9}
    whole = made.generate_ids([[5, 6], [9]], **search).sequences
    stop = whole[0][3]
    ended = made.generate_ids([[5, 6], [9, stop]], **{**search, "eos_token_id": stop})
    assert ended.sequences[0] == whole[0][: whole[0].index(stop) + 1]
    assert len(ended.sequences[1]) >= 1


def test_a_buffer_that_has_to_grow_changes_nothing(monkeypatch):
    for name in ("hf_gpt2", "hf_t5_v11"):
        prompts = GOLDENS[name]["prompts"]
        whole = generator(name).generate_ids(prompts, max_new_tokens=14, **SEARCH).sequences
        with monkeypatch.context() as patch:
            patch.setattr(cache, "SLOTS", 4)
            assert generator(name).generate_ids(prompts, max_new_tokens=14, **SEARCH).sequences == whole
    # Another number of candidates is another graph; nothing else is.
    made = generator("hf_gpt2")
    traces = made.decoder.traces
    made.generate_ids([[5] * 9], **{**SEARCH, "penalty_alpha": 0.1}, max_new_tokens=20)
    assert made.decoder.traces == traces


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"penalty_alpha": 0.6}, "penalty_alpha needs top_k"),
        ({"penalty_alpha": 0.6, "top_k": 1}, "at least 2"),
        ({"penalty_alpha": 0.6, "top_k": 4, "do_sample": True}, "contrastive search, which neither do_sample"),
        ({"penalty_alpha": 0.6, "top_k": 4, "num_beams": 2}, "nor num_beams"),
        ({"penalty_alpha": 0.6, "top_k": 4, "num_return_sequences": 2}, "num_return_sequences=2"),
        ({"penalty_alpha": 0.6, "top_k": 4, "top_p": 0.9}, "only sampling uses top_p"),
        ({"penalty_alpha": 0}, "above 0 and at most 1"),
    ],
)
def test_what_contrastive_search_cannot_be_is_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        GenerationOptions.of(**options)


def test_another_number_of_candidates_is_another_graph_and_another_weight_is_not():
    def signature(**options):
        return processors.signature(GenerationOptions.of(**options))

    assert signature(penalty_alpha=0.6, top_k=4) == signature(penalty_alpha=0.2, top_k=4)
    assert signature(penalty_alpha=0.6, top_k=4) != signature(penalty_alpha=0.6, top_k=5) != signature()


def test_more_candidates_than_tokens_are_refused():
    with pytest.raises(ConfigError, match="top_k=298 is more than the vocabulary of 297"):
        generator("hf_gpt2").generate_ids([[5]], penalty_alpha=0.6, top_k=298)
