"""From text to text: prompts, stop strings, streaming, scores."""

from __future__ import annotations

import contextlib
import functools
import math
import signal
from pathlib import Path

import numpy as np
import pytest

import tfloader
from tests.conftest import CHECKPOINTS
from tests.generation.models import make_chinese_gpt2, make_gpt2
from tfloader.errors import ConfigError
from tfloader.generation.kernels import KernelCopies
from tfloader.generation.option_rules import RULES
from tfloader.generation.reading import Prompts
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


@pytest.mark.parametrize("place", ["Prompts.prefill", "Prompts.step", "KernelCopies.__init__", "KernelCopies.refresh"])
def test_an_interrupt_of_the_first_call_leaves_the_generator_usable(place, monkeypatch):
    made = TextGenerator(generator("gpt2_openai").transformer, generator("gpt2_openai").tokenizer)
    kind, name = place.split(".")

    def interrupted(*arguments, **named):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr({"Prompts": Prompts, "KernelCopies": KernelCopies}[kind], name, interrupted)
        made.generate("the quick", **GREEDY)
    assert made.generate("the quick", **GREEDY) == generator("gpt2_openai").generate("the quick", **GREEDY)


def test_streams_side_by_side_do_not_disturb_each_other():
    made = generator("gpt2_openai")
    pieces = zip(made.stream("the quick", **GREEDY), made.stream("quick", **GREEDY), strict=False)
    assert "".join(first for first, _ in pieces) == made.generate("the quick", **GREEDY)


def test_contrastive_search_and_sampling_stream_what_they_generate():
    made = generator("gpt2_openai")
    for options in ({"penalty_alpha": 0.6, "top_k": 4}, {"do_sample": True, "seed": 5}):
        assert "".join(made.stream("the quick", **options, **GREEDY)) == made.generate("the quick", **options, **GREEDY)


def test_an_empty_prompt_is_refused_with_the_token_to_begin_from():
    made = generator("gpt2_openai")
    start = made.tokenizer.bos_token_id
    with pytest.raises(ConfigError, match=rf"prompt 1 is empty; .* generate_ids\(\[\[{start}\]\]\)"):
        made.generate(["the", ""], **GREEDY)
    assert made.generate_ids([[start]], **GREEDY).sequences
    with pytest.raises(ConfigError, match=r"prompt 0 is empty$"):
        TextGenerator(tfloader.load(CHECKPOINTS / "b4k_gpt_segtable")).generate_ids([[]])


ODD = [
    None,
    True,
    -1,
    2**70,
    1.5,
    math.nan,
    "4",
    "",
    "\ud800",
    b"4",
    [],
    [[]],
    ["4"],
    [None],
    {},
    {4},
    object(),
    Path("4"),
]


@pytest.mark.parametrize("name", RULES)
def test_an_option_of_any_type_is_used_or_refused(name):
    made = generator("gpt2_openai")
    for value in (*ODD, np.array([[1.5]]), np.array("4")):
        with contextlib.suppress(ConfigError, tfloader.TokenizerError):
            made.options({name: value})
        with contextlib.suppress(ConfigError):
            made.options({name: value, "num_beams": "2", "top_k": []})


@pytest.mark.parametrize("value", [None, 5, b"the", ["the", 5], [None], [["the"]], object(), [], {}])
def test_prompts_that_are_no_texts_are_refused(value):
    made = generator("gpt2_openai")
    for call in (made.generate, made.score):
        with pytest.raises(ConfigError):
            call(value)
    with pytest.raises(ConfigError):
        next(made.stream(value))


@pytest.mark.parametrize(
    ("ids", "mask"),
    [
        (5, None),
        (None, None),
        ("the", None),
        ([5, 6], None),
        ([["a"]], None),
        ([[1.5]], None),
        ([[[1], [2, 3]]], None),
        ([[True]], None),
        ([[2**70]], None),
        ([[5, 6]], [[1]]),
        ([[5, 6]], [[1, 1], [1, 1]]),
        ([[5], [6, 7]], [[1], [1]]),
        ([[5, 6]], 1),
        ([[5, 6]], [[0, 0]]),
    ],
)
def test_ids_that_are_no_prompts_are_refused(ids, mask):
    with pytest.raises(ConfigError):
        generator("gpt2_openai").generate_ids(ids, mask)


def test_texts_that_cannot_be_scored_are_refused():
    with pytest.raises(ConfigError, match=r"longest text has \d+ tokens, more than the model's"):
        generator("gpt2_openai").score(["the", "the quick " * 300])
    for name, options in MODELS[2:]:
        with pytest.raises(ConfigError, match="T5 and UniLM score targets for sources"):
            generator(name, **options).score("the")


# ---- words, and tokens that are none


@pytest.fixture(scope="module")
def english(tmp_path_factory):
    """A generator whose model has four rows more than its WordPiece vocabulary, and the options that make it write."""
    folder = tmp_path_factory.mktemp("english")
    words = "it ' s don t the cat sat play good day ##ing 春 江"
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words.split()]
    make_gpt2(folder, tokens, vocab_size=len(tokens) + 4)
    made = TextGenerator(tfloader.load(folder), tfloader.load_tokenizer(folder))

    def writing(text):
        ids = [token if isinstance(token, int) else tokens.index(token) for token in text]
        allowed = iter(ids)
        return {
            "prefix_allowed_tokens_fn": lambda prompt, seen: [next(allowed, ids[-1])],
            "max_new_tokens": len(ids),
            "eos_token_id": None,
        }

    return made, writing


@pytest.mark.parametrize(
    ("prompt", "words", "text"),
    [
        ("play", "good day", " good day"),
        ("play", "##ing good", "ing good"),
        ("play ", "good", "good"),
        ("the cat", "it ' s good day the cat", " it's good day the cat"),
        ("it's", "good day", " good day"),
        ("don'", "t sat the", "t sat the"),
        ("春", "江", "江"),
    ],
)
def test_prompt_and_new_text_read_as_one_and_stream_alike(english, prompt, words, text):
    made, writing = english
    assert made.generate(prompt, **writing(words.split())) == text
    assert "".join(made.stream(prompt, **writing(words.split()))) == text


@pytest.mark.parametrize("stop", ["[SEP]", ["[CLS]", "[SEP]"], ["sat", "[SEP]"]])
def test_a_stop_string_that_is_a_token_without_text_ends_there(english, stop):
    made, writing = english
    options = writing(["the", "cat", "[SEP]", "sat", "good"])
    assert made.generate("it", **options) == " the cat sat good"
    options = writing(["the", "cat", "[SEP]", "sat", "good"])
    assert made.generate("it", stop_strings=stop, **options) == " the cat"


@pytest.mark.parametrize("stop", ["\n", "The", "  ", ["cat", "\n"]])
def test_a_stop_string_that_cannot_come_is_refused(english, stop):
    with pytest.raises(ConfigError, match=r"stop_strings .* would stop nothing"):
        english[0].generate("it", stop_strings=stop)


def test_a_row_without_a_token_is_never_chosen(english):
    made, _ = english
    tokens = made.tokenizer.vocab_size
    allowed = {"prefix_allowed_tokens_fn": lambda *_: [tokens - 1, *range(tokens, tokens + 4)], "eos_token_id": None}
    for strategy in ({}, {"do_sample": True, "seed": 1, "temperature": 30.0}, {"num_beams": 2}):
        found = made.generate_ids([[5, 6]] * 8, max_new_tokens=3, **allowed, **strategy)
        assert found.sequences == [[tokens - 1] * 3] * 8
    hot = {"do_sample": True, "seed": [*range(16)], "temperature": 30.0, "max_new_tokens": 20}
    free = TextGenerator(made.transformer).generate_ids([[5]] * 16, **hot)
    assert max(map(max, free.sequences)) >= tokens, "without a tokenizer nothing is known of them"


def test_a_stop_token_outside_the_vocabulary_is_said_with_the_file(english):
    made, _ = english
    odd = TextGenerator(made.transformer, made.tokenizer)
    odd.config = odd.config.replace(eos_token_id=50256)
    with pytest.raises(ConfigError, match=r"config.json has the stop token eos_token_id = 50256"):
        odd.generate("it")
    assert odd.generate("it", eos_token_id=None, max_new_tokens=2)


def test_a_tokenizer_of_another_library_is_refused(english):
    with pytest.raises(tfloader.TokenizerError, match="found a dict"):
        TextGenerator(english[0].transformer, {"it": 5})


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
