"""From text to text: prompts, stop strings, streaming, scores."""

from __future__ import annotations

import functools
import signal

import pytest

import tfloader
from tests.conftest import CHECKPOINTS
from tests.generation.models import make_chinese_gpt2
from tfloader.errors import ConfigError
from tfloader.generation.text import TextGenerator

GREEDY = {"max_new_tokens": 10, "eos_token_id": None}


@functools.cache
def generator(name, **options):
    folder = CHECKPOINTS / name
    return TextGenerator(tfloader.load(folder, **options), tfloader.load_tokenizer(folder))


MODELS = [("gpt2_openai", {}), ("gpt2_ml", {}), ("b4k_bert_unilm", {"application": "unilm"}), ("hf_t5_v11", {})]
by_model = pytest.mark.parametrize(("name", "options"), MODELS, ids=[row[0] for row in MODELS])
PROMPT = {"gpt2_openai": "the quick", "gpt2_ml": "我要", "b4k_bert_unilm": "我要", "hf_t5_v11": "the quick"}


@by_model
def test_a_list_of_prompts_gives_what_each_gives_alone(name, options):
    made, prompt = generator(name, **options), PROMPT[name]
    alone = made.generate(prompt, **GREEDY)
    assert isinstance(alone, str) and alone
    assert made.generate([prompt, prompt + prompt], **GREEDY)[0] == alone


@by_model
def test_a_stream_is_the_text_in_pieces(name, options):
    made, prompt = generator(name, **options), PROMPT[name]
    pieces = list(made.stream(prompt, **GREEDY))
    assert "".join(pieces) == made.generate(prompt, **GREEDY)
    # A character whose bytes are not complete yet is held back.
    assert not any(piece.endswith("\ufffd") for piece in pieces[:-1])


def test_a_stream_comes_while_it_is_made():
    assert len(list(generator("gpt2_openai").stream("the quick", **GREEDY))) > 1


def test_several_sequences_come_as_a_list_for_each_prompt():
    found = generator("gpt2_openai").generate(["the", "quick"], num_beams=3, num_return_sequences=2, **GREEDY)
    assert [len(texts) for texts in found] == [2, 2]


def test_a_text_ends_with_its_stop_string():
    made = generator("gpt2_openai")
    whole = made.generate("the quick", **GREEDY)
    stop = whole[2:4]
    ended = made.generate("the quick", stop_strings=stop, **GREEDY)
    assert whole.startswith(ended) and ended.count(stop) == 1 and len(ended) < len(whole)
    assert "".join(made.stream("the quick", stop_strings=stop, **GREEDY)) == ended


def test_nothing_more_is_made_once_a_stop_string_is_there(monkeypatch):
    made = generator("gpt2_openai")
    whole = made.generate("the quick", **GREEDY)
    steps = []
    stretches = made.decoder.stretches

    def counted(*arguments):
        for found, finished in stretches(*arguments):
            steps.append(len(found.sequences[0]))
            yield found, finished

    monkeypatch.setattr(made.decoder, "stretches", counted)
    pieces = list(made.stream("the quick", **GREEDY))
    made.generate("the quick", stop_strings="never, never", **GREEDY)
    looks, steps[:] = steps[: len(steps) // 2], []
    # The stop string ends just where the host looks.
    stop = "".join(pieces[:2])[-3:]
    assert whole.index(stop) + 3 == len("".join(pieces[:2]))
    assert "".join(made.stream("the quick", stop_strings=stop, **GREEDY)) == "".join(pieces[:2])
    assert steps == looks[:2]
    steps.clear()
    assert made.generate("the quick", stop_strings=stop, **GREEDY) == "".join(pieces[:2])
    assert steps == looks[:2]


def test_a_stop_string_that_never_comes_changes_nothing():
    made = generator("gpt2_openai")
    assert made.generate("the", stop_strings="never, never", **GREEDY) == made.generate("the", **GREEDY)


def test_the_likelier_text_scores_higher():
    made = generator("gpt2_openai")
    text = "the quick" + made.generate("the quick", **GREEDY)
    scores = made.score([text, text[::-1]])
    assert scores[0] > scores[1]
    assert made.score(text) == pytest.approx(float(scores[0]), abs=1e-4)


def test_a_stream_left_in_the_middle_leaves_the_generator_usable():
    made = generator("gpt2_openai")
    stream = made.stream("the quick", **GREEDY)
    next(stream)
    stream.close()
    assert made.generate("the quick", **GREEDY)


def test_an_interrupt_in_the_middle_of_a_stream_leaves_the_generator_usable():
    made = generator("gpt2_openai")
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where tests run in the background
    try:
        with pytest.raises(KeyboardInterrupt):
            for _ in made.stream("the quick", **GREEDY):
                signal.raise_signal(signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)
    assert "".join(made.stream("the quick", **GREEDY)) == made.generate("the quick", **GREEDY)


def test_streams_side_by_side_do_not_disturb_each_other():
    made = generator("gpt2_openai")
    pieces = zip(made.stream("the quick", **GREEDY), made.stream("quick", **GREEDY), strict=False)
    assert "".join(first for first, _ in pieces) == made.generate("the quick", **GREEDY)


def test_contrastive_search_and_sampling_stream_what_they_generate():
    made = generator("gpt2_openai")
    for options in ({"penalty_alpha": 0.6, "top_k": 4}, {"do_sample": True, "seed": 5}):
        assert "".join(made.stream("the quick", **options, **GREEDY)) == made.generate("the quick", **options, **GREEDY)


def test_an_empty_prompt_is_refused():
    with pytest.raises(ConfigError, match="prompt 1 is empty"):
        generator("gpt2_openai").generate(["the", ""], **GREEDY)


def test_texts_that_cannot_be_scored_are_refused():
    with pytest.raises(ConfigError, match=r"longest text has \d+ tokens, more than the model's"):
        generator("gpt2_openai").score(["the", "the quick " * 300])
    for name, options in MODELS[2:]:
        with pytest.raises(ConfigError, match="T5 and UniLM score targets for sources"):
            generator(name, **options).score("the")


# ---- what stands around a prompt


@pytest.fixture(scope="module")
def chinese(tmp_path_factory):
    """A folder of a GPT-2 with a BERT vocabulary, as those made with UER are."""
    folder = tmp_path_factory.mktemp("chinese")
    return make_chinese_gpt2(folder, eos_token_id=3)


def test_nothing_stands_around_the_prompt_of_a_gpt2_with_word_pieces(chinese):
    tokenizer = tfloader.load_tokenizer(chinese)
    made = TextGenerator(tfloader.load(chinese), tokenizer)
    words = tokenizer.tokens_to_ids("春江潮水")
    assert made.encode(["春江潮水"]) == [words] == [tokenizer.encode("春江潮水")[0]]
    assert made.options({}).eos_token_ids == (3,)
    assert tfloader.load_tokenizer(chinese, family="bert").encode("春")[0] == [2, words[0], 3]
    # Nothing closes a prompt even where the tokenizer is one that would.
    closing = tfloader.Tokenizer(str(chinese / "vocab.txt"), do_lower_case=False)
    assert TextGenerator(tfloader.load(chinese), closing).encode(["春江潮水"]) == [[2, *words]]


def test_a_causal_berts_prompt_is_opened_and_not_closed_and_a_unilms_is_both():
    prompt = PROMPT["b4k_bert_unilm"]
    tokenizer = generator("b4k_bert_unilm", application="unilm").tokenizer
    whole = tokenizer.encode(prompt)[0]
    assert generator("b4k_bert_unilm", application="unilm").encode([prompt]) == [whole]
    assert generator("b4k_bert_lm", application="lm").encode([prompt]) == [whole[:-1]]


def test_the_room_behind_a_prompt(chinese):
    made = TextGenerator(tfloader.load(chinese), tfloader.load_tokenizer(chinese))
    assert made.room("春江潮水") == 60
    assert generator("hf_t5_v11").room("the quick") is None


def test_text_needs_a_tokenizer_and_ids_do_not():
    made = TextGenerator(tfloader.load(CHECKPOINTS / "hf_gpt2"))
    assert made.generate_ids([[5, 6]], max_new_tokens=2, eos_token_id=None).sequences
    with pytest.raises(tfloader.TokenizerError, match="generate_ids"):
        made.generate("the")


def test_streaming_beams_is_refused():
    with pytest.raises(ConfigError, match="must be 1"):
        next(generator("gpt2_openai").stream("the", num_beams=2))
