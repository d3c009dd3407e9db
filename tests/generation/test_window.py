"""Texts that outgrow the positions: equal to reading, at every step, what the rule says is in view."""

from __future__ import annotations

import numpy as np
import pytest

from tests.generation.models import generator, reader
from tfloader.errors import ConfigError
from tfloader.generation import cache
from tfloader.generation.window import Window

POSITIONS = 37  # of hf_gpt2
FREE = {"eos_token_id": None}


def without_cache(name, prompt, keep, count, most=POSITIONS, penalty=1.0):
    """Greedy: the text in view loses all but its last `keep` tokens as soon as it fills all positions."""
    text, start = list(prompt), 0
    for _ in range(count):
        if len(text) - start >= most:
            start = len(text) - keep
        logits = reader(name)([text[start:]], len(text))[0][0, -1]
        for token in set(text):
            logits[token] = logits[token] / penalty if logits[token] > 0 else logits[token] * penalty
        text.append(int(logits.argmax()))
    return text[len(prompt) :]


@pytest.fixture(scope="module")
def prompts():
    random = np.random.default_rng(2)
    return [random.integers(1, 290, size).tolist() for size in (50, 3, 37, 36, 20)]


@pytest.mark.parametrize("keep", [1, 18, 36])
def test_each_row_slides_for_itself_as_without_a_cache(prompts, keep):
    made = generator("hf_gpt2")
    options = {"sliding_context": keep, "max_new_tokens": 45, **FREE}
    found = made.generate_ids(prompts, **options).sequences
    for prompt, ids in zip(prompts, found, strict=True):
        assert ids == without_cache("hf_gpt2", prompt, keep, 45)
    assert made.generate_ids(prompts[1:2], **options).sequences == found[1:2]


def test_small_buffers_slide_alike(prompts, monkeypatch):
    monkeypatch.setattr(cache, "SLOTS", 5)
    found = generator("hf_gpt2").generate_ids(prompts, sliding_context=18, max_new_tokens=45, **FREE)
    assert found.sequences == [without_cache("hf_gpt2", prompt, 18, 45) for prompt in prompts]


def test_what_went_out_of_view_is_still_part_of_the_text_for_the_processors(prompts):
    options = {"sliding_context": 10, "max_new_tokens": 30, "repetition_penalty": 3.0, **FREE}
    found = generator("hf_gpt2").generate_ids(prompts[:2], **options).sequences
    assert found == [without_cache("hf_gpt2", prompt, 10, 30, penalty=3.0) for prompt in prompts[:2]]


def test_a_text_that_fits_does_not_slide(prompts):
    made = generator("hf_gpt2")
    whole = made.generate_ids(prompts[1:2], max_new_tokens=34, **FREE)
    assert made.generate_ids(prompts[1:2], max_new_tokens=34, sliding_context=5, **FREE).sequences == whole.sequences


def test_samples_slide_each_with_its_own_text(prompts):
    made = generator("hf_gpt2")
    options = {"do_sample": True, "seed": 3, "max_new_tokens": 40, "sliding_context": 12, **FREE}
    three = made.generate_ids(prompts[:2], num_return_sequences=3, **options).sequences
    alone = made.generate_ids(prompts[1:2], num_return_sequences=2, **options).sequences
    assert three[3:5] == alone and len(set(map(tuple, three))) == 6
    assert made.generate_ids(prompts[:2], **options).sequences == three[::3]


def test_a_finished_row_stays_as_it_is_while_others_slide(prompts):
    made = generator("hf_gpt2")
    options = {"sliding_context": 18, "max_new_tokens": 45}
    rows = [without_cache("hf_gpt2", prompt, 18, 45) for prompt in prompts]
    stop = rows[1][2]
    found = made.generate_ids(prompts, eos_token_id=stop, **options).sequences
    assert found == [ids[: ids.index(stop) + 1] if stop in ids else ids for ids in rows]
    assert any(stop not in ids for ids in rows)


def test_sliding_compiles_nothing_twice(prompts):
    made = generator("hf_gpt2")
    made.generate_ids(prompts, sliding_context=18, max_new_tokens=45, **FREE)
    traces = made.decoder.traces
    made.generate_ids(prompts[:1], sliding_context=7, max_new_tokens=80, **FREE)
    assert made.decoder.traces == traces


def test_beams_take_the_last_part_of_a_long_prompt_but_cannot_slide_on(prompts):
    made = generator("hf_gpt2")
    options = {"num_beams": 2, "sliding_context": 20, **FREE}
    cut = made.generate_ids([prompts[0][-20:]], num_beams=2, max_new_tokens=5, **FREE)
    assert made.generate_ids(prompts[:1], max_new_tokens=5, **options).sequences == cut.sequences
    with pytest.raises(ConfigError, match=r"longest prompt has 20 tokens; .*ask for at most 17 new tokens\.$"):
        made.generate_ids(prompts[:1], max_new_tokens=18, **options)


def test_a_prompt_that_does_not_fit_says_what_would_help(prompts):
    with pytest.raises(ConfigError, match=r"positions\. Shorten the prompt; sliding_context lets a text go on"):
        generator("hf_gpt2").generate_ids(prompts, max_new_tokens=1)


@pytest.mark.parametrize(
    ("name", "options", "keep", "message"),
    [
        ("hf_gpt2", {}, 37, "the model has 37 positions. Say at most 36"),
        ("hf_t5_v11", {}, 5, "this t5 model has no last position"),
        ("b4k_bert_unilm", {"application": "unilm"}, 5, "this bert model needs its whole source in view"),
    ],
)
def test_what_cannot_slide_is_refused(name, options, keep, message):
    with pytest.raises(ConfigError, match=message):
        generator(name, **options).generate_ids([[5, 6]], sliding_context=keep, max_new_tokens=2)


def test_a_window_shows_the_last_tokens_of_full_rows_and_all_of_the_others():
    tokens = np.arange(12).reshape(2, 6)
    real = np.array([[True] * 6, [False, False, True, True, True, True]])
    shown, seen = Window(positions=6, keep=3).view(tokens, real, real.sum(axis=1))
    assert shown.tolist() == [[2, 3, 4, 5], [8, 9, 10, 11]]
    assert seen.tolist() == [[False, True, True, True], [True] * 4]
