"""From text to text: prompts, stop strings, streaming, scores, and the command line."""

from __future__ import annotations

import functools
import json

import pytest

import tfloader
from tests.conftest import CHECKPOINTS
from tfloader.cli import main
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


def test_text_needs_a_tokenizer_and_ids_do_not():
    made = TextGenerator(tfloader.load(CHECKPOINTS / "hf_gpt2"))
    assert made.generate_ids([[5, 6]], max_new_tokens=2, eos_token_id=None).sequences
    with pytest.raises(tfloader.TokenizerError, match="generate_ids"):
        made.generate("the")


def test_streaming_beams_is_refused():
    with pytest.raises(ConfigError, match="must be 1"):
        next(generator("gpt2_openai").stream("the", num_beams=2))


# ---- tfloader generate


def test_the_command_prints_prompt_and_continuation(capsys):
    assert main(["generate", str(CHECKPOINTS / "gpt2_openai"), "the quick", "--max-new-tokens", "10"]) == 0
    expected = "the quick" + generator("gpt2_openai").generate("the quick", max_new_tokens=10)
    assert capsys.readouterr().out == expected + "\n"


def test_the_command_streams_the_same_text(capsys):
    arguments = ["generate", str(CHECKPOINTS / "gpt2_openai"), "the quick", "--max-new-tokens", "10"]
    main(arguments)
    whole = capsys.readouterr().out
    assert main([*arguments, "--stream"]) == 0
    assert capsys.readouterr().out == whole


def test_the_command_reads_prompts_from_a_file_and_writes_json_lines(capsys, tmp_path):
    (tmp_path / "prompts.txt").write_text("the quick\n\nbrown\n", "utf-8")
    arguments = ["--prompts", str(tmp_path / "prompts.txt"), "--json", "--max-new-tokens", "5", "--batch-size", "1"]
    assert main(["generate", str(CHECKPOINTS / "gpt2_openai"), *arguments]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["prompt"] for line in lines] == ["the quick", "brown"]
    assert lines[0]["text"] == generator("gpt2_openai").generate("the quick", max_new_tokens=5)


def test_the_command_passes_any_option_of_generation_on(capsys):
    arguments = ["generate", str(CHECKPOINTS / "gpt2_openai"), "the", "--option", "num_beams=2", "--option", "seed=3"]
    assert main([*arguments, "--max-new-tokens", "4"]) == 0
    assert main([*arguments, "--option", "num_beam=2"]) == 1
    assert "num_beams" in capsys.readouterr().err


def test_the_command_without_a_prompt_says_so(capsys):
    assert main(["generate", str(CHECKPOINTS / "gpt2_openai")]) == 1
    assert "prompt" in capsys.readouterr().err
