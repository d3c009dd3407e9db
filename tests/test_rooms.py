"""The rooms of the house: what may import what, read from the source without running it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tfloader.models.families import FAMILIES

PACKAGE = Path(__file__).parents[1] / "tfloader"
MODULES = {
    ".".join(("tfloader", *path.relative_to(PACKAGE).with_suffix("").parts)): path for path in PACKAGE.rglob("*.py")
}
TREES = {name.removesuffix(".__init__"): ast.parse(path.read_text("utf-8")) for name, path in MODULES.items()}

# From the ground up: a room may import those of the floors below its own, whether at the top or inside a function.
FLOORS = (
    {"errors", "terminal"},
    {"ahead", "assets", "border", "config", "faults", "filesystem", "keras_private", "option_types", "progress"},
    {"staging"},
    {"files"},
    {"checks", "suggestions"},
    {"checkpoints", "selection"},
    {"downloads", "naming", "optimizers"},
    {"losses", "tokenizers"},
    {"layers"},
    {"data", "weights"},
    {"models"},
    {"generation", "inspection", "interpretation", "training"},
    {"conversion", "tasks"},
    {"exporting"},
    {"reports"},
    {"cli"},
    {"__main__", "script"},
)
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
# (importing module, imported room) -> why it may.
ARROWS_UP: dict[tuple[str, str], str] = {
    ("tfloader.checkpoints.opening", "downloads"): "at the end of an error: a missing path may be a release's name",
}

# Modules that may have a family's name among their constants -> why.
FAMILY_NAMES = {
    "tfloader.downloads.catalogue": "its groups are the names of the scripts in convert/",
}
FURTHER_NAMES = {"mt5", "t5_pegasus", "albert_unshared", "openai-gpt", "umt5"}


def nodes(tree: ast.AST, lazily: bool) -> Iterator[ast.AST]:
    """All nodes but those for type checkers; without functions' bodies if not `lazily`."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            continue
        yield node
        if lazily or not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield from nodes(node, lazily)


def imports(name: str, lazily: bool = True) -> set[str]:
    """The modules of the package that a module imports."""
    found = set()
    for node in nodes(TREES[name], lazily):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {item if item in TREES else node.module for item in inner}
    return {item for item in found if item in TREES and item != "tfloader"}


def room(name: str) -> str:
    return name.split(".")[1]


def test_every_room_has_its_floor():
    assert {room(name) for name in TREES if name != "tfloader"} <= set(FLOOR)


@pytest.mark.parametrize("name", sorted(set(TREES) - {"tfloader"}))
def test_a_module_imports_only_rooms_of_lower_floors(name):
    up = {item for item in imports(name) if room(item) != room(name) and FLOOR[room(item)] >= FLOOR[room(name)]}
    assert not {item for item in up if (name, room(item)) not in ARROWS_UP}


def test_no_module_needs_itself_to_be_imported():
    state: dict[str, bool] = {}  # name -> whether all that it imports is known to be free of circles

    def visit(name: str, above: tuple[str, ...]) -> None:
        assert name not in above, " -> ".join((*above, name))
        if not state.get(name):
            for item in imports(name, lazily=False):
                visit(item, (*above, name))
            state[name] = True

    for name in TREES:
        visit(name, ())


OTHERS = sorted(name for name in TREES if not name.startswith(("tfloader.models", "tfloader.naming")))


@pytest.mark.parametrize("name", OTHERS)
def test_no_module_outside_of_models_and_naming_knows_a_family(name):
    families = {family.__module__ for family in FAMILIES.values()}
    constants = {node.value for node in ast.walk(TREES[name]) if isinstance(node, ast.Constant)}
    assert not imports(name) & families
    assert name in FAMILY_NAMES or not {*FAMILIES, *FURTHER_NAMES} & {
        text for text in constants if isinstance(text, str)
    }


def test_every_exception_is_one():
    for name, above in ARROWS_UP:
        assert above in {room(item) for item in imports(name)}, name
    for name in FAMILY_NAMES:
        constants = {node.value for node in ast.walk(TREES[name]) if isinstance(node, ast.Constant)}
        assert {*FAMILIES, *FURTHER_NAMES} & constants, name
