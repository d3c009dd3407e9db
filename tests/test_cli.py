"""The `tfloader` command: what it shows is true, what it verifies is sound, and every kind of damage is found."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from tfloader import __version__, cli, inspection
from tfloader.errors import CheckpointError

ROOT = Path(__file__).parents[1]
CHECKPOINTS = ROOT / "tests" / "fixtures" / "checkpoints"
NAMES = ("bert_google", "gpt2_openai", "gpt2_ml", "hf_bert", "hf_t5_v11", "t5_mesh_v10")


@pytest.fixture(autouse=True)
def log_level(monkeypatch):
    """The command sets it in its own process, which here is pytest's."""
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "3")


@pytest.fixture
def copy(tmp_path):
    """A copy of a fixture that may be damaged."""
    return lambda name: Path(shutil.copytree(CHECKPOINTS / name, tmp_path / name, copy_function=shutil.copyfile))


def python(*arguments: str) -> subprocess.CompletedProcess:
    environment = {name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"}
    return subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120
    )


def statuses(path) -> dict[str, str]:
    return {check.name: check.status for check in inspection.verify(path)}


def failures(path) -> dict[str, str]:
    """The reason of each failed check."""
    return {check.name: check.detail for check in inspection.verify(path) if check.status == "FAILED"}


def damage(folder: Path, change) -> Path:
    """Passes the tensors of a safetensors folder through a function that changes the dictionary."""
    file = folder / "model.safetensors"
    tensors = load_file(file)
    change(tensors)
    save_file(tensors, file)
    return folder


def rewrite_json(file: Path, **values) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def flip_bit(file: Path, at: int) -> None:
    data = bytearray(file.read_bytes())
    data[at] ^= 1
    file.write_bytes(data)


# ---- starting


def test_help_version_and_import_load_nothing_heavy():
    heavy = "{'numpy', 'tensorflow', 'keras', 'torch', 'tokenizers', 'tfloader.inspection'}"
    code = f"import sys, tfloader.cli as c\ntry: c.main(sys.argv[1:])\nfinally: print({heavy} & set(sys.modules))"
    for option in ("--help", "--version"):
        assert python("-c", code, option).stdout.endswith("set()\n")
    assert python("-c", f"import sys, tfloader; print({heavy} & set(sys.modules))").stdout == "set()\n"


def test_help_tells_every_command_with_an_example(capsys):
    with pytest.raises(SystemExit, match="0"):
        cli.main(["--help"])
    overview = capsys.readouterr().out
    for command in cli.COMMANDS:
        assert command.__name__ in overview
        with pytest.raises(SystemExit, match="0"):
            cli.main([command.__name__, "--help"])
        assert f"Example:\n  tfloader {command.__name__} " in capsys.readouterr().out


def test_version(capsys):
    with pytest.raises(SystemExit, match="0"):
        cli.main(["--version"])
    assert capsys.readouterr().out == f"tfloader {__version__}\n"


@pytest.mark.parametrize(
    "arguments",
    [
        *([], ["info"], ["verify", "a", "b", "c"], ["compare", "a"], ["convert", "a"], ["nonsense"]),
        *(["info", "a", "--nonsense"], ["download", "https://example.org/a.zip", "--sha256", "00"]),
    ],
)
def test_wrong_usage_exits_2(arguments, capsys):
    with pytest.raises(SystemExit, match="2"):
        cli.main(arguments)
    assert "usage: tfloader" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["generate"], "There is no prompt"),
        (["verify", "a", "--keep-tokens", "b"], "--keep-tokens is for two checkpoints"),
        (["info", "a\0b"], "NUL"),
    ],
)
def test_wrong_usage_that_a_command_finds_exits_2_too(arguments, words, capsys):
    assert cli.main(arguments) == 2
    assert words in capsys.readouterr().err


def test_a_command_is_one_function_and_one_line(monkeypatch, capsys):
    def shout(options):
        """Say it loudly."""
        cli.show(options.path.upper())
        return 7

    monkeypatch.setitem(cli.COMMANDS, shout, (cli.PATH, cli.JSON))
    assert cli.main(["shout", "quiet"]) == 7
    assert capsys.readouterr().out == "QUIET\n"


# ---- info


@pytest.mark.parametrize(
    ("name", "lines"),
    {
        "bert_google": ["release: Google BERT (TensorFlow checkpoint)", "hidden_act: gelu_tanh", "pad_token_id: 0",
                        "parts: segments, pooler, nsp, mlm", "size: 280.2 kB", "tokenizer: WordPiece, 211 tokens"],
        "gpt2_openai": ["family: gpt2", "application: lm", "tokenizer: byte-level BPE, 297 tokens"],
        "gpt2_ml": ["family: gpt2_ml", "layer_norm_eps: 1e-05", "tokenizer: WordPiece, 211 tokens"],
        "hf_bert": ["release: Hugging Face BERT", "hidden_act: gelu", "files: model.safetensors, config.json"],
        "hf_t5_v11": ["gated_feed_forward: True", "relative_attention_num_buckets: 32", "model_type: t5"],
        "t5_mesh_v10": ["num_decoder_layers: 3", "tokenizer: SentencePiece, 211 tokens", "parts: encoder, decoder",
                        "not of the model: 118 of the tensors, 6,081 numbers (optimizer slots and the like)"],
    }.items(),
)  # fmt: skip
def test_info_shows_what_a_checkpoint_is(name, lines, capsys):
    assert cli.main(["info", str(CHECKPOINTS / name)]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert len({len(line) - len(line.split(":", 1)[1].lstrip()) for line in shown}) == 1, "the values are aligned"
    assert not set(lines) - {" ".join(line.split()) for line in shown}


@pytest.mark.parametrize("name", [*NAMES, "hf_t5_v10", "hf_bert_h5"])
def test_info_counts_the_parameters_that_the_whole_model_has(name):
    import tfloader

    heads = {"with_nsp": True, "with_mlm": True} if "bert" in name else {}
    found = inspection.info(CHECKPOINTS / name)
    assert found["parameters"] == tfloader.load(CHECKPOINTS / name, **heads).count_params()
    assert found["dtypes"] == {"float32": found["parameters"]}
    assert found["unknown"] == []


def test_info_imports_no_framework():
    paths = [str(CHECKPOINTS / name) for name in (*NAMES, "hf_bert_h5", "hf_bert_sharded")]
    code = (
        "import sys; from tfloader.cli import main\n"
        "for path in sys.argv[1:]: assert main(['info', path]) == 0\n"
        "sys.exit(sorted({'tensorflow', 'keras', 'torch'} & set(sys.modules)) or 0)"
    )
    done = python("-c", code, *paths)
    assert (done.returncode, done.stderr) == (0, "")


def test_info_json_is_one_object_with_the_same_content(capsys):
    path = str(CHECKPOINTS / "t5_mesh_v10")
    assert cli.main(["info", path, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found == inspection.info(path)
    assert found["config"]["hidden_size"] == 48
    assert found["tokenizer"] == {"kind": "SentencePiece", "vocab_size": 211}


def test_info_names_tensors_that_load_would_refuse(copy, capsys):
    folder = damage(copy("hf_bert"), lambda tensors: tensors.update({"classifier.weight": np.ones(2, "float32")}))
    assert cli.main(["info", str(folder)]) == 0
    assert "classifier.weight" in capsys.readouterr().out
    assert inspection.info(folder)["unknown"] == ["classifier.weight"]


def test_info_says_why_there_is_no_tokenizer(copy, capsys):
    folder = copy("bert_google")
    (folder / "vocab.txt").unlink()
    assert cli.main(["info", str(folder)]) == 0
    assert "no tokenizer here" in capsys.readouterr().out


# ---- verify


@pytest.mark.parametrize("name", [*NAMES, "hf_bert_h5", "hf_bert_bin_old", "hf_t5_v10", "mt5_mesh"])
def test_sound_checkpoints_pass_every_check(name):
    assert set(statuses(CHECKPOINTS / name).values()) <= {"ok", "skipped"}
    assert [check for check, status in statuses(CHECKPOINTS / name).items() if status == "skipped"] in (
        [],
        ["tokenizer"],
    )


def test_verify_prints_one_line_a_check_and_exits_0(capsys):
    path = str(CHECKPOINTS / "bert_google")
    assert cli.main(["verify", path]) == 0
    *lines, verdict = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["ok"] * len(inspection.CHECKS)
    assert "with segments, pooler, nsp, mlm" in lines[2]
    assert verdict == f"{path} is sound"


def test_verify_exits_1_and_gives_every_reason(copy, capsys):
    folder = copy("hf_bert")
    with open(folder / "vocab.txt", "a") as file:
        file.write("one\ntwo\n")

    def poison(tensors):
        tensors["bert.pooler.dense.bias"][3] = np.nan

    assert cli.main(["verify", str(damage(folder, poison))]) == 1
    shown = capsys.readouterr().out
    assert "is not sound: data, tokenizer, forward pass" in shown
    assert "'bert.pooler.dense.bias': 1 of 48 values are NaN or infinite" in shown


def test_verify_json(copy, capsys):
    path = str(CHECKPOINTS / "hf_bert")
    assert cli.main(["verify", path, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["sound"] is True
    assert [check["name"] for check in found["checks"]] == [name for name, *_ in inspection.CHECKS]
    broken = damage(copy("hf_bert"), lambda tensors: tensors.pop("bert.pooler.dense.bias"))
    assert cli.main(["verify", str(broken), "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["sound"] is False


@pytest.mark.parametrize(
    "name",
    ["bert.encoder.layer.1.output.dense.bias", "cls.predictions.transform.LayerNorm.weight", "bert.pooler.dense.bias"],
)
def test_a_missing_tensor_is_found_in_the_body_and_in_each_head(name, copy):
    found = failures(damage(copy("hf_bert"), lambda tensors: tensors.pop(name)))
    assert list(found) == ["model"]
    assert name in found["model"]


def test_heads_that_are_absent_as_a_whole_are_no_damage(copy):
    def strip(tensors):
        for name in [name for name in tensors if name.startswith("cls.")]:
            del tensors[name]

    checks = {check.name: check for check in inspection.verify(damage(copy("hf_bert"), strip))}
    assert all(check.status == "ok" for check in checks.values())
    assert "with segments, pooler, each" in checks["model"].detail


def test_an_encoder_published_alone_is_sound_and_called_so(copy):
    def strip(tensors):
        for name in [name for name in tensors if name.startswith(("decoder.", "lm_head."))]:
            del tensors[name]

    checks = {check.name: check for check in inspection.verify(damage(copy("hf_t5_v11"), strip))}
    assert all(check.status == "ok" for check in checks.values())
    assert "with encoder, each" in checks["model"].detail


def test_an_extra_tensor_is_found(copy):
    folder = damage(copy("hf_bert"), lambda tensors: tensors.update({"bert.extra": np.ones(2, "float32")}))
    assert list(failures(folder)) == ["model"]
    assert "bert.extra" in failures(folder)["model"]


def test_a_tensor_of_another_shape_is_found(copy):
    folder = copy("hf_bert")
    rewrite_json(folder / "config.json", max_position_embeddings=36)
    assert list(failures(folder)) == ["model"]
    assert "position_embeddings" in failures(folder)["model"]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_one_value_that_is_not_finite_is_found(value, copy):
    def poison(tensors):
        tensors["cls.seq_relationship.bias"][1] = value

    assert "'cls.seq_relationship.bias': 1 of 2" in failures(damage(copy("hf_bert"), poison))["data"]


def test_a_flipped_bit_in_a_tensorflow_checkpoint_is_found(copy):
    folder = copy("bert_google")
    flip_bit(folder / "bert_model.ckpt.data-00000-of-00001", at=100_000)
    found = {check.name: check for check in inspection.verify(folder)}
    assert found["data"].status == "FAILED"
    assert "checksum" in found["data"].detail
    assert found["forward pass"].status == "skipped", "the model could not be loaded"
    assert found["tokenizer"].status == "ok", "what can be checked still is"


def test_a_flipped_bit_in_a_tensor_that_the_model_does_not_use_is_found(copy):
    folder = copy("t5_mesh_v10")
    data = folder / "model.ckpt-1000000.data-00000-of-00001"
    from tfloader.checkpoints import open_checkpoint

    with open_checkpoint(folder) as checkpoint:
        slot = next(name for name in checkpoint if name.endswith("_slot_vr"))
        at = data.read_bytes().index(checkpoint.read(slot).tobytes())
    flip_bit(data, at)
    assert list(failures(folder)) == ["data"]
    assert slot in failures(folder)["data"]


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("bert_google", "bert_model.ckpt.data-00000-of-00001"),
        ("bert_google", "bert_model.ckpt.index"),
        ("hf_bert", "model.safetensors"),
        ("hf_bert_h5", "tf_model.h5"),
        ("hf_bert_bin_old", "pytorch_model.bin"),
    ],
)
def test_truncated_files_are_found(name, file, copy):
    folder = copy(name)
    os.truncate(folder / file, os.path.getsize(folder / file) - 1000)
    found = statuses(folder)
    assert found["checkpoint"] == "FAILED"
    assert set(found.values()) == {"FAILED", "skipped"}


@pytest.mark.parametrize(("extra", "status"), [(1, "FAILED"), (0, "ok")])
def test_a_tokenizer_must_not_have_more_tokens_than_the_embedding_has_rows(extra, status, copy):
    folder = copy("bert_google")
    with open(folder / "vocab.txt", "a") as file:
        file.write("".join(f"new{i}\n" for i in range(extra)))
    assert statuses(folder)["tokenizer"] == status


def test_more_rows_than_tokens_are_called_padding():
    checks = {check.name: check for check in inspection.verify(CHECKPOINTS / "t5_mesh_v10")}
    assert checks["tokenizer"].status == "ok"
    assert "45 more rows in the embedding (normal padding)" in checks["tokenizer"].detail


def test_a_tokenizer_that_pads_with_another_id_is_found(copy):
    folder = copy("hf_bert")
    rewrite_json(folder / "config.json", pad_token_id=5)
    assert list(failures(folder)) == ["tokenizer"]


def test_a_damaged_tokenizer_is_found_and_an_absent_one_is_not_held_against_the_weights(copy):
    folder = copy("bert_google")
    (folder / "vocab.txt").write_bytes(b"[PAD]\n\xff\xfe\n")
    assert list(failures(folder)) == ["tokenizer"]
    (folder / "vocab.txt").unlink()
    assert statuses(folder)["tokenizer"] == "skipped"
    assert failures(folder) == {}


def test_weights_that_overflow_in_the_forward_pass_are_found(copy):
    def blow_up(tensors):
        tensors["bert.encoder.layer.0.attention.self.query.weight"][:] = 3e38

    assert list(failures(damage(copy("hf_bert"), blow_up))) == ["forward pass"]


def test_a_model_that_differs_from_the_file_is_found(monkeypatch):
    """Not by damage to a file: by a loader that is wrong in the last bit of one vector."""
    from tfloader.models import builder

    honest = builder.load_weights

    def wrong(transformer, *arguments, **options):
        honest(transformer, *arguments, **options)
        bias = transformer.variable("Pooler-Dense/bias")
        bias.assign(np.nextafter(np.asarray(bias), np.float32(1)))

    monkeypatch.setattr(builder, "load_weights", wrong)
    assert list(failures(CHECKPOINTS / "hf_bert")) == ["exactness"]
    assert "Pooler-Dense/bias" in failures(CHECKPOINTS / "hf_bert")["exactness"]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda rows: tuple(row for row in rows if row.part != "nsp"), "NSP-Proba/bias has no tensor"),
        (lambda rows: (*rows, rows[0]), "Embedding-Token/embeddings has two tensors"),
    ],
)
def test_a_variable_without_a_tensor_or_with_two_is_found(change, reason):
    """Which `load` refuses first, so the check is called alone, with a table of names that is wrong."""
    import tfloader

    path = CHECKPOINTS / "hf_bert"
    model = tfloader.load(path, with_nsp=True)
    release = model.transformer.release
    wrong = replace(release, naming=replace(release.naming, rows=change(release.naming.rows)))
    with tfloader.open_checkpoint(path) as checkpoint, pytest.raises(tfloader.WeightsError, match=reason):
        inspection._exact(path, (checkpoint, wrong), model.transformer.config, model)


@pytest.mark.parametrize(
    "path", ["bert_google/bert_model.ckpt", "bert_google/bert_model.ckpt.index", "hf_bert/model.safetensors"]
)
def test_a_checkpoint_may_be_named_by_its_prefix_or_one_of_its_files(path, monkeypatch):
    monkeypatch.chdir(CHECKPOINTS / os.path.dirname(path))
    name = os.path.basename(path)
    assert set(statuses(name).values()) == {"ok"}
    assert inspection.info(name)["tokenizer"]["vocab_size"] == 211


def test_a_config_that_means_another_model_is_found(copy):
    folder = copy("hf_bert")
    rewrite_json(folder / "config.json", position_embedding_type="relative_key")
    assert list(failures(folder)) == ["config"]
    assert statuses(folder)["data"] == "ok", "what can be checked still is"


@pytest.mark.parametrize("command", ["verify", "compare"])
def test_two_checkpoints_are_compared(command, capsys):
    path = str(CHECKPOINTS / "hf_bert")
    assert cli.main([command, path, path]) == 0
    assert "is the same model" in capsys.readouterr().out


def test_tensors_to_be_ignored_are_no_damage(copy, tmp_path, capsys):
    folder = str(damage(copy("hf_bert"), lambda tensors: tensors.update({"classifier.weight": np.ones(2, "float32")})))
    ignore = ["--ignore", "classifier.*"]
    assert cli.main(["verify", folder]) == cli.main(["convert", folder, str(tmp_path / "not")]) == 1
    assert cli.main(["verify", folder, *ignore]) == 0
    assert cli.main(["convert", folder, str(tmp_path / "out"), *ignore]) == 0
    assert cli.main(["compare", folder, str(tmp_path / "out"), *ignore]) == 0


@pytest.mark.parametrize("arguments", [["info", "{path}"], ["verify", "{path}"], ["compare", "{path}", "{path}"]])
def test_another_family_than_the_checkpoint_s_is_refused(arguments, capsys):
    path = str(CHECKPOINTS / "hf_bert")
    assert cli.main([*(argument.format(path=path) for argument in arguments), "--model", "gpt2"]) == 1
    assert "model='gpt2', but the checkpoint is a Hugging Face BERT one" in "".join(capsys.readouterr())


@pytest.mark.parametrize(("name", "release"), [("gpt2-124M", "gpt2-124M"), ("models/t5_1_1_base", "t5.1.1.base")])
def test_a_missing_checkpoint_with_the_name_of_a_public_release_says_how_to_get_it(name, release, capsys):
    assert cli.main(["info", name]) == 1
    assert f"`tfloader download {release}`" in capsys.readouterr().err


def test_nothing_at_the_path_is_not_sound(tmp_path, capsys):
    assert cli.main(["verify", str(tmp_path / "nothing")]) == 1
    assert "no such file" in capsys.readouterr().out


# ---- errors and endings


def test_errors_come_without_a_traceback_unless_asked_for(tmp_path, capsys):
    path = str(tmp_path / "nothing")
    assert cli.main(["info", path]) == 1
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith(f"tfloader: error: {path}: no such file")
    assert "Traceback" not in shown.err
    assert cli.main(["info", path, "--traceback"]) == 1
    assert "Traceback" in capsys.readouterr().err
    assert cli.main(["verify", path, "--traceback"]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_an_interrupt_exits_130_quietly(monkeypatch, capsys):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(inspection, "info", interrupted)
    assert cli.main(["info", "anything"]) == 130
    assert capsys.readouterr() == ("", "")


def test_an_interrupt_ends_verify_at_once(monkeypatch):
    def interrupted(path, *found):
        raise KeyboardInterrupt

    monkeypatch.setattr(inspection, "CHECKS", (("checkpoint", interrupted, ()),))
    assert cli.main(["verify", "anything"]) == 130


def test_a_closed_pipe_ends_quietly():
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "tfloader", "info", str(CHECKPOINTS / "hf_bert")]
    done = subprocess.run(command, cwd=ROOT, stdout=writer, stderr=subprocess.PIPE, text=True, timeout=60)
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, "")


def test_tensorflow_stays_silent_and_the_users_log_level_stands(monkeypatch):
    done = python("-m", "tfloader", "verify", str(CHECKPOINTS / "gpt2_openai"))
    assert (done.returncode, done.stderr) == (0, "")
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "1")
    cli.main(["info", str(CHECKPOINTS / "hf_bert")])
    assert os.environ["TF_CPP_MIN_LOG_LEVEL"] == "1"


def test_an_error_that_is_none_of_ours_comes_without_a_traceback_too(monkeypatch, capsys):
    def broken(*_):
        raise ZeroDivisionError("division by zero")

    monkeypatch.setattr(inspection, "info", broken)
    assert cli.main(["info", "anything"]) == 1
    assert capsys.readouterr().err == "tfloader: error: ZeroDivisionError: division by zero\n"


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_what_an_encoding_lacks_is_escaped(encoding, tmp_path, monkeypatch):
    path = shutil.copytree(CHECKPOINTS / "hf_bert", tmp_path / "\u4e2d", copy_function=shutil.copyfile)
    monkeypatch.setenv("PYTHONIOENCODING", encoding)
    done = python("-m", "tfloader", "info", str(path))
    assert (done.returncode, done.stderr) == (0, "")
    assert "\\u4e2d" in done.stdout


@pytest.mark.parametrize(
    ("redirection", "status", "said"),
    [(">&-", 0, ""), (">&- 2>&-", 0, ""), ("> /dev/full", 1, "tfloader: error: [Errno 28] No space left on device\n")],
)
@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="a full device is a thing of Linux")
def test_an_output_that_is_closed_or_full_gives_no_traceback(redirection, status, said):
    command = f'"{sys.executable}" -m tfloader info "{CHECKPOINTS / "hf_bert"}" {redirection}'
    done = subprocess.run(command, shell=True, cwd=ROOT, stderr=subprocess.PIPE, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (status, said)


def test_names_in_a_file_cannot_steer_the_terminal(monkeypatch, capsys):
    def refuse(*_):
        raise CheckpointError("a tensor called \x1b[31mred\x07\ud800")

    monkeypatch.setattr(inspection, "info", refuse)
    cli.main(["info", "anything"])
    assert capsys.readouterr().err == "tfloader: error: a tensor called \\x1b[31mred\\x07\\ud800\n"
