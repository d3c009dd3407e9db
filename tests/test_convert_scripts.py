"""The scripts in convert/: their facts are those of the catalogue, and one command gives a converted model."""

from __future__ import annotations

import ast
import dataclasses
import hashlib
import importlib.util
import json
import os
from pathlib import Path

import numpy as np
import pytest

import tfloader
from tests.conftest import CHECKPOINTS
from tests.downloads.conftest import environment, file, json_page, site  # noqa: F401 (fixtures)
from tfloader.downloads import CATALOGUE
from tfloader.downloads.catalogue import Publication, Written
from tfloader.downloads.downloading import RECORD
from tfloader.downloads.transfer import RemoteFile

SCRIPTS = sorted((Path(__file__).parents[1] / "convert").glob("*.py"))
each_script = pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)


def about(script: Path) -> str:
    return ast.get_docstring(ast.parse(script.read_text("utf-8"))) or ""


def rows(script: Path) -> dict[str, Publication]:
    return {name: row for name, row in CATALOGUE.items() if row.group == script.stem}


def run(script: Path, *arguments: str) -> int:
    """What `python convert/script.py ...` does."""
    spec = importlib.util.spec_from_file_location(script.stem, script)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main(script.stem, module.__doc__, arguments)


def test_every_release_has_a_script():
    assert {row.group for row in CATALOGUE.values()} == {script.stem for script in SCRIPTS}


@each_script
def test_help_says_where_a_release_is_published_and_under_which_terms(script, capsys):
    with pytest.raises(SystemExit, match="0"):
        run(script, "--help")
    assert about(script) in capsys.readouterr().out


@each_script
def test_the_facts_of_a_script_are_those_of_the_catalogue(script):
    text = about(script)
    facts = set()
    for name, row in rows(script).items():
        facts |= {name, row.home, f"{row.licence}\n", f"{row.config}\n", f"{row.vocabulary}\n"}
        for part in row.parts:
            if isinstance(part, str):
                facts.add(f"{part}\n")
            elif isinstance(part, Written):
                facts.add(f"{part.path}: written by the script\n")
            else:
                facts |= {f"{part.path}: {part.url or part.page}\n", part.page, f"{part.checksum or ''}\n"}
    assert not [fact for fact in facts if fact not in text]
    known = "\n".join(facts)
    links = [word for word in text.split() if word.startswith(("https://", "gs://", "hf:", "sha256:"))]
    assert not [link for link in links if link not in known], "a fact that the catalogue does not have"
    assert "Checksums:" in text or all("sha256:" in str(row.parts) for row in rows(script).values())


@each_script
def test_a_script_is_short_and_has_no_code_of_its_own(script):
    code = [node for node in ast.parse(script.read_text("utf-8")).body if not isinstance(node, ast.Expr)]
    assert [type(node) for node in code] == [ast.ImportFrom, ast.If]
    (call,) = [node for node in ast.walk(code[1]) if isinstance(node, ast.Call) and node.args[1:]]
    assert call.args[0].value == script.stem


@each_script
def test_the_one_command_is_understood(script, monkeypatch):
    calls = []
    monkeypatch.setattr("tfloader.cli.main", lambda arguments: calls.append(arguments) or 0)
    (command,) = [line.split() for line in about(script).splitlines() if line.startswith("    python ")]
    assert command[1] == f"convert/{script.name}"
    assert run(script, *command[2:]) == 0
    assert [call[0] for call in calls] in (["download", "convert"], ["download", "download", "convert"])
    assert calls[-1][1:3] == [command[2], command[3]]
    assert all(call[1] in CATALOGUE for call in calls[:-1])


def script(name: str) -> Path:
    return next(item for item in SCRIPTS if item.stem == name)


def publish(site, source: str, names, monkeypatch, row: str) -> None:  # noqa: F811
    """Puts a fixture in the place of a release, at addresses of the local server."""
    parts = []
    for name in names:
        data = (CHECKPOINTS / source / name).read_bytes()
        site.pages[f"/{name}"] = file(data)
        parts.append(RemoteFile(f"{site.address}/{name}", name, None, f"sha256:{hashlib.sha256(data).hexdigest()}"))
    monkeypatch.setitem(CATALOGUE, row, Publication(CATALOGUE[row].group, "", "", "", "", tuple(parts)))


def test_one_command_downloads_converts_and_verifies(site, tmp_path, monkeypatch, capsys):  # noqa: F811
    monkeypatch.chdir(tmp_path)
    names = ("hparams.json", "encoder.json", "vocab.bpe", "model.ckpt.index", "model.ckpt.data-00000-of-00001")
    publish(site, "gpt2_openai", names, monkeypatch, "gpt2-124M")
    assert run(script("gpt2"), "gpt2-124M", "converted", "--dtype", "float32") == 0
    assert sorted(os.listdir()) == ["converted", "gpt2-124M"]
    assert {*names, RECORD} == set(os.listdir("gpt2-124M"))
    tokens = np.array([[5, 6, 7]])
    np.testing.assert_array_equal(
        tfloader.load("converted")(tokens), tfloader.load(CHECKPOINTS / "gpt2_openai")(tokens)
    )
    assert "converted" in capsys.readouterr().out
    site.requests.clear()
    assert run(script("gpt2"), "gpt2-124M", "again", "--offline", "--to", "tensorflow") == 0
    assert site.requests == []


def test_mt5_is_cut_to_the_tokens_of_the_other_vocabulary(site, tmp_path, monkeypatch):  # noqa: F811
    """As bert4keras does it: ids to keep, and a smaller model of SentencePiece that goes with them."""
    monkeypatch.chdir(tmp_path)
    fixture = CHECKPOINTS / "mt5_mesh"
    names = [path.name for path in fixture.iterdir() if path.name.startswith("model.ckpt") or path.suffix == ".gin"]
    publish(site, "mt5_mesh", names, monkeypatch, "mt5-small")
    whole = tfloader.load(fixture)
    keep = [0, 1, 2, *range(10, whole.transformer.config.vocab_size - 3)]
    site.pages["/keep"] = file(json.dumps(keep).encode())
    pieces = (CHECKPOINTS / "t5_mesh_v10" / "spiece.model").read_bytes()
    site.pages["/pieces"] = file(pieces)
    parts = (
        RemoteFile(f"{site.address}/pieces", "sentencepiece_cn.model"),
        RemoteFile(f"{site.address}/keep", "sentencepiece_cn_keep_tokens.json"),
    )
    vocabulary = dataclasses.replace(CATALOGUE["mt5-chinese-vocabulary"], parts=parts)
    monkeypatch.setitem(CATALOGUE, "mt5-chinese-vocabulary", vocabulary)
    assert run(script("mt5"), "mt5-small", "chinese", "--chinese") == 0
    cut = tfloader.load("chinese")
    new = np.array([[3, 4, 5]])
    old = np.asarray(keep)[new]
    expected = np.asarray(whole([old, old]))[..., keep]
    assert np.abs(np.asarray(cut([new, new])) - expected).max() <= 5e-5 * np.abs(expected).max()
    assert Path("chinese/spiece.model").read_bytes() == pieces


def test_a_release_that_cannot_be_fetched_is_not_converted(site, tmp_path, monkeypatch, capsys):  # noqa: F811
    monkeypatch.chdir(tmp_path)
    publish(site, "gpt2_openai", ("hparams.json",), monkeypatch, "gpt2-124M")
    site.pages.clear()
    assert run(script("gpt2"), "gpt2-124M", "converted") == 1
    assert "HTTP 404" in capsys.readouterr().err
    assert not os.path.exists("converted")


def test_a_hub_is_reached_through_the_mirror(site, tmp_path, monkeypatch, capsys):  # noqa: F811
    monkeypatch.chdir(tmp_path)
    site.pages["/api/models/thu-coai/CDial-GPT_LCCC-base/revision/main"] = json_page(
        {"sha": "0" * 40, "siblings": [{"rfilename": "pytorch_model.bin", "size": 1}]}
    )
    command = ("cdial-gpt-lccc-base", "converted", "--mirror", site.address, "--source", "folder")
    assert run(script("cdial_gpt"), *command) == 1
    assert "--allow-pickle" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [[], ["gpt2-124M"], ["nonsense", "x"], ["mt5-small", "x"]])
def test_wrong_usage_exits_2(arguments):
    with pytest.raises(SystemExit, match="2"):
        run(script("gpt2"), *arguments)
