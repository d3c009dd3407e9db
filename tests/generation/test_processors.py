"""Processors and filters: Hugging Face's goldens, Hugging Face itself, and brute force."""

from __future__ import annotations

import math

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import CHECKPOINTS
from tfloader import ConfigError
from tfloader.generation import constraints, filters, processors
from tfloader.generation.options import GenerationOptions
from tfloader.generation.processors import Context, GenerationError
from tfloader.generation.trie import Trie

RELEASES = ("hf_gpt2", "hf_t5_v10", "hf_t5_v11")
OPEN = tf.TensorSpec([None, None], tf.float32)

# golden -> the same from (logits, context)
GOLDENS = {
    "temp0p7": lambda x, c: filters.temperature(x, 0.7),
    "topk5": lambda x, c: filters.top_k(x, 5),
    "topk1": lambda x, c: filters.top_k(x, 1),
    "topk50": lambda x, c: filters.top_k(x, 50),
    "topp0p8": lambda x, c: filters.top_p(x, 0.8),
    "topp0p3": lambda x, c: filters.top_p(x, 0.3),
    "topp0p01": lambda x, c: filters.top_p(x, 0.01),
    "temp1p5_topk8_topp0p7": lambda x, c: filters.top_p(filters.top_k(filters.temperature(x, 1.5), 8), 0.7, few=True),
    "reppen1p3": lambda x, c: processors.repetition_penalty(x, c, 1.3),
    "norepeat1": lambda x, c: processors.no_repeat_ngram(x, c, 1),
    "norepeat2": lambda x, c: processors.no_repeat_ngram(x, c, 2),
    "norepeat3": lambda x, c: processors.no_repeat_ngram(x, c, 3),
    "minnew_blocks_eos2": lambda x, c: processors.hide(x, [2], c.generated < 6),
    "minnew_passed": lambda x, c: processors.hide(x, [2], c.generated < 4),
    "minp0p1": lambda x, c: filters.min_p(x, 0.1),
    "typical0p6": lambda x, c: filters.typical(x, 0.6),
}


def context_of(tokens, real=None, generated=0) -> Context:
    tokens = tf.constant(tokens, tf.int32)
    real = tf.ones_like(tokens, tf.bool) if real is None else tf.constant(np.array(real, bool))
    return Context(tokens, real, tf.constant(generated))


def same(found, expected) -> None:
    np.testing.assert_array_equal(np.isneginf(found), np.isneginf(expected))
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)


def random_logits(rng, rows, vocab, kind) -> np.ndarray:
    x = rng.normal(0, rng.choice([0.1, 1, 5]), (rows, vocab)).astype("float32")
    if kind == "ties":
        x = np.round(x)
    elif kind == "half ties":
        x = np.round(x * 4) / 4
    elif kind == "ruled out":
        x[rng.random(x.shape) < 0.5] = -math.inf
        x[:, 0] = 0
    return x


def log_probabilities(x) -> tuple[np.ndarray, np.ndarray]:
    """Those of logits and their entropy, in double precision."""
    log = x.astype("float64") - np.logaddexp.reduce(x.astype("float64"), axis=1, keepdims=True)
    return log, -(np.exp(log) * np.where(np.isfinite(log), log, 0)).sum(1, keepdims=True)


@pytest.mark.parametrize("release", RELEASES)
def test_every_golden_of_single_steps(release):
    goldens = np.load(CHECKPOINTS / release / "decoding.npz")
    logits, context = tf.constant(goldens["proc__logits"]), context_of(goldens["proc__ids"], generated=4)
    names = {name[len("proc__") :] for name in goldens.files if name.startswith("proc__")}
    # min_tokens_to_keep is of beam search with sampling, which is refused.
    assert names - {"logits", "ids", "topp0p3_keep4"} == set(GOLDENS)
    for name, function in GOLDENS.items():
        same(function(logits, context).numpy(), goldens[f"proc__{name}"])


# ---- Hugging Face itself


@pytest.fixture(scope="module")
def hf():
    pytest.importorskip("torch", reason="compares with Hugging Face's own processors, which need torch")
    reason = "compares with Hugging Face's own processors"
    return pytest.importorskip("transformers.generation.logits_process", reason=reason)


def run_hf(processor, ids, logits) -> np.ndarray:
    import torch

    return processor(torch.tensor(ids, dtype=torch.long), torch.tensor(logits)).numpy()


@pytest.mark.parametrize("kind", ["plain", "ties", "half ties", "ruled out"])
def test_filters_equal_hugging_face(hf, kind):
    rng = np.random.default_rng(5)
    ours = {
        name: tf.function(function, input_signature=[OPEN, tf.TensorSpec([], tf.float64)], autograph=False)
        for name, function in {
            "top_p": filters.top_p,
            "few": lambda x, p: filters.top_p(x, p, few=True),
            "min_p": filters.min_p,
            "typical": filters.typical,
        }.items()
    }
    theirs = {"top_p": hf.TopPLogitsWarper, "few": hf.TopPLogitsWarper, "min_p": hf.MinPLogitsWarper}
    theirs["typical"] = hf.TypicalLogitsWarper
    for _ in range(15):
        x = random_logits(rng, int(rng.integers(1, 4)), int(rng.choice([4, 5, 10, 37, 3000])), kind)
        share = float(rng.choice([0.01, 0.1, 0.3, 0.5, 0.8, 0.9, 0.99, rng.uniform(0.01, 0.99)]))
        k = int(rng.integers(1, 12))
        same(filters.top_k(x, k).numpy(), run_hf(hf.TopKLogitsWarper(k), [[0]], x))
        for name, function in ours.items():
            expected = run_hf(theirs[name](share), [[0]], x)
            found = function(x, tf.constant(share, tf.float64)).numpy()
            if name == "typical":
                expected = settled(found, expected, x)
            if name in ("top_p", "few") and "ties" in kind:
                # torch.sort is not stable: which of equal logits it puts first is its own affair.
                found, expected = np.sort(found, axis=1), np.sort(expected, axis=1)
            same(found, expected)


def settled(found, expected, x) -> np.ndarray:
    """What is expected of `typical`, where two tokens are equally far from the entropy up to rounding either one."""
    log, entropy = log_probabilities(x)
    distance = np.abs(-log - entropy)
    border = np.where(np.isfinite(expected), distance, -1).max(1, keepdims=True)
    return np.where(np.abs(distance - border) < 2e-6, found, expected)


def test_of_equal_logits_at_the_border_the_highest_ids_remain():
    x = np.array([[1, 0, 0, 5, 0, 0, 1], [0] * 7], "float32")
    expected = np.array([[0, 0, 0, 1, 0, 0, 1], [0, 0, 0, 0, 1, 1, 1]], bool)
    for few in (False, True):
        np.testing.assert_array_equal(np.isfinite(filters.top_p(x, [[0.95], [0.4]], few=few)), expected)


def test_uniform_logits_at_the_very_border_equal_hugging_face(hf):
    for vocab in range(2, 14):  # where torch.sort happens to be stable
        for part in range(1, vocab):
            x = np.zeros((1, vocab), "float32")
            for p in (part / vocab, round(part / vocab, 2)):
                if 0 < p < 1:
                    same(filters.top_p(x, p).numpy(), run_hf(hf.TopPLogitsWarper(p), [[0]], x))


def test_the_whole_chain_is_in_hugging_faces_order(hf):
    rng = np.random.default_rng(8)
    options = GenerationOptions.of(
        do_sample=True,
        repetition_penalty=1.7,
        no_repeat_ngram_size=2,
        bad_words_ids=[[1, 2], [3], [0, 1, 4], [5, 5]],
        eos_token_id=[6, 7],
        min_new_tokens=4,
        max_new_tokens=9,
        suppress_tokens=[8, 9],
        prefix_allowed_tokens_fn=lambda prompt, ids: range(2, 20),
        logits_processor=lambda logits, context: logits * 0.5,
        temperature=0.6,
        top_k=12,
        top_p=0.9,
        min_p=0.02,
        typical_p=0.95,
    )
    user = type("Half", (hf.LogitsProcessor,), {"__call__": lambda self, ids, scores: scores * 0.5})
    chain = hf.LogitsProcessorList(
        [
            hf.RepetitionPenaltyLogitsProcessor(1.7),
            hf.NoRepeatNGramLogitsProcessor(2),
            hf.NoBadWordsLogitsProcessor([[1, 2], [3], [0, 1, 4], [5, 5]], [6, 7]),
            hf.MinNewTokensLengthLogitsProcessor(5, 4, [6, 7]),
            hf.PrefixConstrainedLogitsProcessor(lambda batch, ids: list(range(2, 20)), 1),
            hf.SuppressTokensLogitsProcessor([8, 9]),
            user(),
            hf.TemperatureLogitsWarper(0.6),
            hf.TopKLogitsWarper(12),
            hf.TopPLogitsWarper(0.9),
            hf.MinPLogitsWarper(0.02),
            hf.TypicalLogitsWarper(0.95),
        ]
    )
    process, numbers = processors.build(options), processors.numbers(options)
    for generated in range(7):
        logits = rng.normal(0, 2, (3, 24)).astype("float32")
        ids = rng.integers(0, 6, (3, 5 + generated))
        found = process(tf.constant(logits), context_of(ids, generated=generated), numbers)
        same(found.numpy(), run_hf(chain, ids, logits))


def test_forced_tokens_equal_hugging_face(hf):
    options = GenerationOptions.of(forced_bos_token_id=3, forced_eos_token_id=[4, 5], max_new_tokens=6)
    chain = hf.LogitsProcessorList([hf.ForcedBOSTokenLogitsProcessor(3), hf.ForcedEOSTokenLogitsProcessor(7, [4, 5])])
    process, numbers = processors.build(options), processors.numbers(options)
    logits = np.random.default_rng(0).normal(size=(2, 9)).astype("float32")
    for generated in range(6):  # after a decoder's start token
        ids = np.ones((2, 1 + generated), int)
        found = process(tf.constant(logits), context_of(ids, generated=generated), numbers)
        same(found.numpy(), run_hf(chain, ids, logits))


# ---- brute force


@st.composite
def contexts(draw):
    """Rows of few different tokens, padded on the left with a token that occurs."""
    rows, length = draw(st.integers(1, 3)), draw(st.integers(1, 9))
    tokens = draw(st.lists(st.lists(st.integers(0, 3), min_size=length, max_size=length), min_size=rows, max_size=rows))
    padding = [draw(st.integers(0, length)) for _ in range(rows)]
    return np.array(tokens), np.array([[at >= n for at in range(length)] for n in padding])


def rows_of(tokens, real) -> list[list[int]]:
    return [row[keep].tolist() for row, keep in zip(tokens, real, strict=True)]


@given(contexts(), st.integers(1, 4))
def test_no_ngram_comes_twice(context, size):
    logits = np.zeros((len(context[0]), 5), "float32")
    for row, ids in enumerate(rows_of(*context)):
        seen = {tuple(ids[at : at + size]) for at in range(len(ids) - size + 1)}
        for token in range(5):
            if len(ids) >= size - 1 and (*ids[len(ids) - size + 1 :], token) in seen:
                logits[row, token] = -math.inf
    same(processors.no_repeat_ngram(tf.zeros(logits.shape), context_of(*context), size).numpy(), logits)


@given(contexts(), st.floats(0.5, 2), st.integers(0, 99))
def test_repetition_is_penalised_once_and_padding_never(context, penalty, seed):
    logits = np.random.default_rng(seed).normal(size=(len(context[0]), 5)).astype("float32")
    expected = logits.copy()
    for row, ids in enumerate(rows_of(*context)):
        for token in set(ids):
            score = logits[row, token]
            expected[row, token] = score * penalty if score < 0 else score / penalty
    same(processors.repetition_penalty(logits, context_of(*context), penalty).numpy(), expected)


@given(contexts(), st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=4), min_size=1, max_size=5))
def test_bad_words_are_never_completed(context, words):
    logits = np.zeros((len(context[0]), 5), "float32")
    for row, ids in enumerate(rows_of(*context)):
        for *begin, last in words:
            if len(ids) >= len(begin) and ids[len(ids) - len(begin) :] == begin:
                logits[row, last] = -math.inf
    array = processors.word_array(tuple(map(tuple, words)))
    same(processors.bad_words(tf.zeros(logits.shape), context_of(*context), array).numpy(), logits)


@given(st.integers(0, 999), st.floats(0.01, 0.99), st.sampled_from(["plain", "ties", "ruled out"]))
def test_top_p_and_typical_equal_a_sort(seed, p, kind):
    x = random_logits(np.random.default_rng(seed), 2, 50, kind)
    log, entropy = log_probabilities(x)
    for function, key in ((filters.top_p, log), (filters.typical, -np.abs(-log - entropy))):
        found = function(x, p).numpy()
        for row in range(2):
            kept, gone = key[row][np.isfinite(found[row])], key[row][np.isneginf(found[row])]
            assert len(kept) and (not len(gone) or kept.min() >= gone.max() - 1e-6)
            mass = np.exp(log[row])
            assert mass[np.isfinite(found[row])].sum() >= p - 1e-5
            over = mass[key[row] > kept.min() + 1e-6].sum()
            assert over < p + 1e-5


# ---- constraints


def allowed_by(phrases, written, stops) -> set[int]:
    fitting = [phrase for phrase in phrases if list(phrase[: len(written)]) == written]
    ends = set(stops) if any(len(phrase) == len(written) for phrase in fitting) else set()
    return ends | {phrase[len(written)] for phrase in fitting if len(phrase) > len(written)}


def allowed_by_graph(options, context, vocab=12) -> list[set[int]]:
    process = processors.build(options)
    found = process(tf.zeros([len(context.tokens), vocab]), context, processors.numbers(options)).numpy()
    return [set(np.flatnonzero(row == 0).tolist()) for row in found]


PHRASE = st.lists(st.integers(0, 3), min_size=1, max_size=4)


@given(
    st.lists(st.lists(PHRASE, min_size=1, max_size=5), min_size=2, max_size=2),
    st.integers(0, 5),
    st.integers(0, 99),
)
def test_a_trie_allows_what_continues_a_phrase(groups, generated, seed):
    rng = np.random.default_rng(seed)
    tokens = rng.integers(0, 4, (4, 3 + generated))  # two prompts, two beams each
    for trie, phrases in ((Trie(groups[0]), [groups[0]] * 2), (Trie.per_prompt(groups), groups)):
        options = GenerationOptions.of(num_beams=2, eos_token_id=[10, 11], prefix_allowed_tokens_fn=trie)
        found = allowed_by_graph(options, context_of(tokens, generated=generated))
        for row, ids in enumerate(tokens.tolist()):
            assert found[row] == allowed_by(phrases[row // 2], ids[3:], [10, 11])


def test_a_trie_of_spans_allows_any_stretch_of_the_prompts_own_source():
    options = GenerationOptions.of(
        eos_token_id=9, prefix_allowed_tokens_fn=Trie.spans([[1, 2, 3, 1, 4], [5, 6]], longest=3)
    )
    assert allowed_by_graph(options, context_of([[0], [0]])) == [{1, 2, 3, 4}, {5, 6}]
    assert allowed_by_graph(options, context_of([[0, 1], [0, 6]], generated=1)) == [{2, 4, 9}, {9}]
    assert allowed_by_graph(options, context_of([[0, 1, 2, 3], [0, 5, 6, 9]], generated=3)) == [{9}, set()]


def test_a_function_gets_the_prompts_number_and_the_ids_without_padding():
    calls = []

    def allowed(prompt, ids):
        calls.append((prompt, ids))
        return [prompt + 1, ids[-1]]

    options = GenerationOptions.of(do_sample=True, num_return_sequences=2, prefix_allowed_tokens_fn=allowed)
    context = context_of([[0, 5], [0, 6], [7, 7], [7, 8]], [[0, 1], [0, 1], [1, 1], [1, 1]])
    assert allowed_by_graph(options, context) == [{1, 5}, {1, 6}, {2, 7}, {2, 8}]
    assert calls == [(0, [5]), (0, [6]), (1, [7, 7]), (1, [7, 8])]


def test_the_constraint_wins_over_what_ruled_out_all_of_it(hf):
    logits = np.random.default_rng(0).normal(size=(4, 6)).astype("float32")
    logits[:2, 1:3] = -math.inf  # both beams of the first prompt
    logits[2, 1:3] = -math.inf  # one beam of the second
    options = GenerationOptions.of(num_beams=2, prefix_allowed_tokens_fn=lambda prompt, ids: [1, 2])
    found = processors.build(options)(tf.constant(logits), context_of([[0]] * 4), processors.numbers(options))
    expected = hf.PrefixConstrainedLogitsProcessor(lambda batch, ids: [1, 2], 2)
    same(found.numpy(), run_hf(expected, [[0]] * 4, logits))


@pytest.mark.parametrize("answer", [lambda: 1 / 0, lambda: [99], lambda: [-1], lambda: None])
def test_what_a_users_function_raises_reaches_the_caller(answer):
    options = GenerationOptions.of(prefix_allowed_tokens_fn=lambda prompt, ids: answer())
    logits = tf.zeros([1, 5])
    found = processors.build(options)(logits, context_of([[0]]), processors.numbers(options))
    code = processors.fault(logits, found, [True])
    with pytest.raises((ZeroDivisionError, ConfigError, TypeError)):
        processors.raise_fault(code, options)
    assert not constraints.FAILURES


# ---- faults


def test_faults_are_found_in_live_rows_only_and_have_a_name():
    fine = tf.constant([[0.0, 1.0, -math.inf], [2.0, -1.0, 3.0]])
    nan = tf.constant([[0.0, 1.0, 1.0], [2.0, math.nan, -math.inf]])
    infinite = tf.constant([[0.0, 1.0, 1.0], [2.0, math.inf, 1.0]])
    empty = tf.constant([[0.0, 1.0, 1.0], [-math.inf] * 3])
    options = GenerationOptions()
    processors.raise_fault(processors.fault(fine, fine, [True, True]), options)
    for before, after, message in (
        (nan, fine, "NaN or infinity: its weights"),
        (infinite, fine, "NaN or infinity: its weights"),
        (fine, nan, "logits_processor"),
        (fine, empty, "no token is allowed"),
    ):
        assert int(processors.fault(before, after, [True, False])) == 0
        with pytest.raises(GenerationError, match=message):
            processors.raise_fault(int(processors.fault(before, after, [True, True])), options)


@pytest.mark.parametrize("value", [math.nan, -math.inf])
def test_hopeless_rows_pass_through_every_processor(value):
    options = GenerationOptions.of(
        do_sample=True, temperature=0.5, top_p=0.9, min_p=0.1, typical_p=0.9, repetition_penalty=1.5
    )
    logits = np.random.default_rng(0).normal(size=(2, 9)).astype("float32")
    alone = processors.build(options)(tf.constant(logits[:1]), context_of([[0]]), processors.numbers(options))
    logits[1] = value
    for chosen in (options, options.replace(top_k=4)):
        numbers = processors.numbers(chosen)
        found = processors.build(chosen)(tf.constant(logits), context_of([[0], [0]]), numbers)
        assert int(processors.fault(logits, found, [False, True])) != 0
        if chosen is options:
            same(found[:1].numpy(), alone.numpy())


# ---- tracing


def test_one_trace_serves_all_sizes_and_numbers():
    def made(change: int) -> GenerationOptions:
        return GenerationOptions.of(
            do_sample=True,
            temperature=0.5 + change,
            top_k=3 + change,
            top_p=0.5 + change / 10,
            repetition_penalty=1.5 + change,
            no_repeat_ngram_size=2,
            min_new_tokens=1 + change,
            eos_token_id=5 - change,
            bad_words_ids=[[1] * (1 + change)] * (1 + change),
            suppress_tokens=list(range(1 + change)),
            prefix_allowed_tokens_fn=lambda prompt, ids: range(change, 8),
        )

    def tries(change: int) -> GenerationOptions:
        return made(change).replace(prefix_allowed_tokens_fn=Trie([[1 + change] * (1 + change), [2], [4, change]]))

    for make in (made, tries):
        first = make(0)
        numbers = {name: tf.constant(value) for name, value in processors.numbers(first).items()}
        specs = {name: tf.TensorSpec([None] * len(value.shape), value.dtype) for name, value in numbers.items()}
        open_context = Context(
            *(tf.TensorSpec([None, None], dtype) for dtype in (tf.int32, tf.bool)), tf.TensorSpec([], tf.int32)
        )
        process = tf.function(processors.build(first), input_signature=[OPEN, open_context, specs], autograph=False)
        for change in range(3):
            options = make(change)
            assert processors.signature(options) == processors.signature(first)
            rng = np.random.default_rng(change)
            logits = rng.normal(size=(1 + change, 8 + change)).astype("float32")
            context = context_of(rng.integers(0, 8, (1 + change, 2 + change)), generated=change)
            numbers = {name: tf.constant(value) for name, value in processors.numbers(options).items()}
            expected = processors.build(options)(tf.constant(logits), context, numbers)
            same(process(tf.constant(logits), context, numbers).numpy(), expected.numpy())
        assert process.experimental_get_tracing_count() == 1


def test_a_signature_tells_apart_what_needs_another_graph():
    variants = [
        {},
        {"repetition_penalty": 1.1},
        {"no_repeat_ngram_size": 2},
        {"no_repeat_ngram_size": 3},
        {"num_beams": 2},
        {"num_beams": 2, "early_stopping": True},
        {"do_sample": True},
        {"do_sample": True, "top_p": 0.5},
        {"do_sample": True, "top_k": 5},
        {"do_sample": True, "top_k": 5000},
        {"eos_token_id": 3},
        {"eos_token_id": [3, 4]},
        {"prefix_allowed_tokens_fn": len},
        {"prefix_allowed_tokens_fn": Trie([[1]])},
        {"logits_processor": len},
        {"logits_processor": max},
    ]
    signatures = [processors.signature(GenerationOptions.of(**options)) for options in variants]
    assert len(set(signatures)) == len(variants)
    assert processors.signature(GenerationOptions.of(return_scores=True)) == signatures[0]
    off = {"do_sample": True, "top_p": 1.0, "min_p": 0.0, "typical_p": 1, "temperature": 1}
    assert processors.active(GenerationOptions.of(**off)) == ()


def test_each_row_of_a_padded_batch_is_the_same_row_alone():
    options = GenerationOptions.of(
        do_sample=True,
        repetition_penalty=1.3,
        no_repeat_ngram_size=2,
        bad_words_ids=[[0, 0], [2, 1]],
        top_p=0.8,
        typical_p=0.9,
    )
    rng = np.random.default_rng(3)
    logits = rng.normal(size=(3, 300)).astype("float32")
    tokens, lengths = rng.integers(0, 3, (3, 8)), (8, 5, 1)
    real = np.array([[at >= 8 - n for at in range(8)] for n in lengths])
    process, numbers = processors.build(options), processors.numbers(options)
    together = process(tf.constant(logits), context_of(np.where(real, tokens, 0), real), numbers).numpy()
    for row, length in enumerate(lengths):
        alone = process(tf.constant(logits[row : row + 1]), context_of(tokens[row : row + 1, 8 - length :]), numbers)
        np.testing.assert_array_equal(together[row], alone.numpy()[0])


def test_a_users_processor_must_keep_the_shape():
    options = GenerationOptions.of(logits_processor=lambda logits, context: logits[:, :2])
    with pytest.raises(tf.errors.InvalidArgumentError, match="must keep the shape"):
        processors.build(options)(tf.zeros([1, 5]), context_of([[0]]), processors.numbers(options))
