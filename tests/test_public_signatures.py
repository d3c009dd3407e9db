"""Every public function and every command takes wrong types, wrong values and odd paths with an error of ours."""

from __future__ import annotations

import inspect
import json
import os
import re
from typing import Any

import keras
import numpy as np
import pytest

import tfloader
from tests.conftest import CHECKPOINTS
from tests.models.test_keras2 import write as write_keras2
from tfloader import cli
from tfloader.errors import TfloaderError
from tfloader.models import builder
from tfloader.naming import RELEASES

FIXTURE, GPT = CHECKPOINTS / "hf_bert", str(CHECKPOINTS / "hf_openai_gpt")
BERT = "tiny"  # in the folder of the tests
SIZES = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
FUNCTIONS = sorted(name for name in tfloader.__all__ if inspect.isfunction(getattr(tfloader, name)))
# Keras calls these, with tensors of its own.
LOSSES = {"multilabel_categorical_crossentropy", "sparse_multilabel_categorical_crossentropy"}
# Functions and commands that take a second where a value is right after all: they get a third of the values.
SLOW = {"compare", "convert", "export", "generate", "heat_map", "load", "saliency"}
ODD = [
    *(None, True, -1, 2**70, 0.5, float("nan"), b"x", print, object(), [], [None], {}, {"a": object()}),
    *("", ".", "no such", "\0", "\ud800", "x" * 5000, np.array([[1.5]]), np.array("a")),
]


@pytest.fixture(scope="module")
def valid(tmp_path_factory):
    """For each public function arguments that it takes; the process is in a folder of its own."""
    folder, before = tmp_path_factory.mktemp("odd"), os.getcwd()
    releases, families = list(RELEASES), dict(builder.FAMILIES)
    os.chdir(folder)
    (folder / "pairs.tsv").write_text("a\tb\nc\td\n", "utf-8")
    (folder / "pairs.csv").write_text("a,b\nc,d\n", "utf-8")
    (folder / "lines.jsonl").write_text('{"a": 1}\n', "utf-8")
    (folder / "tags.txt").write_text("a B-x\nb O\n", "utf-8")
    tokenizer = tfloader.load_tokenizer(FIXTURE)
    config = json.loads((FIXTURE / "config.json").read_text("utf-8")) | SIZES
    bert = tfloader.build_transformer_model(config, return_keras_model=False).model
    tfloader.save(bert, BERT, tokenizer=tokenizer)
    write_keras2(folder / "keras2.weights", bert)
    adapted = small()
    tfloader.enable_lora(adapted, "first", rank=1)
    tfloader.save_adapters(adapted, "adapters.safetensors")
    span, optimizer = tfloader.Span("x", 0, 1), {"optimizer": keras.optimizers.SGD}
    yield {
        "adversarial_training": {"model": small(), "embedding_name": "first", "epsilon": 1.0},
        "align_words": {"tokenizer": tokenizer, "words": ["a", "b"]},
        "build_transformer_model": {"config_path": f"{BERT}/config.json"},
        "compare": {"first": BERT, "second": BERT},
        "convert": {"source": BERT, "target": "converted", "verify": False},
        "download": {"source": "no such release", "output": "out", "offline": True},
        "enable_lora": {"model": small(), "patterns": "first"},
        "export": {"model": BERT, "folder": "exported", "verify": False},
        "freeze": {"model": small()},
        "heat_map": {"tokens": ["a"], "scores": [0.5], "path": "a.png"},
        "info": {"path": BERT},
        "layer_wise_decay": {"model": bert},
        "load": {"path": BERT},
        "load_adapters": {"model": adapted, "path": "adapters.safetensors"},
        "load_config": {"path": BERT},
        "load_generation_config": {"path": GPT},
        "load_keras2_weights": {"model": bert, "path": "keras2.weights"},
        "load_task": {"folder": TASK},
        "load_tokenizer": {"path": BERT},
        "load_vocab": {"path": f"{BERT}/vocab.txt"},
        "merge_lora": {"model": adapted},
        "open_checkpoint": {"source": BERT},
        "pointer_spans": {"scores": np.zeros((1, 2, 3, 3))},
        "read_csv": {"path": "pairs.csv"},
        "read_jsonl": {"path": "lines.jsonl"},
        "read_tagged": {"path": "tags.txt"},
        "read_tsv": {"path": "pairs.tsv"},
        "register_family": {"name": "odd", "family": type(bert.transformer)},
        "register_release": {"release": bert.transformer.release},
        "replace_random_tokens": {"token_ids": np.ones((2, 3), int), "vocab_size": 9},
        "saliency": {"model": bert, "inputs": [np.ones((1, 3)), np.zeros((1, 3))], "target": 0},
        "save": {"model": bert, "path": "saved"},
        "save_adapters": {"model": adapted, "path": "other.safetensors"},
        "score_spans": {"there": [{span}], "found": [{span}]},
        "sequence_padding": {"inputs": [[1, 2], [3]]},
        "spans_to_tags": {"spans": [span], "length": 2},
        "tag_constraints": {"labels": ["O", "B-x", "I-x"]},
        "tag_names": {"labels": ["x"]},
        "tags_to_spans": {"tags": ["B-x", "O"]},
        "unfreeze": {"model": small()},
        "verify": {"path": BERT},
        "viterbi_decode": {"emissions": np.zeros((1, 2, 3)), "transitions": np.zeros((3, 3))},
        **{name: optimizer for name in FUNCTIONS if name.startswith("extend_with_")},
    }
    os.chdir(before)
    RELEASES[:] = releases
    builder.FAMILIES.clear()
    builder.FAMILIES.update(families)


def small() -> keras.Model:
    layers = [keras.Input((4,)), keras.layers.Dense(3, name="first"), keras.layers.Dense(2, name="second")]
    return keras.Sequential(layers, name="small")


def faults(function: Any, arguments: dict[str, Any]) -> list[str]:
    """What comes out of a function beside errors of ours, with an odd value for each argument in turn."""
    found = []
    for name, parameter in inspect.signature(function).parameters.items():
        for value in ODD[:: 3 if function.__name__ in SLOW else 1]:
            if value is parameter.default or parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
                continue
            try:
                result = function(**{**arguments, name: value})
                list(result) if inspect.isgenerator(result) else None
            except TfloaderError as error:
                str(error).encode("utf-8", "backslashreplace")
            except BaseException as error:
                found.append(f"{name}={value!r:.40}: {type(error).__name__}: {str(error)[:100]}")
    return found


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in FUNCTIONS if name not in LOSSES])
def test_a_public_function_raises_no_error_but_ours(name, valid):
    assert faults(getattr(tfloader, name), valid[name]) == []


# ---- classes

CLASSES = sorted(
    name
    for name, item in ((name, getattr(tfloader, name)) for name in tfloader.__all__)
    if inspect.isclass(item) and not issubclass(item, Exception)
)
TASK = str(CHECKPOINTS.parent / "tasks" / "single")
GPT2 = CHECKPOINTS / "gpt2_openai"
# Arguments that a class takes, where it has some without a default.
MADE_WITH = {
    "AutoRegressiveDecoder": {"start_id": 1, "end_id": 2, "maxlen": 3},
    "BestWeights": {"path": "best.safetensors"},
    "BytePairTokenizer": {"vocab": str(GPT2 / "encoder.json"), "merges": str(GPT2 / "vocab.bpe")},
    "CosineDense": {"units": 3},
    "DataGenerator": {"data": [1, 2, 3]},
    "EfficientGlobalPointer": {"heads": 2, "head_size": 4},
    "GlobalPointer": {"heads": 2, "head_size": 4},
    "NoiseContrastiveEstimation": {"num_classes": 7, "num_sampled": 3},
    "PiecewiseLinear": {"learning_rate": 0.1, "lr_schedule": {0: 1.0}},
    "SampledSoftmax": {"num_classes": 7, "num_sampled": 3},
    "SpTokenizer": {"sp_model_path": str(CHECKPOINTS / "hf_t5_v11/spiece.model")},
    "SentenceEncoder": {"pretrained_path": TASK, "head": False},
    "Span": {"start": 0, "end": 1, "label": "x"},
    "Tagger": {"pretrained_path": TASK.replace("single", "tags")},
    "TextClassifier": {"pretrained_path": TASK},
    "Tokenizer": {"token_dict": str(FIXTURE / "vocab.txt")},
    "TrainingBackup": {"folder": "run"},
    "TransformerConfig": {"family": "bert", "vocab_size": 9, "hidden_act": "gelu", **SIZES},
    "Trie": {"phrases": [[1, 2]]},
    "ViterbiDecoder": {"trans": np.zeros((3, 3))},
}


@pytest.mark.parametrize("name", [name for name in CLASSES if name not in ("TextGenerator", "Transformer")])
def test_a_public_class_is_made_or_refuses_with_an_error_of_ours(name, valid):
    made, arguments = getattr(tfloader, name), MADE_WITH.get(name, {})
    made(**arguments)
    assert faults(made, arguments) == []


# ---- commands

WORDS = ["", ".", "no such", "\ud800", "-1", "1e99", "nan", "x" * 5000, "[]", "a=b", "../../etc"]
BASES = {
    "info": [BERT],
    "verify": [BERT],
    "compare": [BERT, BERT],
    "convert": [BERT, "converted", "--no-verify"],
    "download": ["no such release", "--offline"],
    "generate": [GPT, "a"],
}


@pytest.mark.slow
@pytest.mark.parametrize("command", cli.COMMANDS, ids=lambda command: command.__name__)
def test_a_command_ends_with_a_status_and_a_line_of_ours(command, valid, capsys):
    base = BASES[command.__name__]
    words = WORDS[:: 3 if command.__name__ in SLOW else 1]
    places = [place for place, word in enumerate(base) if not word.startswith("-")]
    lines = [[*base[:place], word, *base[place + 1 :]] for place in places for word in words]
    for names, settings in cli.COMMANDS[command]:
        if names[0].startswith("-") and "nargs" not in settings and settings.get("action", "append") == "append":
            lines += [[*base, names[0], word] for word in words]
    for line in lines:
        try:
            status = cli.main([command.__name__, *line])
        except SystemExit as usage:
            status = usage.code
        said = capsys.readouterr().err
        assert status in (0, 1, 2), line
        assert not re.search(r"Traceback|error: \w+(Error|Exception|Interrupt): ", said), (line, said[-300:])
