"""The judge of tensors: what each is for, and everything that is wrong, from names, shapes and dtypes alone."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tfloader.checkpoints import open_checkpoint
from tfloader.checkpoints.base import TensorSpec
from tfloader.config import TransformerConfig
from tfloader.errors import WeightsError
from tfloader.naming import RELEASES
from tfloader.naming.base import Duplicate, Naming, Split, Transpose, row
from tfloader.naming.constants import Constant, causal_masks, positions
from tfloader.naming.fit import fit

CONFIG = TransformerConfig(
    "any", vocab_size=7, hidden_size=4, num_hidden_layers=2, num_attention_heads=2, intermediate_size=5
)
RELEASE = replace(
    RELEASES[0],
    title="Toy",
    naming=Naming(
        rows=(
            row("Words/embeddings", "words"),
            row([f"Block-{{layer}}/{name}" for name in "qkv"], "block.{layer}.qkv", Split(3)),
            row("Pooler/kernel", "pooler", Transpose(), part="pooler"),
            row("Out/kernel", "out", Transpose(), part="lm", untied=True),
        ),
        old_names=((r"^module\.", ""),),
        ignorable=(r"/Adam$",),
        duplicates=(Duplicate("decoder", "words"), Duplicate("out", "words")),
        constants=(Constant("turns", lambda _: (2,), lambda _: np.float32([1, 2])),),
    ),
)
SHAPES = {"words": (7, 4), "block.0.qkv": (4, 12), "block.1.qkv": (4, 12), "pooler": (6, 4), "out": (7, 4)}
VARIABLES = {
    "Words/embeddings": (7, 4),
    **{f"Block-{i}/{name}": (4, 4) for i in range(2) for name in "qkv"},
    "Pooler/kernel": (4, 6),
    "Out/kernel": (4, 7),
}


def specs(**changes):
    """The whole checkpoint, with other shapes or TensorSpecs; None takes one out, and __ stands for a dot."""
    shapes = SHAPES | {name.replace("__", "."): shape for name, shape in changes.items()}
    return {
        name: shape if isinstance(shape, TensorSpec) else TensorSpec(shape, "float32")
        for name, shape in shapes.items()
        if shape is not None
    }


def judged(variables=VARIABLES, config=CONFIG, release=RELEASE, others=(), options=(), **changes):
    return fit(specs(**changes) | dict(others), release, config, variables, **dict(options))


def told(found):
    return [*found.missing, *found.unused, *found.misfits]


def test_a_whole_checkpoint_fits():
    found = judged(config=CONFIG.replace(tie_word_embeddings=False))
    assert told(found) == [] and found.unread == found.foreign == found.repeats == []
    assert [source.name for source in found.sources] == list(SHAPES)
    assert found.parts == ["pooler", "lm"] and found.tied == []


UNTIED = {"config": CONFIG.replace(tie_word_embeddings=False)}


@pytest.mark.parametrize(
    ("changes", "words"),
    {
        "dropped": ({"block__1__qkv": None}, ["Block-1/q + Block-1/k + Block-1/v has no tensor 'block.1.qkv'"]),
        "transposed": ({"pooler": (4, 6)}, ["pooler has shape (4, 6), the config means (6, 4)"]),
        "a row short": ({"out": (6, 4)}, ["out has shape (6, 4), the config means (7, 4) (saved after keep_tokens?"]),
        "a column short": ({"block__0__qkv": (4, 11)}, ["block.0.qkv has shape (4, 11), the config means (4, 12)"]),
        "another rank": ({"pooler": (24,)}, ["pooler has shape (24,), the config means (6, 4)"]),
        "another dtype": ({"words": TensorSpec((7, 4), "int32")}, ["words is stored as int32; supported: bfloat16"]),
        "a block too many": (
            {"block__2__qkv": (4, 12)},
            ["block.2.qkv (4, 12) has no use: a Toy model has none of this name"],
        ),
        "renamed": ({"pooler": None, "puller": (6, 4)}, ["Pooler/kernel has no tensor 'pooler'", "puller (6, 4)"]),
        "all at once": (
            {"words": None, "extra": (1,), "pooler": (1,), "out": TensorSpec((7, 4), "bool")},
            [
                "Words/embeddings has no tensor",
                "extra (1,) has no use",
                "pooler has shape (1,)",
                "out is stored as bool",
            ],
        ),
    }.values(),
)
def test_what_is_wrong_is_told_and_nothing_else(changes, words):
    problems = told(judged(**UNTIED, **changes))
    assert len(problems) == len(words)
    assert all(word in problem for word, problem in zip(words, problems, strict=True)), problems


def test_names_alone_are_judged_without_variables():
    found = judged(variables=None, **UNTIED, block__1__qkv=None, pooler=(1,), extra=(1,))
    assert found.parts == ["pooler", "lm"] and list(found.unknown) == ["extra"]
    assert found.missing == found.misfits == []


def test_variables_that_are_in_no_row_have_no_source():
    found = judged(VARIABLES | {"Adapter/hidden_dense/kernel": (4, 4)}, **UNTIED)
    assert told(found) == ["Adapter/hidden_dense/kernel is not in the table of Toy"]


def test_a_row_of_which_the_model_has_only_some_variables_fills_none():
    found = judged({path: shape for path, shape in VARIABLES.items() if path != "Block-0/k"}, **UNTIED)
    assert [line.split(" ")[0] for line in told(found)] == ["Block-0/q", "Block-0/v", "block.0.qkv"]


def test_two_rows_for_one_variable_are_a_misfit():
    twice = replace(RELEASE, naming=replace(RELEASE.naming, rows=(*RELEASE.naming.rows, row("Words/embeddings", "w2"))))
    assert told(judged(release=twice, **UNTIED, w2=(7, 4))) == [
        "w2 is another tensor for Words/embeddings, which have one"
    ]


# ---- optional parts

WITHOUT_POOLER = {path: shape for path, shape in VARIABLES.items() if not path.startswith("Pooler")}


def test_a_part_that_was_left_out_on_purpose_may_stay_unread():
    found = judged(WITHOUT_POOLER, options={"left_out": {"pooler"}}, **UNTIED)
    assert told(found) == [] and found.unread == ["pooler"] and found.parts == ["lm"]


def test_a_part_that_the_model_lacks_otherwise_is_refused_and_not_said_to_be_there():
    found = judged(WITHOUT_POOLER, **UNTIED)
    assert found.parts == ["lm"]
    assert told(found) == [
        "pooler (6, 4) has no use: it is of the part 'pooler', which the family does not declare in `heads`, "
        "or did not make"
    ]


def test_blocks_that_only_the_stored_config_has_may_stay_unread():
    short = {path: shape for path, shape in VARIABLES.items() if not path.startswith("Block-1")}
    config = UNTIED["config"]
    options = {"stored_config": config}
    found = judged(short, config=config.replace(num_hidden_layers=1), options=options)
    assert told(found) == [] and found.unread == ["block.1.qkv"]


def test_ignored_tensors_and_those_of_an_optimizer_are_foreign():
    found = judged(options={"ignore": ["class*"]}, **UNTIED, classifier=(9,), others=specs(**{"words/Adam": (7, 4)}))
    assert told(found) == [] and found.foreign == ["classifier", "words/Adam"]


# ---- copies

TIED = {path: shape for path, shape in VARIABLES.items() if not path.startswith("Out")}


def test_a_stored_copy_of_a_tied_weight_must_repeat_it():
    found = judged(TIED)
    assert told(found) == [] and found.repeats == [("words", "out")]
    assert found.parts == ["pooler"] and found.tied == ["lm"]


def test_a_copy_stands_in_for_an_original_that_is_not_there():
    found = judged(TIED, words=None, decoder=(7, 4))
    assert told(found) == [] and found.sources[0].name == "decoder" and found.repeats == [("decoder", "out")]


def test_an_output_layer_of_its_own_does_not_stand_in_for_the_embedding():
    found = judged(words=None, **UNTIED)
    assert told(found) == ["Words/embeddings has no tensor 'words'"]


@pytest.mark.parametrize(("value", "equal"), [(1.0, True), (2.0, False)])
@pytest.mark.parametrize(("first", "second"), [("words", "module.words"), ("words", "decoder")])
def test_a_tensor_that_is_stored_twice_must_hold_the_same_values(first, second, value, equal):
    tensors = {name: np.ones(shape, "float32") for name, shape in SHAPES.items()}
    tensors[second] = tensors[first] * np.float32(value)
    with open_checkpoint(tensors) as checkpoint:
        found = fit(checkpoint, RELEASE, UNTIED["config"], VARIABLES)
        assert found.repeats == [(first, second)]
        assert bool(found.problems(checkpoint)) is not equal
        if not equal:
            with pytest.raises(WeightsError, match=rf"do not fit \(1\):\n  - {second} should repeat {first}"):
                found.refuse(checkpoint)


@pytest.mark.parametrize(("values", "wrong"), [([1, 2], 0), ([1, 3], 1), ([1, 2, 3], 1)])
def test_a_constant_must_follow_from_the_config(values, wrong):
    tensors = {name: np.ones(shape, "float32") for name, shape in SHAPES.items()} | {"turns": np.float32(values)}
    with open_checkpoint(tensors) as checkpoint:
        found = fit(checkpoint, RELEASE, UNTIED["config"], VARIABLES)
        assert found.foreign == ["turns"] and len(found.problems(checkpoint)) == wrong


BUFFERS = replace(
    RELEASE, naming=replace(RELEASE.naming, buffers=(positions(r"position_ids$"), causal_masks(r"\.mask$")))
)


@pytest.mark.parametrize(
    ("name", "right", "wrong"),
    [
        ("position_ids", np.arange(5)[None], np.arange(1, 6)[None]),
        ("module.position_ids", np.arange(5).astype("float16"), np.zeros((1, 5), "int64")),
        ("block.0.mask", np.tri(3, dtype="uint8")[None, None], np.ones((1, 1, 3, 3), "uint8")),
        ("block.0.mask", np.tri(3, dtype="bool"), np.tri(3, dtype="float32").T),
        ("position_ids", np.int64(0), np.arange(4).reshape(2, 2)[::-1]),
        ("block.0.mask", np.ones((), "float32"), np.zeros((1, 2), "float32")),
    ],
)
def test_a_buffer_that_the_original_computed_with_holds_what_it_must_or_is_named(name, right, wrong):
    for values, options, told in ((right, {}, 0), (wrong, {}, 1), (wrong, {"ignore": [name]}, 0)):
        tensors = {name: np.ones(shape, "float32") for name, shape in SHAPES.items()} | {name: np.asarray(values)}
        with open_checkpoint(tensors) as checkpoint:
            found = fit(checkpoint, BUFFERS, CONFIG, VARIABLES, **options)
            assert found.foreign == [name] and len(list(found.disagreements(checkpoint))) == told


def test_the_judge_imports_no_framework():
    code = (
        "import sys, tfloader.naming.fit, tfloader.naming.assembly; print({'tensorflow', 'keras'} & set(sys.modules))"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, timeout=60)
    assert done.stdout == "set()\n", done.stderr
