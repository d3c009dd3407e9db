"""`tfloader generate`: which argument is the model, where options come from, and what is printed."""

from __future__ import annotations

import json
import shutil

import pytest

import tfloader
from tests.generation.models import make_chinese_gpt2
from tfloader.assets import boxed
from tfloader.cli import main
from tfloader.generation.text import TextGenerator

BOX = "<the model in the box>"


@pytest.fixture(scope="module")
def stand_in(tmp_path_factory):
    """A folder of models in the box with a tiny one."""
    folder = tmp_path_factory.mktemp("assets")
    (folder / "classical_poems").mkdir()
    make_chinese_gpt2(folder / "classical_poems", eos_token_id=3)
    habits = {"do_sample": True, "top_p": 0.85, "max_new_tokens": 320, "eos_token_id": 3}
    content = json.dumps({**habits, "suppress_tokens": [0, 1, 2, 4]})
    (folder / "classical_poems" / "generation_config.json").write_text(content)
    return folder


@pytest.fixture
def box(stand_in, monkeypatch):
    monkeypatch.setattr(boxed, "FOLDER", str(stand_in))
    return stand_in / "classical_poems"


@pytest.fixture(scope="module")
def plain(stand_in):
    """Its model in a folder without generation_config.json, and its generator."""
    folder = stand_in / "plain"
    shutil.copytree(stand_in / "classical_poems", folder, ignore=lambda *_: ["generation_config.json"])
    return folder, TextGenerator(tfloader.load(folder), tfloader.load_tokenizer(folder))


def test_the_command_prints_prompt_and_continuation_and_streams_the_same(plain, capsys):
    folder, generator = plain
    arguments = ["generate", str(folder), "春江", "--max-new-tokens", "10"]
    assert main(arguments) == 0
    whole = capsys.readouterr().out
    assert whole == "春江" + generator.generate("春江", max_new_tokens=10) + "\n"
    assert main([*arguments, "--stream"]) == 0
    assert capsys.readouterr().out == whole


def test_prompts_come_from_a_file_and_leave_as_json_lines(plain, capsys, tmp_path):
    folder, generator = plain
    (tmp_path / "prompts.txt").write_text("春江\n\n月\n", "utf-8")
    arguments = ["--prompts", str(tmp_path / "prompts.txt"), "--json", "--max-new-tokens", "5", "--batch-size", "1"]
    assert main(["generate", str(folder), *arguments]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert lines == [{"prompt": text, "text": generator.generate(text, max_new_tokens=5)} for text in ("春江", "月")]


def test_only_the_ends_of_lines_part_the_prompts_of_a_file(plain, capsys, tmp_path):
    folder, _ = plain
    prompts = [f"春{mark}江" for mark in "\u2028\u2029\x85\x0b\x0c\x1c\x1d\x1e"]
    (tmp_path / "prompts.txt").write_bytes("\n".join(prompts).encode() + "\r\n月\r\n".encode())
    arguments = ["--prompts", str(tmp_path / "prompts.txt"), "--json", "--max-new-tokens", "1"]
    assert main(["generate", str(folder), *arguments]) == 0
    assert [json.loads(line)["prompt"] for line in capsys.readouterr().out.splitlines()] == [*prompts, "月"]


def test_any_option_of_generation_is_passed_on_and_several_sequences_come_one_a_line(plain, capsys):
    folder, generator = plain
    arguments = ["generate", str(folder), "春", "--option", "num_beams=2", "--option", "num_return_sequences=2"]
    assert main([*arguments, "--max-new-tokens", "4"]) == 0
    expected = generator.generate("春", num_beams=2, num_return_sequences=2, max_new_tokens=4)
    assert capsys.readouterr().out == "".join(f"春{text}\n" for text in expected)


@pytest.mark.parametrize(
    ("arguments", "message", "status"),
    [
        ([BOX], "There is no prompt", 2),
        ([], "There is no prompt", 2),
        (["hello"], "There is no prompt", 2),
        ([BOX, "春", "--option", "num_beam=2"], "did you mean 'num_beams'", 2),
        ([BOX, "春", "--temperature", "0", "--sample"], "temperature must be above 0", 2),
        ([BOX, "春", "--top-p", "1.5", "--sample"], "top_p must be above 0 and at most 1", 2),
        ([BOX, "春江" * 20, "--max-new-tokens", "60"], "exceeds the model's 64 positions", 1),
        (["no/such/模型", "春"], "no/such/模型", 1),
        (["no_such_model", "春"], "no_such_model", 1),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(arguments, message, status, capsys, box):
    assert main(["generate", *(str(box) if item == BOX else item for item in arguments)]) == status
    printed = capsys.readouterr()
    assert printed.err.startswith("tfloader: error:") and message in printed.err and not printed.out


def test_an_interrupt_in_the_middle_of_a_stream_ends_with_status_130(box, monkeypatch, capsys):
    def stream(self, prompt, **options):
        yield "one"
        raise KeyboardInterrupt

    monkeypatch.setattr(TextGenerator, "stream", stream)
    assert main(["generate", "春", "--stream"]) == 130
    assert capsys.readouterr().out == "春one"


# ---- the model in the box


def test_a_prompt_alone_is_continued_by_the_model_in_the_box_with_its_own_habits(box, plain, capsys):
    assert main(["generate", "春江潮水", "--seed", "5"]) == 0
    printed = capsys.readouterr().out
    # 320 new tokens do not fit behind the prompt: as many as do.
    habits = {"do_sample": True, "top_p": 0.85, "max_new_tokens": 60, "suppress_tokens": [0, 1, 2, 4]}
    assert printed == "春江潮水" + plain[1].generate("春江潮水", seed=5, **habits) + "\n"
    assert main(["generate", "春江潮水", "--seed", "6"]) == 0
    assert capsys.readouterr().out != printed


def test_the_command_line_wins_over_the_folders_habits(box, plain, capsys):
    assert main(["generate", "春", "江", "--num-beams", "2", "--max-new-tokens", "5"]) == 0
    beams = {"num_beams": 2, "max_new_tokens": 5, "suppress_tokens": [0, 1, 2, 4]}
    assert capsys.readouterr().out == "".join(f"{text}{plain[1].generate(text, **beams)}\n" for text in "春江")
    assert main(["generate", "春", "--no-defaults", "--max-new-tokens", "5"]) == 0
    assert capsys.readouterr().out == f"春{plain[1].generate('春', max_new_tokens=5)}\n"


def test_each_prompt_has_the_positions_that_are_left_behind_it(box, capsys):
    prompts = ["春", "江潮" * 20, "水"]
    assert main(["generate", *prompts, "--seed", "5"]) == 0
    together = capsys.readouterr().out.splitlines()
    for prompt, line in zip(prompts, together, strict=True):
        assert main(["generate", prompt, "--seed", "5"]) == 0
        assert capsys.readouterr().out.splitlines() == [line]


def test_more_tokens_than_fit_are_an_error_where_they_were_asked_for(box, capsys):
    assert main(["generate", "春江潮水", "--max-new-tokens", "61"]) == 1
    assert "ask for at most 60 new tokens" in capsys.readouterr().err
    assert main(["generate", "春江" * 40]) == 1
    assert "longest prompt has 80 tokens" in capsys.readouterr().err
    assert main(["generate", "春江" * 40, "--option", "sliding_context=20", "--option", "max_new_tokens=70"]) == 0


def test_an_existing_path_is_the_model_whatever_its_name(box, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "春").symlink_to(box, target_is_directory=True)
    assert main(["generate", "春", "江", "--seed", "5", "--max-new-tokens", "3"]) == 0
    assert capsys.readouterr().out.startswith("江")


def test_prompts_of_a_file_alone_go_to_the_model_in_the_box(box, capsys, tmp_path):
    (tmp_path / "prompts.txt").write_text("春\n江\n", "utf-8")
    assert main(["generate", "--prompts", str(tmp_path / "prompts.txt"), "--max-new-tokens", "3", "--stream"]) == 0
    assert [line[0] for line in capsys.readouterr().out.splitlines()] == ["春", "江"]


def test_characters_that_the_model_in_the_box_does_not_know_are_named(box, capsys):
    assert main(["generate", "春A江𠮷", "月"]) == 1
    assert "does not know A 𠮷." in capsys.readouterr().err


def test_without_a_model_in_the_box_the_error_says_so(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(boxed, "FOLDER", str(tmp_path))
    assert main(["generate", "春"]) == 1
    assert "No model 'classical_poems' comes with this tfloader; there is none." in capsys.readouterr().err
