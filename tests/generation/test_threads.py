"""One generator, and one model, for several threads."""

from __future__ import annotations

import random
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import tfloader
from tests.conftest import CHECKPOINTS
from tests.generation.models import generator
from tfloader.generation.text import TextGenerator

# Each compiles a loop of its own.
CALLS = [
    {},
    {"num_beams": 3, "num_return_sequences": 2},
    {"do_sample": True, "seed": 3},
    {"penalty_alpha": 0.6, "top_k": 3},
    {"repetition_penalty": 1.3},
    {"prefix_allowed_tokens_fn": lambda prompt, ids: [20 + len(ids), 40 + prompt]},
]
PROMPTS = [[5, 6, 7], [9]]


@pytest.fixture
def eight():
    """Eight threads that change places often, also while one of them traces."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    with ThreadPoolExecutor(8) as pool:
        yield pool
    sys.setswitchinterval(before)


def test_a_generator_gives_eight_threads_what_it_gives_to_single_calls(eight):
    shared, alone = (TextGenerator(generator("hf_gpt2").transformer) for _ in range(2))

    def call(made, number):
        return made.generate_ids(
            PROMPTS, max_new_tokens=4 + number % 3, eos_token_id=None, **CALLS[number % len(CALLS)]
        )

    numbers = [*range(len(CALLS)), *range(len(CALLS))]
    random.Random(0).shuffle(numbers)
    found = list(eight.map(lambda number: call(shared, number), numbers))
    assert shared.decoder.traces == 1 + len(CALLS)
    for number, result in zip(numbers, found, strict=True):
        expected = call(alone, number)
        assert result.sequences == expected.sequences
        np.testing.assert_allclose(result.scores, expected.scores, atol=1e-5)


def test_threads_load_and_predict(eight):
    ids = np.array([[5, 6, 7], [9, 8, 7]])
    shared = generator("hf_gpt2").transformer.model
    models = [*eight.map(lambda _: tfloader.load(CHECKPOINTS / "hf_gpt2"), range(2)), shared, shared]
    expected = shared(ids)
    for found in eight.map(lambda model: model.predict(ids, verbose=0), models):
        np.testing.assert_allclose(found, expected, atol=1e-5)
