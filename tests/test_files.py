"""Small files of strangers: the strict JSON reader."""

from __future__ import annotations

import ast
import json
from pathlib import Path

import tfloader
from tests.refusals import refused
from tfloader.errors import CheckpointError, ConfigError
from tfloader.files import parse_json, read_json


def test_the_strict_json_reader_is_linear_in_the_number_of_keys(monkeypatch):
    """Keys are compared with each other a few times each, not each with each."""
    compared = 0

    class Key(str):
        __slots__ = ()
        __hash__ = str.__hash__

        def __eq__(self, other):
            nonlocal compared
            compared += 1
            return str.__eq__(self, other)

    def loads(text, object_pairs_hook, **options):
        return parse(
            text, object_pairs_hook=lambda pairs: object_pairs_hook([(Key(k), v) for k, v in pairs]), **options
        )

    parse = json.loads
    monkeypatch.setattr(json, "loads", loads)
    count = 20_000
    text = "{" + ",".join(f'"{i}": 0' for i in range(count)) + ', "7": 1}'
    refused(ConfigError, ["'7' comes more than once"], parse_json, text, "x.json")
    assert 0 < compared < 5 * count


def test_the_strict_json_reader_raises_the_callers_error(tmp_path):
    (tmp_path / "x.json").write_text("{")
    refused(CheckpointError, ["x.json"], read_json, str(tmp_path / "x.json"), CheckpointError)
    refused(
        CheckpointError, ["no-such.json", "cannot be read"], read_json, str(tmp_path / "no-such.json"), CheckpointError
    )
    refused(CheckpointError, ["y: ", "not valid JSON", "UTF-8"], parse_json, b"\xff", "y", CheckpointError)


def test_files_are_opened_by_the_one_function_that_takes_no_pipes():
    """`open` itself is called to write only."""
    package = Path(tfloader.__file__).parent
    for path in package.rglob("*.py"):
        for call in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(call, ast.Call) and getattr(call.func, "id", "") == "open" and path.name != "filesystem.py":
                mode = ast.unparse(call.args[1]) if len(call.args) > 1 else "'r'"
                assert set("wax") & set(mode), f"{path}:{call.lineno}: use tfloader.filesystem.open_file"
