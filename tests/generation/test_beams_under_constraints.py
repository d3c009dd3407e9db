"""Beam search where fewer hypotheses exist than beams: those that exist are found, and no others."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import tfloader
from tests.generation.models import LANGUAGE_MODELS, generator
from tfloader.errors import GenerationError

END = 1
PROMPTS = [[3, 4], [5, 6, 7]]
PHRASES = {
    "two phrases": [[[5], [6, 7]]] * 2,
    "labels of length 1 and 3": [[[5], [8, 9, 10]]] * 2,
    "one": [[[5, 6]]] * 2,
    "few for one prompt, many for the other": [[[5], [6, 7]], [[i, i + 1] for i in range(10, 20)]],
    "one begins another": [[[5], [5, 6], [5, 6, 7]]] * 2,
}


def log_probability(model, prompt, ids) -> float:
    """Of new tokens, read without a cache."""
    logits = np.asarray(model(np.array([[*prompt, *ids]])), "float64")[0, len(prompt) - 1 : -1]
    scores = logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)
    return float(scores[np.arange(len(ids)), ids].sum())


@pytest.mark.parametrize("beams", [2, 4])
@pytest.mark.parametrize("phrases", PHRASES.values(), ids=PHRASES)
def test_every_phrase_is_found_once_and_nothing_else(phrases, beams):
    made = generator("hf_gpt2")
    trie = tfloader.Trie.per_prompt(phrases)
    search = {"num_beams": beams, "num_return_sequences": beams, "eos_token_id": END, "max_new_tokens": 6}
    found = made.generate_ids(PROMPTS, prefix_allowed_tokens_fn=trie, **search)
    for number, prompt in enumerate(PROMPTS):
        scores = {
            (*ids, END): log_probability(made.transformer.model, prompt, [*ids, END]) / (len(ids) + 1)
            for ids in phrases[number]
        }
        own = [(tuple(ids), score) for ids, score, at in zip(*found[:2], found.prompts, strict=True) if at == number]
        assert len(own) == min(beams, len(scores)) == len({ids for ids, _ in own})
        for ids, score in own:
            assert score == pytest.approx(scores[ids], abs=1e-5)
        if len(scores) <= 2:  # no beam was dropped on the way
            assert [ids for ids, _ in own] == sorted(scores, key=lambda ids: -scores[ids])


@pytest.mark.parametrize(("name", "options"), [LANGUAGE_MODELS[0], ("hf_t5_v11", {})], ids=["hf_gpt2", "hf_t5_v11"])
@pytest.mark.parametrize("groups", [{}, {"num_beam_groups": 2, "diversity_penalty": 0.5}], ids=["one", "groups"])
def test_a_function_is_asked_only_about_texts_that_it_has_allowed(name, options, groups):
    made = generator(name, **options)
    prompts = [[], []] if made.transformer.answers_sources else PROMPTS
    start = 1 if made.transformer.answers_sources else 0
    after = {(): [5, 8], (5,): [END], (8,): [9], (8, 9): [END]}

    def allowed(number, ids):
        new = tuple(ids[start + len(prompts[number]) :])
        return after[new] if new[-1:] != (END,) else [END]

    found = made.generate_ids(
        PROMPTS,
        num_beams=4,
        num_return_sequences=4,
        eos_token_id=END,
        max_new_tokens=6,
        prefix_allowed_tokens_fn=allowed,
        **groups,
    )
    for number in range(len(PROMPTS)):
        own = [tuple(ids) for ids, at in zip(found.sequences, found.prompts, strict=True) if at == number]
        assert set(own) == {(5, END), (8, 9, END)}
    assert np.isfinite(found.scores).all()


def test_a_search_ends_in_the_same_way_alone_and_beside_a_longer_one():
    made = generator("hf_gpt2")
    phrases = [[[5], [6, 7]], [[8, 9, 10, 11, 12], [13, 14]]]
    search = {"num_beams": 4, "eos_token_id": END, "max_new_tokens": 8}
    both = made.generate_ids(PROMPTS, prefix_allowed_tokens_fn=tfloader.Trie.per_prompt(phrases), **search)
    for number, prompt in enumerate(PROMPTS):
        alone = made.generate_ids([prompt], prefix_allowed_tokens_fn=tfloader.Trie(phrases[number]), **search)
        assert both.sequences[number] == alone.sequences[0]


def test_all_that_exists_without_a_stop_token_comes_back_and_no_more():
    made = generator("hf_gpt2")
    vocab = made.config.vocab_size
    two = {"suppress_tokens": [token for token in range(vocab) if token not in (7, 8)], "eos_token_id": None}
    found = made.generate_ids([[5, 6]], num_beams=8, num_return_sequences=8, max_new_tokens=2, **two)
    expected = {
        ids: log_probability(made.transformer.model, [5, 6], ids) / 2 for ids in itertools.product((7, 8), repeat=2)
    }
    assert list(map(tuple, found.sequences)) == sorted(expected, key=lambda ids: -expected[ids])
    np.testing.assert_allclose(found.scores, sorted(expected.values(), reverse=True), atol=1e-5)


def test_texts_are_as_many_as_exist(tmp_path):
    from tests.generation.models import make_chinese_gpt2

    folder = make_chinese_gpt2(tmp_path, eos_token_id=3)
    made = tfloader.TextGenerator(tfloader.load(folder), tfloader.load_tokenizer(folder))
    trie = tfloader.Trie([made.encode([text])[0] for text in ("春江", "月")])
    search = {"num_beams": 4, "num_return_sequences": 4, "prefix_allowed_tokens_fn": trie, "max_new_tokens": 4}
    assert sorted(made.generate("潮", **search)) == ["春江", "月"]
    assert [sorted(texts) for texts in made.generate(["潮", "水"], **search)] == [["春江", "月"]] * 2


def test_a_search_without_any_hypothesis_is_an_error():
    made = generator("hf_gpt2")
    with pytest.raises(GenerationError, match="no token is allowed"):
        made.generate_ids(
            PROMPTS,
            max_new_tokens=6,
            num_beams=3,
            eos_token_id=END,
            prefix_allowed_tokens_fn=lambda number, ids: [] if len(ids) > 3 else [5],
        )
