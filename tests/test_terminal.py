"""What the command writes to: whatever its encoding, what is written can be read."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys

import pytest

from tfloader import terminal

CONTENT = {"text": "春江 é 🙂", "ends of lines": "\n\r\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029"}


@pytest.mark.parametrize("encoding", ["utf-8", "cp1252", "ascii", "gbk"])
def test_a_line_of_json_is_json_in_every_encoding(encoding, monkeypatch):
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding))
    terminal.escape_what_cannot_be_encoded()
    print(terminal.json_line(CONTENT), flush=True)
    (line,) = written.getvalue().decode(encoding).splitlines()
    assert json.loads(line) == CONTENT
    assert ("春" in line) == (encoding == "utf-8")


def test_what_steers_a_terminal_is_escaped_and_lines_stay_lines(capsys):
    terminal.show("one\x1b[31m\ntwo\u202e")
    assert capsys.readouterr().out == "one\\x1b[31m\ntwo\\u202e\n"


def test_what_is_written_below_python_goes_nowhere_meanwhile_and_comes_again_afterwards():
    code = (
        "import os; from tfloader.terminal import quietly\n"
        "quietly(os.write, 2, b'hidden')\n"
        "try: quietly(int, 'x')\n"
        "except ValueError: os.write(2, b'shown')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=dict(os.environ))
    assert (done.returncode, done.stderr) == (0, "shown")
