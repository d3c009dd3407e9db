"""Heat maps: right colours, text that stays text whatever it holds, and clear refusals."""

from __future__ import annotations

import io
import sys
from html.parser import HTMLParser

import numpy as np
import pytest

import tfloader
from tfloader.errors import TrainingError
from tfloader.interpretation.pictures import AGAINST, FOR, colour, page, picture, visible

HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "</bdi><style>*{display:none}</style>",
    "&lt;b&gt;",
    "{title}",
    "' onmouseover='alert(1)",
    "\x00\x1b[31m\n",
    "\u202etxet",
    "\ud800",
    "",
]


class Reader(HTMLParser):
    def __init__(self):
        super().__init__(convert_charrefs=True)
        self.tags, self.attributes, self.texts, self.inside = [], [], [], False

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.inside = tag == "bdi"
        if self.inside:
            self.attributes.append(dict(attributes))
            self.texts.append("")

    def handle_endtag(self, tag):
        self.inside = False

    def handle_data(self, data):
        if self.inside:
            self.texts[-1] += data


def read(text):
    reader = Reader()
    reader.feed(text)
    return reader


def test_hostile_tokens_and_titles_are_shown_as_text():
    found = read(page([[(token, 1.0) for token in HOSTILE]], title="</title><script>alert(2)</script>"))
    assert set(found.tags) == {"html", "head", "meta", "title", "style", "body", "h1", "p", "bdi"}
    assert all(set(attributes) == {"style", "title"} for attributes in found.attributes)
    assert found.texts == [visible(token) for token in HOSTILE]
    assert found.texts[:6] == HOSTILE[:6]
    assert found.texts[6:] == ["\ufffd\ufffd[31m\ufffd", "\ufffdtxet", "\ufffd", "·"]
    page([[(token, 1.0) for token in HOSTILE]]).encode()  # half of a surrogate pair cannot be written


def test_colours_go_from_white_to_red_for_and_blue_against():
    assert colour(0.0, 2.0) == (255, 255, 255)
    assert all(a < b < 255 for a, b in zip(colour(2.0, 2.0), colour(1.0, 2.0), strict=True))
    red, green, blue = colour(2.0, 2.0)
    assert red > green and red > blue and FOR[0] == max(FOR)
    red, green, blue = colour(-2.0, 2.0)
    assert blue > red and AGAINST[2] == max(AGAINST)


def test_html_holds_each_row_with_its_numbers_and_nothing_from_elsewhere(tmp_path):
    scores = np.array([[0.5, -1.0, 0.25], [1e-3, 0.0, 9.0]])
    tfloader.heat_map([["我", "很", "好"], ["##a", "b"]], scores, tmp_path / "map.html", title="为什么")
    text = (tmp_path / "map.html").read_text("utf-8")
    found = read(text)
    assert found.texts == ["我", "很", "好", "##a", "b"]
    assert [item["title"] for item in found.attributes] == ["0.5", "-1", "0.25", "0.001", "0"]
    assert found.attributes[1]["style"] == "background: rgb({}, {}, {})".format(*colour(-1.0, 1.0))
    assert found.attributes[4]["style"] == "background: rgb(255, 255, 255)"
    assert found.tags.count("p") == 2 and "为什么" in text
    assert "url(" not in text and "://" not in text


def test_tokens_and_scores_that_do_not_fit_are_refused(tmp_path):
    for tokens, scores, message in [
        (["a", "b"], [1.0], "2 tokens and 1 finite"),
        ([["a"], ["b"]], [[1.0]], "2 rows of tokens do not fit scores of shape"),
        (["a"], [float("nan")], "1 tokens and 0 finite"),
        ([["a", 3]], [[1.0, 2.0]], "Tokens must be strings"),
        ([["a"], ["b", "c"]], [[1.0], [1.0, 2.0]], "scores must be numbers"),
    ]:
        with pytest.raises(TrainingError, match=message):
            tfloader.heat_map(tokens, scores, tmp_path / "map.html")
    with pytest.raises(TrainingError, match=r"a \.html or a \.png"):
        tfloader.heat_map(["a"], [1.0], tmp_path / "map.svg")
    assert not list(tmp_path.iterdir())


def test_without_matplotlib_a_png_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    monkeypatch.setitem(sys.modules, "matplotlib.backends.backend_agg", None)
    with pytest.raises(TrainingError, match=r"pip install tfloader\[pictures\]"):
        tfloader.heat_map(["a"], [1.0], tmp_path / "map.png")


@pytest.fixture
def pixels():
    image = pytest.importorskip("matplotlib.image")
    return lambda data: np.round(image.imread(io.BytesIO(data))[:, :, :3] * 255).astype(int)


def test_a_png_has_the_colours_in_the_places_of_the_tokens(pixels):
    drawn = pixels(picture([[("aaaa", 1.0), ("bbbb", -1.0), ("cccc", 0.0)], [("dddd", 0.5)]], title="A title"))
    lines = [np.flatnonzero((drawn == colour(score, 1.0)).all(-1).any(axis=1)) for score in (1.0, -1.0, 0.5)]
    columns = [np.flatnonzero((drawn == colour(score, 1.0)).all(-1).any(axis=0)) for score in (1.0, -1.0, 0.5)]
    np.testing.assert_array_equal(lines[0], lines[1])
    assert lines[0].max() < lines[2].min()
    assert columns[0].max() < columns[1].min() and columns[2].min() == columns[0].min()


def test_a_png_shows_hostile_tokens_as_text_and_breaks_long_rows(pixels):
    drawn = pixels(picture([[("$\\frac{1}{$", 1.0), ("$x^2$", -1.0), ("%s\n", 0.5)] * 20], title="$\\oops$"))
    assert drawn.shape[1] < 1500 < drawn.shape[0] * 10
    assert (drawn == colour(1.0, 1.0)).all(-1).any()


def test_characters_that_no_font_has_are_refused(monkeypatch, tmp_path):
    fonts = pytest.importorskip("matplotlib.font_manager")
    # matplotlib's own, of which Last Resort has a box for every character
    own = [entry for entry in fonts.fontManager.ttflist if "matplotlib" in entry.fname]
    monkeypatch.setattr(fonts.fontManager, "ttflist", own)
    monkeypatch.setattr(fonts, "findSystemFonts", list)
    with pytest.raises(TrainingError, match=r"No font on this system has the characters '很我'.*fonts-noto-cjk"):
        tfloader.heat_map(["我", "很", "fine"], [1.0, 0.0, 1.0], tmp_path / "map.png")
    with pytest.raises(TrainingError, match="not a font file"):
        tfloader.heat_map(["a"], [1.0], tmp_path / "map.png", font=__file__)
