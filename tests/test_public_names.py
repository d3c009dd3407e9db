"""The package's face: what `import tfloader` offers, at run time and to tools that only read the stub."""

from __future__ import annotations

import ast
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import tfloader

ROOT = Path(__file__).parents[1]
STUB = ast.parse((ROOT / "tfloader/__init__.pyi").read_text("utf-8"))
PUBLIC = sorted(tfloader.__all__)


@pytest.mark.parametrize("name", PUBLIC)
def test_every_public_name_of_the_stub_is_there(name):
    assert getattr(tfloader, name) is not None
    assert name in dir(tfloader)


def test_the_stub_hands_every_name_on_under_its_own_name():
    """`import x as x` is how a stub says that x is public; a plain `import x` would hide it from type checkers."""
    imported = [name for statement in STUB.body if isinstance(statement, ast.ImportFrom) for name in statement.names]
    assert all(name.name == name.asname for name in imported)
    assert sorted([*(name.name for name in imported), "__version__"]) == PUBLIC


def test_a_name_that_does_not_exist_is_an_error_that_shows_the_nearest():
    with pytest.raises(AttributeError, match="no attribute 'load_confg'"):
        tfloader.load_confg  # noqa: B018
    code = [sys.executable, "-c", "import tfloader; tfloader.load_confg"]
    assert "Did you mean: 'load_config'?" in subprocess.run(code, capture_output=True, text=True).stderr


PACKAGES = sorted(path for path in (ROOT / "tfloader").rglob("__init__.py") if path.parent != ROOT / "tfloader")


@pytest.mark.parametrize("path", PACKAGES, ids=lambda path: path.parent.name)
def test_a_package_s_init_only_hands_names_on(path):
    """A docstring, imports and `__all__`, which names what is imported: code stands in modules."""
    docstring, *statements = ast.parse(path.read_text("utf-8")).body
    assert isinstance(docstring, ast.Expr)
    *imports, names = statements or [None]
    assert all(isinstance(statement, ast.ImportFrom) for statement in imports)
    if statements:
        assert ast.unparse(names).startswith("__all__ = ")
        handed_on = {name.asname or name.name for statement in imports for name in statement.names} - {"annotations"}
        assert set(ast.literal_eval(names.value)) == handed_on


def public_functions():
    """The public functions, and the public methods of the public classes, that tfloader defines."""
    for name in PUBLIC:
        item = getattr(tfloader, name)
        if inspect.isclass(item):
            for attribute, value in vars(item).items():
                function = value.fget if isinstance(value, property) else getattr(value, "__func__", value)
                is_public = not attribute.startswith("_") or attribute in ("__init__", "__call__")
                if is_public and inspect.isfunction(function) and function.__qualname__.endswith(f".{attribute}"):
                    yield f"{name}.{attribute}", function
        elif inspect.isfunction(item):
            yield name, item


def test_public_functions_are_typed():
    untyped = []
    for name, function in public_functions():
        signature = inspect.signature(function)
        if signature.return_annotation is signature.empty:
            untyped.append(f"{name}: what it returns")
        for parameter in signature.parameters.values():
            if parameter.annotation is parameter.empty and parameter.name not in ("self", "cls"):
                untyped.append(f"{name}: {parameter.name}")
    assert untyped == []
