"""The progress bar is for people at terminals."""

from __future__ import annotations

import io
import sys

from tfloader.progress import progress_bar


class Terminal(io.StringIO):
    def isatty(self):
        return True


def shown(stream, monkeypatch, title="model.h5"):
    monkeypatch.setattr(sys, "stderr", stream)
    with progress_bar(title, 4_000_000, done=1_000_000) as bar:
        bar.update(2_000_000)
        bar.refresh()
    return stream.getvalue()


def test_a_terminal_sees_name_share_and_bytes(monkeypatch):
    text = shown(Terminal(), monkeypatch)
    assert "model.h5" in text and "75%" in text and "3.00M/4.00M" in text


def test_nothing_else_sees_anything(monkeypatch, capsys):
    assert shown(io.StringIO(), monkeypatch) == ""
    assert capsys.readouterr().out == ""


def test_a_title_cannot_steer_the_terminal(monkeypatch):
    text = shown(Terminal(), monkeypatch, "evil\x1b[2J")
    assert "evil\\x1b[2J" in text and "\x1b[2J" not in text
