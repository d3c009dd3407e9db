"""All errors that tfloader raises on purpose are TfloaderError, but for those that Python's own protocols ask for."""

from __future__ import annotations

import ast
import builtins
from pathlib import Path

import tfloader
from tfloader.errors import FileError

ROOT = Path(tfloader.__file__).parent
BUILTIN = {name for name, value in vars(builtins).items() if isinstance(value, type) and issubclass(value, Exception)}
# Where a built-in exception is right, and why.
ALLOWED = {
    ("__init__.py", "AttributeError"): "the protocol of a module's __getattr__",
    ("cli.py", "ValueError"): "the protocol of argparse's types",
    ("filesystem.py", "OSError"): "what the system reports; staging.py turns it into the error of its caller",
    ("naming/dialect.py", "ValueError"): "caught by the Dialect, which collects it with all other problems",
    ("checkpoints/base.py", "MemoryError"): "Python's own error for it",
    ("conversion/streaming.py", "RuntimeError"): "a mistake in tfloader, not in an argument",
    ("data/generator.py", "IndexError"): "the protocol of __getitem__",
    ("data/generator.py", "TypeError"): "the protocol of __len__",
    ("files.py", "OSError"): "caught there, with what the system reports",
    ("files.py", "ValueError"): "for archives: caught by their readers, with what the reading of archives raises",
    ("training/callbacks.py", "TypeError"): "caught there, with what the reading of JSON raises",
    ("staging.py", "OSError"): "what the system reports; turned there into the error of its caller",
    ("staging.py", "ValueError"): "caught there, with what the reading of JSON raises",
}


def raised(path: Path) -> set[str]:
    calls = (node.exc for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Raise) and node.exc)
    names = {call.func if isinstance(call, ast.Call) else call for call in calls}
    return {name.id for name in names if isinstance(name, ast.Name)}


def test_built_in_exceptions_are_raised_only_where_it_is_said_why():
    found = {
        (path.relative_to(ROOT).as_posix(), name)
        for path in ROOT.rglob("*.py")
        for name in raised(path) & BUILTIN - {"NotImplementedError"}  # the protocol of a method for subclasses
    }
    assert found <= ALLOWED.keys(), f"Raise an error of tfloader.errors: {sorted(found - ALLOWED.keys())}"
    assert found == ALLOWED.keys(), f"No longer raised: {sorted(ALLOWED.keys() - found)}"


def test_every_exception_of_tfloader_is_a_tfloader_error():
    for name, value in vars(tfloader.errors).items():
        if isinstance(value, type) and issubclass(value, Exception):
            assert issubclass(value, tfloader.TfloaderError), name


def test_a_message_can_be_printed_whatever_name_it_holds():
    for kind in (tfloader.ConfigError, FileError):
        assert str(kind("half: \ud800, whole: 中")) == "half: \\ud800, whole: 中"


def test_a_list_of_problems_is_short_whatever_files_hold():
    told = tfloader.errors.listing([f"line {number}: {'x' * 10**6}: repeated" for number in range(50)])
    assert len(told) < 10**5 and told.count(": repeated") == 20 and told.endswith("and 30 more")
    assert tfloader.errors.listing(["x" * 4000]) == "  - " + "x" * 4000
