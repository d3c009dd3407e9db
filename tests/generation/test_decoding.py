"""The decoding core against Hugging Face's generate() (recorded), and against the model without a cache."""

from __future__ import annotations

import functools
import json

import numpy as np
import pytest

import tfloader
from tests.conftest import CHECKPOINTS
from tests.generation.models import TWO_LAYERS, generator
from tests.releases import case, compiled
from tfloader.errors import ConfigError
from tfloader.generation.text import TextGenerator

GOLDEN = ("hf_gpt2", "hf_t5_v10", "hf_t5_v11")


@functools.cache
def goldens(name):
    folder = CHECKPOINTS / name
    return json.loads((folder / "decoding.json").read_text())["cases"], dict(np.load(folder / "decoding.npz"))


ROWS = [(name, row["name"], row["generate_kwargs"]) for name in GOLDEN for row in goldens(name)[0]]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "row", "options"), ROWS, ids=[f"{name}-{row}" for name, row, _ in ROWS])
def test_sequences_and_scores_equal_hugging_faces(name, row, options):
    arrays = goldens(name)[1]
    prompt = arrays[f"{row}__input_ids"]
    options = {"eos_token_id": None, **options}
    found = generator(name).generate_ids(prompt, arrays[f"{row}__attention_mask"], **options)
    first = prompt.shape[1] if name == "hf_gpt2" else 1
    expected = [until_stop(ids[first:].tolist(), options["eos_token_id"]) for ids in arrays[f"{row}__sequences"]]
    assert found.sequences == expected
    if f"{row}__sequences_scores" in arrays:
        np.testing.assert_allclose(found.scores, arrays[f"{row}__sequences_scores"], atol=2e-4, rtol=1e-5)


def until_stop(ids, eos):
    return ids[: ids.index(eos) + 1] if eos in ids else ids


LANGUAGE_MODELS = [
    ("hf_gpt2", {}),
    ("gpt2_ml", {}),
    ("b4k_gpt2", {}),
    ("hf_openai_gpt", {}),
    ("b4k_gpt_segtable", {}),
    ("b4k_bert_lm", {"application": "lm"}),
    ("b4k_bert_unilm", {"application": "unilm"}),
    ("b4k_simbert", {"application": "unilm"}),
    ("albert_google", {"application": "lm"}),
    ("b4k_albert_unshared", {"application": "unilm", "model": "albert_unshared"}),
    ("hf_electra_gen", {"application": "lm"}),
    ("b4k_nezha_gen", {"num_hidden_layers": 3}),  # of two layers it chooses padding, which a text read whole hides
    ("b4k_nezha", {"application": "lm"}),
    ("b4k_nezha", {"application": "unilm", "relative_attention_max_distance": 3}),
    ("hf_roberta", {"application": "lm"}),
    ("b4k_roformer", {"application": "lm", "model": "roformer"}),
    ("hf_roformer", {"application": "unilm", "num_hidden_layers": 3}),  # likewise
    ("b4k_roformer_v2", {"application": "lm"}),
]


def without_cache(model, prompt, count):
    """Greedy decoding that reads everything anew for each token; also the logits it saw."""
    tokens, seen = np.array([prompt]), []
    for _ in range(count):
        new = np.arange(tokens.shape[1]) >= len(prompt)
        segments = (new[None] & (model.transformer.config.application == "unilm")).astype("int32")
        logits = np.asarray(compiled(model)(*[tokens, segments][: len(model.inputs)]))[0, -1]
        seen.append(logits)
        tokens = np.concatenate([tokens, [[int(logits.argmax())]]], axis=1)
    return tokens[0, len(prompt) :].tolist(), np.stack(seen)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "options"), LANGUAGE_MODELS, ids=[row[0] for row in LANGUAGE_MODELS])
def test_each_row_of_a_ragged_batch_continues_as_alone_and_as_without_a_cache(name, options):
    made = generator(name, **{**TWO_LAYERS, **options})
    model = made.transformer.model
    random = np.random.default_rng(3)
    prompts = [random.integers(2, min(200, made.config.vocab_size), size).tolist() for size in (1, 7, 4)]
    found = made.generate_ids(prompts, max_new_tokens=12, eos_token_id=None, return_scores=True)
    for prompt, ids, scores in zip(prompts, found.sequences, found.token_scores, strict=True):
        expected, logits = without_cache(model, prompt, 12)
        assert ids == expected
        shifted = logits - logits.max(-1, keepdims=True)
        exact = shifted.max(-1) - np.log(np.exp(shifted).sum(-1))
        np.testing.assert_allclose(scores, exact, atol=1e-5)
        alone = made.generate_ids([prompt], max_new_tokens=12, eos_token_id=None)
        assert alone.sequences == [ids]
        np.testing.assert_allclose(alone.scores, [exact.sum()], atol=1e-4)


def test_a_text_longer_than_the_buffer_of_recent_keys_continues_as_without_a_cache(monkeypatch):
    from tfloader.generation import cache

    monkeypatch.setattr(cache, "SLOTS", 4)
    for name in ("hf_gpt2", "gpt2_ml"):
        made = TextGenerator(tfloader.load(CHECKPOINTS / name, **TWO_LAYERS))
        expected, _ = without_cache(made.transformer.model, [3, 7, 9], 30)
        found = made.generate_ids([[3, 7, 9]], max_new_tokens=30, eos_token_id=None)
        assert found.sequences == [expected]
        beams = {"max_new_tokens": 13, "num_beams": 3, "eos_token_id": None}
        monkeypatch.setattr(cache, "SLOTS", 64)
        whole = made.generate_ids([[3, 7, 9]], **beams)
        monkeypatch.setattr(cache, "SLOTS", 4)
        parts = made.generate_ids([[3, 7, 9]], **beams)
        assert parts.sequences == whole.sequences


def test_t5_with_small_buffers_gives_the_same_tokens(monkeypatch):
    from tfloader.generation import cache

    release = case("hf_t5_v11")
    made = TextGenerator(tfloader.load(release.path))
    whole = made.generate_ids(release.arrays["input_ids"], release.arrays["attention_mask"], eos_token_id=None)
    monkeypatch.setattr(cache, "SLOTS", 8)
    parts = TextGenerator(tfloader.load(release.path)).generate_ids(
        release.arrays["input_ids"], release.arrays["attention_mask"], eos_token_id=None
    )
    assert parts.sequences == whole.sequences


STRATEGIES = {
    "greedy": ({}, {}),
    "sampling": (
        {"do_sample": True, "seed": 1, "temperature": 0.7, "top_k": 5},
        {"temperature": 1.3, "top_k": 9, "seed": [3, 4]},
    ),
    "beams": ({"num_beams": 3}, {"length_penalty": 2.0}),
    "groups of beams": (
        {"num_beams": 4, "num_beam_groups": 2, "diversity_penalty": 0.5},
        {"diversity_penalty": 2.0},
    ),
    "contrastive": ({"penalty_alpha": 0.6, "top_k": 4}, {"penalty_alpha": 0.2}),
}


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_second_call_with_other_sizes_and_numbers_compiles_nothing(strategy):
    first, other = STRATEGIES[strategy]
    made = TextGenerator(generator("hf_gpt2").transformer)
    for sizes, options in (([3], first), ([1, 5], {**first, **other}), ([9, 2, 4], first)):
        made.generate_ids([[7] * size for size in sizes], max_new_tokens=2 + sum(sizes), **options)
    assert made.decoder.traces == 2  # the prompt and the loop


@pytest.mark.parametrize("name", ["hf_gpt2", "hf_t5_v11"])
def test_a_prompts_samples_are_the_same_in_any_company(name):
    made = generator(name)
    options = {"do_sample": True, "seed": 1, "max_new_tokens": 8, "eos_token_id": None}
    prompts = [[5, 6], [7, 8, 9, 10], [5], [5, 6]]
    together = made.generate_ids(prompts, **options).sequences
    assert [made.generate_ids([prompt], **options).sequences[0] for prompt in prompts] == together
    assert len(set(map(tuple, together))) == 3 and together[0] == together[3]
    three = made.generate_ids(prompts, num_return_sequences=3, **options).sequences
    assert three[::3] == together and len(set(map(tuple, three))) == 9
    own = made.generate_ids(prompts, **{**options, "seed": [1, 1, 2, 3]}).sequences
    assert own[:2] == together[:2] and own[2] != together[2] and own[3] != together[3]


def test_a_seed_makes_samples_reproducible_and_another_one_changes_them():
    made = generator("hf_gpt2")
    options = {"do_sample": True, "num_return_sequences": 3, "max_new_tokens": 8, "eos_token_id": None}
    first = made.generate_ids([[5, 6]], seed=1, **options).sequences
    assert made.generate_ids([[5, 6]], seed=1, **options).sequences == first
    assert made.generate_ids([[5, 6]], seed=2, **options).sequences != first
    assert made.generate_ids([[5, 6]], **options).sequences != made.generate_ids([[5, 6]], **options).sequences
    assert len({tuple(ids) for ids in first}) == 3


def test_samples_follow_the_models_distribution():
    made = generator("hf_gpt2")
    options = {"do_sample": True, "num_return_sequences": 4000, "max_new_tokens": 1, "eos_token_id": None, "top_k": 4}
    drawn = np.array(made.generate_ids([[5, 6]], seed=5, **options).sequences)[:, 0]
    logits = np.asarray(made.transformer.model(np.array([[5, 6]])))[0, -1]
    best = np.argsort(logits)[-4:]
    expected = np.exp(logits[best] - logits[best].max())
    found = np.array([(drawn == token).mean() for token in best])
    np.testing.assert_allclose(found, expected / expected.sum(), atol=0.03)


def test_scores_of_texts_are_sums_of_log_probabilities():
    made = generator("hf_gpt2")
    rows = [[5, 6, 7, 8], [9, 3]]
    tokens, real = made.aligned(rows, None)
    found = made.decoder.score(tokens, real)
    for row, score in zip(rows, found, strict=True):
        logits = np.asarray(made.transformer.model(np.array([row])))[0].astype("float64")
        exact = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
        expected = sum(exact[place, row[place + 1]] for place in range(len(row) - 1))
        assert abs(score - expected) < 1e-4


BAD = [
    ([[]], {}, "prompt 0 is empty"),
    ([[5], [999]], {}, r"prompt 1 has ids outside 0 to 296"),
    ([], {}, "there is no prompt"),
    ([[5] * 30], {"max_new_tokens": 20}, "exceeds the model's 37 positions"),
    ([[5], [5.5]], {}, "prompt 1 is not a list of token ids"),
    ([[5], [-1]], {}, r"prompt 1 has ids outside 0 to 296"),
    ([[5]], {"num_beams": 400}, "more than the vocabulary"),
    ([[5]], {"temperature": 0.0, "do_sample": True}, "temperature"),
    ([[5]], {"temperature": -1, "do_sample": True}, "temperature"),
    ([[5]], {"top_p": 1.01, "do_sample": True}, "top_p must be above 0 and at most 1"),
    ([[5]], {"top_p": 0, "do_sample": True}, "top_p must be above 0 and at most 1"),
    ([[5]], {"do_sample": True, "seed": [1, 2]}, "seed has 2 numbers, but there are 1 prompts"),
    ([[5]], {"max_new_token": 3}, "max_new_tokens"),
    ([[5]], {"top_p": 0.9}, "do_sample"),
]


@pytest.mark.parametrize(("prompts", "options", "message"), BAD)
def test_what_cannot_be_generated_is_refused_with_the_reason(prompts, options, message):
    with pytest.raises(ConfigError, match=message):
        generator("hf_gpt2").generate_ids(prompts, **options)


@pytest.fixture(scope="module")
def broken():
    model = tfloader.load(CHECKPOINTS / "hf_gpt2")
    model.get_layer("Output-Norm").gamma.assign(np.full(48, np.nan))
    return TextGenerator(model)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_not_a_number_in_the_logits_is_a_named_error_not_a_loop(strategy, broken):
    from tfloader.generation.processors import GenerationError

    with pytest.raises(GenerationError, match="NaN"):
        broken.generate_ids([[5, 6]], max_new_tokens=30, **STRATEGIES[strategy][0])


def test_segments_that_are_speakers_are_refused_as_prompts_have_none():
    with pytest.raises(ConfigError, match="not implemented for a model with shared_segment_embeddings"):
        TextGenerator(tfloader.load(CHECKPOINTS / "b4k_gpt"))
    assert TextGenerator(tfloader.load(CHECKPOINTS / "b4k_gpt", shared_segment_embeddings=False, type_vocab_size=0))


def test_an_encoder_cannot_generate():
    with pytest.raises(ConfigError, match="application='lm' or 'unilm'"):
        TextGenerator(tfloader.load(CHECKPOINTS / "bert_google"))
