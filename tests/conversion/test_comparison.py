"""`tfloader verify A B`: equal models in any formats are found equal, and every kind of difference is found."""

from __future__ import annotations

import json

import numpy as np
import pytest

import tfloader
from tests.conftest import CHECKPOINTS
from tests.conversion.conftest import rewrite_json
from tfloader import cli
from tfloader.conversion.comparison import compare, difference_of

QUERY = "bert.encoder.layer.1.attention.self.query.weight"


def outcomes(first, second, **options):
    return {check.name: check for check in compare(str(first), str(second), **options)}


def failed(found):
    return {name: check.detail for name, check in found.items() if check.status == "FAILED"}


# ---- arrays


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        (np.float32([1, 2]), np.float32([1, 2]), (True, 0)),
        (np.float32([1, 2]), np.float32([1, 2.5]), (False, 0.5)),
        (np.float32([1, np.nan]), np.float32([1, np.nan]), (True, 0)),
        (np.float32([1, np.nan]), np.float32([1, 2]), (False, np.inf)),
        (np.float32([np.inf, 1]), np.float32([np.inf, 2]), (False, 1)),
        (np.float32([0.0]), np.float32([-0.0]), (False, 0)),
        (np.float32([1 / 3]), np.float16([1 / 3]), (True, abs(np.float32(1 / 3) - np.float16(1 / 3)))),
        (np.float32([0.5]), np.float16([0.25]), (False, 0.25)),
        (np.float16([1, 0.1]), np.array([1, 0.1], "bfloat16"), (True, 2**-13)),
        (np.float32(3), np.float32(3), (True, 0)),
        (np.zeros((0, 3), "float32"), np.zeros((0, 3), "float32"), (True, 0)),
    ],
    ids=str,
)
def test_the_difference_of_two_arrays(first, second, expected):
    assert difference_of(first, second) == pytest.approx(expected)


def test_a_difference_in_any_block_of_a_large_transposed_array_is_found(monkeypatch):
    from tfloader.conversion import comparison

    monkeypatch.setattr(comparison, "BLOCK", 64)
    first = np.random.default_rng(0).standard_normal((30, 50)).astype("float32").T
    assert difference_of(first, first.copy("C")) == (True, 0)
    for place in ((0, 0), (17, 5), (49, 29)):
        second = first.copy("C")
        second[place] += 0.5
        equal, largest = difference_of(first, second)
        assert not equal and largest == pytest.approx(0.5, rel=1e-5)


# ---- checkpoints


@pytest.mark.parametrize("name", ["hf_bert", "hf_gpt2_h5"])
def test_a_model_is_equal_to_itself_in_the_other_format(name, tmp_path):
    tfloader.convert(CHECKPOINTS / name, tmp_path / "out", "tensorflow", verify=False)
    found = outcomes(CHECKPOINTS / name, tmp_path / "out")
    assert not failed(found)
    assert found["tensors"].detail.endswith("equal bit for bit")
    assert found["outputs"].detail.startswith("largest difference 0 ")


def test_one_changed_value_is_found_in_the_tensors_and_in_the_outputs(changed):
    def change(tensors):
        tensors[QUERY][3, 4] += 0.25

    found = outcomes(CHECKPOINTS / "hf_bert", changed("hf_bert", change))
    problems = failed(found)
    assert set(problems) == {"tensors", "outputs"}
    assert "Transformer-1-MultiHeadSelfAttention/query/kernel differs by up to 0.25" in problems["tensors"]


def test_a_head_that_only_one_has_is_found(changed):
    def change(tensors):
        for name in ("weight", "bias"):
            tensors.pop(f"cls.seq_relationship.{name}")

    problems = failed(outcomes(CHECKPOINTS / "hf_bert", changed("hf_bert", change)))
    assert "NSP-Proba/kernel is only in" in problems["tensors"] and "NSP-Proba/bias is only in" in problems["tensors"]


def test_an_epsilon_and_a_tokenizer_are_compared(copy):
    folder = copy("hf_bert")
    rewrite_json(folder / "config.json", layer_norm_eps=0.01, hidden_dropout_prob=0.3)
    rewrite_json(folder / "tokenizer_config.json", do_lower_case=False)
    lines = (folder / "vocab.txt").read_text("utf-8").splitlines()
    lines[150], lines[151] = lines[151], lines[150]
    (folder / "vocab.txt").write_text("\n".join(lines) + "\n", "utf-8")
    problems = failed(outcomes(CHECKPOINTS / "hf_bert", folder))
    assert "layer_norm_eps: 1e-12 and 0.01" in problems["config"]
    assert f"id 150: {lines[151]!r} and {lines[150]!r}" in problems["tokenizer"]
    assert "becomes" in problems["tokenizer"] and "outputs" in problems and "tensors" not in problems


def test_what_is_no_mathematics_is_told_but_no_failure(copy):
    folder = copy("hf_bert")
    rewrite_json(folder / "config.json", hidden_dropout_prob=0.3)
    found = outcomes(CHECKPOINTS / "hf_bert", folder)
    assert not failed(found)
    assert found["config"].detail == "the same model; only hidden_dropout_prob: 0.1 and 0.3"


def test_a_tokenizer_that_only_one_has_is_a_difference(copy):
    folder = copy("hf_bert")
    (folder / "vocab.txt").unlink()
    assert failed(outcomes(CHECKPOINTS / "hf_bert", folder)) == {"tokenizer": "only the first has one"}


# ---- the commands


def test_the_commands_convert_and_compare(tmp_path, capsys):
    source, target = str(CHECKPOINTS / "gpt2_openai"), str(tmp_path / "out")
    options = ["--to", "huggingface", "--dtype", "bfloat16", "--shard-size", "0.1 MB", "--no-verify"]
    assert cli.main(["convert", source, target, *options]) == 0
    shown = capsys.readouterr().out
    assert "ok       target        Hugging Face GPT-2, 40 tensors, bfloat16" in shown
    assert shown.endswith(f"{target} is written\n")
    assert len(list((tmp_path / "out").glob("model-*.safetensors"))) > 1
    assert cli.main(["verify", source, target]) == 0
    assert "equal but for rounding (float32 and bfloat16)" in capsys.readouterr().out
    assert cli.main(["verify", source, str(CHECKPOINTS / "hf_gpt2"), "--json"]) == 1
    content = json.loads(capsys.readouterr().out)
    assert content["same"] is False
    assert "tensors" in {check["name"] for check in content["checks"] if check["status"] == "FAILED"}


def test_the_convert_command_says_what_is_wrong(tmp_path, capsys):
    source = str(CHECKPOINTS / "gpt2_openai")
    assert cli.main(["convert", source, source]) == 1
    assert "the target is the source" in capsys.readouterr().err
    for wrong in (["--shard-size", "2 elephants"], ["--dtype", "int8"], ["--to", "gguf"]):
        with pytest.raises(SystemExit, match="2"):
            cli.main(["convert", source, str(tmp_path / "out"), *wrong])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("text", "size"),
    {"2GB": 2 * 1000**3, "500 MB": 500 * 1000**2, "1.5kB": 1500, "7B": 7, "1000": 1000}.items(),
)
def test_sizes_are_read_as_people_write_them(text, size):
    assert cli.number_of_bytes(text) == size
