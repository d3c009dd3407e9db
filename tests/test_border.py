"""The border: whatever a public function is given, it works or raises a TfloaderError that says what was expected."""

from __future__ import annotations

import inspect
import os
import pickle
from pathlib import Path
from typing import Any

import pytest

import tfloader
from tfloader.border import public
from tfloader.errors import ArgumentError, FileError

Where = str | os.PathLike[str]


def sample(path: Where, size: int = 1, *more: float, rate: float | None = None, ids: list[int] | None = None, **rest):
    return path, size, rate


def numbers(path: Where):
    with open(path) as file:
        yield from file


@pytest.mark.parametrize(
    ("arguments", "options", "words"),
    [
        ((3,), {}, "path: expected str or os.PathLike[str], found int 3"),
        ((b"x",), {}, "path: expected str or os.PathLike[str], found bytes b'x'"),
        ((None,), {}, "found NoneType None"),
        (("a\0b",), {}, "path: 'a\\x00b' is no path: it holds a NUL"),
        (("\ud800",), {}, "path: '\\ud800' is no path: it holds half of a character"),
        ((Path("\ud800"),), {}, "half of a character"),
        (("x", "4"), {}, "size: expected int, found str '4'"),
        (("x", 1.5), {}, "size: expected int, found float 1.5"),
        (("x",), {"rate": "high"}, "rate: expected float or None, found str 'high'"),
        (("x",), {"ids": 3}, "ids: expected list[int] or None, found int 3"),
        (("x",), {"ids": "12"}, "ids: expected list[int] or None, found str '12'"),
        ((), {}, "missing a required argument: 'path'"),
    ],
)
def test_an_argument_of_another_type_is_named_with_what_was_expected(arguments, options, words):
    with pytest.raises(ArgumentError) as caught:
        public(sample)(*arguments, **options)
    assert words in str(caught.value)
    assert isinstance(caught.value, TypeError) and isinstance(caught.value, ValueError)


def test_all_wrong_arguments_are_named_at_once():
    with pytest.raises(ArgumentError, match=r"(?s)path: .*size: .*rate: "):
        public(sample)(1, "2", rate="3")


@pytest.mark.parametrize("ids", [None, [1], (1,), range(3)])
def test_what_an_annotation_leaves_open_is_for_the_function_to_judge(ids):
    assert public(sample)(Path("x"), True, "more", rate=1, ids=ids, other=object()) == (Path("x"), True, 1)


def test_what_the_system_refuses_is_an_os_error_of_ours(tmp_path):
    for function in (lambda: list(public(numbers)(tmp_path)), lambda: tfloader.download("gpt2-124M", "/proc/none/x")):
        with pytest.raises(FileError) as caught:
            function()
        assert isinstance(caught.value, OSError) and isinstance(caught.value.__cause__, OSError)


@pytest.mark.parametrize("error", [TypeError, UnicodeError, KeyError, AttributeError, OverflowError, RecursionError])
def test_what_an_argument_leads_to_inside_is_an_error_of_ours_with_its_cause(error):
    def broken(value: Any):
        raise error("inside")

    with pytest.raises(ArgumentError, match=f"broken.*{error.__name__}: .*inside") as caught:
        public(broken)(1)
    assert isinstance(caught.value.__cause__, error)


def test_our_own_errors_and_those_of_nobody_s_argument_pass_as_they_are():
    for error in (tfloader.ConfigError("as it is"), KeyboardInterrupt(), MemoryError(), RuntimeError("of a callback")):

        def broken(error=error):
            raise error

        with pytest.raises(type(error)) as caught:
            public(broken)()
        assert caught.value is error


@pytest.mark.parametrize("value", [3, None, b"x", "a\0b", "\ud800"])
@pytest.mark.parametrize("name", ["Tokenizer", "SpTokenizer", "BestWeights", "TrainingBackup"])
def test_a_class_that_takes_a_path_stands_at_the_border_too(name, value):
    with pytest.raises(ArgumentError, match=rf"(?s)^{name}\(\) cannot take this:\n  - .*: "):
        getattr(tfloader, name)(value)


def test_every_public_function_stands_at_the_border_but_losses_which_keras_calls():
    functions = [value for name in tfloader.__all__ if inspect.isfunction(value := getattr(tfloader, name))]
    inside = [function.__name__ for function in functions if not hasattr(function, "__wrapped__")]
    assert sorted(inside) == ["multilabel_categorical_crossentropy", "sparse_multilabel_categorical_crossentropy"]
    assert pickle.loads(pickle.dumps(tfloader.download)) is tfloader.download
