"""A picture of numbers over tokens: red for, blue against; as HTML that needs nothing else, or as PNG by matplotlib."""

from __future__ import annotations

import contextlib
import html
import io
import itertools
import os
import unicodedata
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from tfloader.border import public
from tfloader.errors import TrainingError
from tfloader.files import write_bytes

FOR, AGAINST = (214, 39, 40), (31, 119, 180)  # red, green, blue from 0 to 255
# Fonts with Chinese, Japanese and Korean characters, which matplotlib's own lacks, have one of these in their names.
CJK_FONTS = ("CJK", "Han", "Hei", "Song", "Ming", "WenQuanYi", "YaHei", "PingFang", "Gothic", "Unicode")
DPI, FONT_SIZE = 150, 13
LINE_WIDTH, LINE_HEIGHT, MARGIN, GAP = 1350, 46, 40, 14  # pixels
ROW_HEIGHT, PADDING = 1.3, 2.3  # lines from a row to the next one; points around a token

PAGE = """<!DOCTYPE html>
<html><head><meta charset="utf-8"><title>{title}</title>
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<style>
body {{ font: 18px/2 sans-serif; margin: 2em; max-width: 60em; color: #111; background: #fff }}
bdi {{ white-space: pre-wrap; padding: .15em .2em; margin: 0 .05em; border-radius: .2em }}
</style></head>
<body>
<h1 style="font-size: 1.2em">{title}</h1>
{lines}
</body></html>
"""


@public
def heat_map(
    tokens: Sequence[Any], scores: Any, path: str | os.PathLike, title: str = "", font: str | None = None
) -> None:
    """Writes a heat map over one sentence or several, as a .html or .png file, atomically.

    The strongest colour is the largest number, without its sign, of all that is drawn. In HTML the number shows when
    the pointer rests on a token.

    Args:
        tokens: strings, or a list of such lists. They are shown as text whatever they hold, as the title above them is.
        scores: numbers [length] or [batch, length], such as `saliency` gives; those beyond a row's tokens are padding.
        font: a font file for the PNG; None: fonts of the system that have the characters.

    Raises:
        TrainingError: tokens and scores do not fit, another ending, no matplotlib, no font that has the characters.
    """
    rows = list(_rows(tokens, scores))
    extension = os.path.splitext(path)[1].lower()
    if extension not in (".html", ".png"):
        raise TrainingError(f"{os.fspath(path)}: a heat map is a .html or a .png file.")
    data = page(rows, title).encode() if extension == ".html" else picture(rows, title, font)
    write_bytes(os.fspath(path), data, TrainingError)


def page(rows: Sequence[Sequence[tuple[str, float]]], title: str = "") -> str:
    """The HTML of rows of (token, number)."""
    strongest = _strongest(rows)

    def marked(token, score):
        red, green, blue = colour(score, strongest)
        style = f"background: rgb({red}, {green}, {blue})"
        return f'<bdi style="{style}" title="{score:.4g}">{html.escape(visible(token))}</bdi>'

    lines = "\n".join(f"<p>{' '.join(marked(*item) for item in row)}</p>" for row in rows)
    return PAGE.format(title=html.escape(visible(title)), lines=lines)


def colour(score: float, strongest: float) -> tuple[int, ...]:
    """White for 0, up to FOR or AGAINST for the strongest."""
    share = 0.85 * abs(score) / strongest
    return tuple(round(255 + share * (full - 255)) for full in (FOR if score > 0 else AGAINST))


def visible(text: str) -> str:
    """The text with all that would not show as itself (controls, direction marks) replaced; no text becomes a dot."""
    shown = (" " if unicodedata.category(c) == "Zs" else c if c.isprintable() else "\ufffd" for c in text)
    return "".join(shown) or "·"


def picture(rows: Sequence[Sequence[tuple[str, float]]], title: str = "", font: str | None = None) -> bytes:
    """The PNG of rows of (token, number)."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
        from matplotlib.font_manager import FontProperties
        from matplotlib.transforms import IdentityTransform
    except ImportError as error:
        raise TrainingError(
            "A PNG needs matplotlib: pip install tfloader[pictures]. A heat map with the ending .html needs nothing."
        ) from error
    lines = [[(title, 0.0)], *rows] if title else rows
    shown = [[(visible(token), score) for token, score in row] for row in lines]
    families = _families({character for row in shown for text, _ in row for character in text}, font)
    strongest = _strongest(rows)
    figure = Figure(dpi=DPI)
    renderer = FigureCanvasAgg(figure).get_renderer()

    # Places in pixels, from the top; the figure gets its size when the last one is known.
    placed, line, right = [], 0.0, 0.0
    for row in shown:
        x = 0.0
        for token, score in row:
            background = [part / 255 for part in colour(score, strongest)]
            text = figure.text(
                0, 0, token, transform=IdentityTransform(),
                fontproperties=FontProperties(family=families, size=FONT_SIZE),
                parse_math=False, bbox={"facecolor": background, "edgecolor": "none", "pad": PADDING},
            )  # fmt: skip
            width = text.get_window_extent(renderer).width
            if x and x + width > LINE_WIDTH:
                x, line = 0.0, line + 1
            placed.append((text, x, line))
            right, x = max(right, x + width), x + width + GAP
        line += ROW_HEIGHT
    height = line * LINE_HEIGHT + 2 * MARGIN
    for text, x, line in placed:
        text.set_position((MARGIN + x, height - MARGIN - (line + 0.7) * LINE_HEIGHT))
    figure.set_size_inches((right + 2 * MARGIN) / DPI, height / DPI)
    file = io.BytesIO()
    figure.savefig(file, format="png")
    return file.getvalue()


def _families(characters: set[str], font: str | None) -> list[str]:
    """Names of fonts that together have the characters: the given one, matplotlib's own, then the system's."""
    from matplotlib import font_manager, ft2font

    manager = font_manager.fontManager

    def added(file: str) -> str:
        manager.addfont(file)
        return font_manager.FontProperties(fname=file).get_name()

    def names() -> Iterator[str]:
        yield "DejaVu Sans"
        known = sorted(manager.ttflist, key=lambda entry: not any(part in entry.name for part in CJK_FONTS))
        yield from dict.fromkeys(entry.name for entry in known)
        for file in set(font_manager.findSystemFonts()) - {entry.fname for entry in known}:
            with contextlib.suppress(OSError, RuntimeError):  # fonts that matplotlib's list has not yet
                yield added(file)

    try:
        given = [added(font)] if font else []
    except (OSError, RuntimeError) as error:
        raise TrainingError(f"{font}: not a font file that can be read ({error}).") from error
    families, missing = [], characters - {" "}
    for name in itertools.chain(given, names()):
        if not missing:
            break
        # Of the file that matplotlib takes for the name.
        glyphs = ft2font.FT2Font(manager.findfont(font_manager.FontProperties(family=[name]))).get_charmap()
        has = {character for character in missing if ord(character) in glyphs}
        if has and len(set(glyphs.values())) > len(glyphs) / 2:  # else a font of boxes, such as Last Resort
            families.append(name)
            missing -= has
    if missing:
        raise TrainingError(
            f"No font on this system has the characters {''.join(sorted(missing))[:40]!r}. Install one (for Chinese, "
            "Japanese and Korean: fonts-noto-cjk on Debian and Ubuntu, google-noto-sans-cjk-fonts on Fedora), pass "
            "font='a font file', or write a .html file."
        )
    return families or ["DejaVu Sans"]


def _rows(tokens: Sequence[Any], scores: Any) -> Iterator[list[tuple[str, float]]]:
    """Rows of (token, number)."""
    try:
        scores = np.asarray(scores, "float64")
    except (TypeError, ValueError) as error:
        raise TrainingError(f"scores must be numbers [length] or [batch, length] ({error}).") from error
    single = bool(len(tokens)) and isinstance(tokens[0], str)
    rows, numbers = ([tokens], scores[None]) if single else (tokens, scores)
    if numbers.ndim != 2 or len(numbers) != len(rows):
        raise TrainingError(f"{len(rows)} rows of tokens do not fit scores of shape {scores.shape}.")
    for index, (row, own) in enumerate(zip(rows, numbers, strict=True)):
        if not all(isinstance(token, str) for token in row):
            raise TrainingError(f"Tokens must be strings, found {row!r}.")
        if len(row) > len(own) or not np.isfinite(own[: len(row)]).all():
            finite = np.isfinite(own).sum()
            raise TrainingError(f"Row {index} has {len(row)} tokens and {finite} finite scores of {len(own)}.")
        yield [(token, float(score)) for token, score in zip(row, own, strict=False)]


def _strongest(rows: Sequence[Sequence[tuple[str, float]]]) -> float:
    return max((abs(score) for row in rows for _, score in row), default=0.0) or 1.0
