"""The border to native code: what a tokenizer.json may ask of it, and what it refuses, in our words.

A small file can cost gigabytes or hours, in calls that no signal interrupts; so it is judged before a text is encoded.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from tfloader.errors import TokenizerError, listing

MOST = 1000
WORD = "max_input_chars_per_word"  # WordPiece's time grows with the cube of a word's length


def _replace(step: Mapping[str, Any]) -> int:
    content, pattern = len(step["content"]), step["pattern"]
    if pattern.get("String"):
        return max(1, math.ceil(content / len(pattern["String"])))
    return 1 + content  # a regular expression may match one character, or none


def _template(step: Mapping[str, Any]) -> int:
    texts = sum("Sequence" in piece for piece in (*step["single"], *step["pair"]))
    return max(1, texts - 2)  # there are three where each is taken once


# How many times longer a step may make a text, where it can.
GROWTH: dict[str, Callable[[Mapping[str, Any]], int]] = {
    "Replace": _replace,
    "Prepend": lambda step: 1 + len(step["prepend"]),
    "ByteLevel": lambda step: 4,
    "Precompiled": lambda step: 32,
    "TemplateProcessing": _template,
}
STEPS = ("normalizers", "pretokenizers", "processors", "decoders")


def _growth(step: Mapping[str, Any] | None) -> int:
    step = step or {}
    inner = (each for key in STEPS for each in step.get(key) or ())
    return math.prod(map(_growth, inner), start=GROWTH.get(step.get("type", ""), lambda _: 1)(step))


def check_cost(path: str, content: Mapping[str, Any]) -> None:
    """Refuses a file that the library can read, but that would cost too much to use."""
    parts = ("normalizer", "pre_tokenizer", "post_processor", "decoder")
    try:
        growth = {f"{part} may make a text this many times longer": _growth(content.get(part)) for part in parts}
        asked = {**growth, WORD: content["model"].get("max_input_chars_per_word", 0)}
        problems = [f"{what}: {min(count, 10**12)}" for what, count in asked.items() if count > MOST]
    except (KeyError, TypeError, AttributeError) as reason:
        problems = [f"it has a step of an unknown form ({reason!r})"]
    if problems:
        raise TokenizerError(
            f"{path}: it asks for more than is feasible, at most {MOST}:\n{listing(problems)}\nDownload it again."
        )


@contextlib.contextmanager
def border(doing: str) -> Iterator[None]:
    """What the Rust library raises becomes ours; its panics are no Exceptions. What Python says of arguments stays."""
    try:
        yield
    except (TypeError, UnicodeError, TokenizerError, KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except BaseException as reason:
        raise TokenizerError(
            f"{doing}: the tokenizers library fails ({str(reason)[:200]}). If a file is at fault, download it "
            "again, or install a newer tokenizers."
        ) from reason


def checked(native: Callable[[Any], Any], texts: Any, name: str = "texts") -> Any:
    """Runs native code on texts, and explains in our words why it refused one."""
    try:
        return native(texts)
    except (TypeError, RuntimeError, UnicodeError, AttributeError):
        for i, text in enumerate(texts if isinstance(texts, (list, tuple)) else [texts]):
            where = f"{name}[{i}]"
            if not isinstance(text, str):
                raise TokenizerError(f"{where}: expected a string, found {type(text).__name__}.") from None
            lone = next((j for j, c in enumerate(text) if 0xD800 <= ord(c) <= 0xDFFF), None)
            if lone is not None:
                raise TokenizerError(
                    f"{where}: the character {lone} is half of a surrogate pair, which is not valid "
                    "Unicode. Read the text with the right encoding, or drop that character."
                ) from None
        raise
