"""What a type checker and an editor make of calls of tfloader, as a user of the installed package would see it."""

from __future__ import annotations

import importlib.util
import inspect
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

import tfloader
from tfloader.errors import ConfigError
from tfloader.models import builder
from tfloader.models.builder import FAMILIES, split_options
from tfloader.option_types import GenerateOptions, LoadOptions

ROOT = Path(__file__).parents[1]

WRONG = """
import tfloader

tfloader.laod("gpt2")  # "laod" is not a known attribute
model = tfloader.load("gpt2", aplication="lm")  # No parameter named "aplication"
tfloader.load("gpt2", with_mlm=3)  # cannot be assigned to parameter "with_mlm"
tfloader.load("gpt2", num_hidden_layers="3")  # cannot be assigned to parameter "num_hidden_layers"
tfloader.build_transformer_model("c.json", "c.ckpt", with_mml=True)  # No overloads for "build_transformer_model"
tfloader.convert("a", "b", "onnx", keep_token=[1])  # No parameter named "keep_token"
tfloader.export(model, "b", too="onnx")  # No parameter named "too"
tfloader.TextGenerator(model).generate("To be", max_new_token=3)  # No parameter named "max_new_token"
tfloader.TextGenerator(model, default={})  # No parameter named "default"
tfloader.GenerationOptions(top_kk=3)  # No parameter named "top_kk"
tfloader.TransformerConfig("bert")  # Arguments missing for parameters
"""

RIGHT = """
from typing import Any

import numpy as np
import tfloader
from tfloader import TextGenerator, load

model = load("bert", with_pool="linear", num_hidden_layers=3, max_position=512, layer_norm_cond=None, dtype="bfloat16")
model.compile("adam")
tfloader.build_transformer_model("config.json", "bert.ckpt", "bert", with_mlm=True, dtype="float32").compile("adam")
print(tfloader.build_transformer_model("config.json", "bert.ckpt", return_keras_model=False).layers["Embedding-Token"])
tokenizer = tfloader.load_tokenizer("bert", "bert")
generator = TextGenerator(load("gpt2", application="lm"), tokenizer, defaults={"do_sample": True})
print(generator.generate("To be", max_new_tokens=3, top_k=4, seed=[1]), generator.score("To be"))
for piece in generator.stream("To be", temperature=0.7):
    print(piece.upper())
checks = tfloader.convert("a", "b", "tensorflow", keep_tokens=[1, 2], verify=False)
tfloader.save(model, "c", tokenizer=tokenizer)
options: dict[str, Any] = {"option_of_a_family_of_mine": 3}
load({"a": np.zeros(3)}, model="mine", config={"vocab_size": 3}, **options)
"""


def call(function: str, options: list[str]) -> str:
    return f"{function}({', '.join(f'{name}=anything' for name in options)})"


# Every name in one call: a type checker that lets it through knows each of them.
EVERYTHING = f"""
from typing import Any

import tfloader

anything: Any = ...
{call("tfloader.load", ["path", "model", "application", "dtype", "config", "compat", *LoadOptions.__annotations__])}
{call("tfloader.build_transformer_model", ["dtype", "compat", *LoadOptions.__annotations__])}
{call("tfloader.convert", ["source", "target", "to", "model", "dtype", "keep_tokens", "verify", "text", "decoding"])}
{call("tfloader.TextGenerator(anything).generate", ["prompts", *GenerateOptions.__annotations__])}
{call("tfloader.TextGenerator(anything).generate_ids", ["input_ids", *GenerateOptions.__annotations__])}
print({", ".join(f"tfloader.{name}" for name in tfloader.__all__)})
"""


@pytest.fixture(scope="module")
def problems(tmp_path_factory) -> dict[str, dict[int, str]]:
    """What pyright says of the three files, by file and line."""
    folder = tmp_path_factory.mktemp("user")
    for name, text in {"wrong": WRONG, "right": RIGHT, "everything": EVERYTHING}.items():
        (folder / f"{name}.py").write_text(text, "utf-8")
    (folder / "pyrightconfig.json").write_text(json.dumps({"extraPaths": [str(ROOT)]}), "utf-8")
    command = [sys.executable, "-m", "pyright", "--outputjson", "--pythonpath", sys.executable, "-p", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True)
    found: dict[str, dict[int, str]] = {"wrong": {}, "right": {}, "everything": {}}
    for item in json.loads(done.stdout)["generalDiagnostics"]:
        found[Path(item["file"]).stem][item["range"]["start"]["line"]] = item["message"]
    return found


def test_a_wrong_name_or_value_is_an_error_before_the_program_runs(problems):
    expected = {line: text.split("# ")[1] for line, text in enumerate(WRONG.splitlines()) if "# " in text}
    assert problems["wrong"].keys() == expected.keys()
    assert {line: text for line, text in expected.items() if text not in problems["wrong"][line]} == {}


def test_right_calls_are_no_errors(problems):
    assert problems["right"] == {}


def test_every_public_name_and_every_option_is_known(problems):
    assert problems["everything"] == {}


def test_the_option_types_are_as_rendered():
    path = ROOT / "docs/make_option_types.py"
    spec = importlib.util.spec_from_file_location("make_option_types", path)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    assert script.module() == script.MODULE.read_text("utf-8"), "run python docs/make_option_types.py"


def accepted(family: type, name: str) -> bool:
    try:
        return bool(split_options(family, {name: None}))
    except ConfigError:
        return False


@pytest.mark.parametrize("name", LoadOptions.__annotations__)
def test_an_option_for_type_checkers_is_one_of_a_family(name):
    assert any(accepted(family, name) for family in FAMILIES.values())


@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)
def test_a_name_that_is_no_option_for_type_checkers_is_none_of_a_family(family, monkeypatch):
    monkeypatch.setattr(builder, "did_you_mean", lambda *_: "")  # of every word in a class, it takes seconds
    named = {*LoadOptions.__annotations__, *inspect.signature(tfloader.load).parameters}
    sources = "".join(inspect.getsource(base) for base in family.__mro__[:-1])
    unnamed = {*re.findall(r"\w+", sources), "aplication", "family", "extras"} - named
    assert [name for name in unnamed if accepted(family, name)] == []
