"""What each generation option may be, and which do not go together."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from tfloader.generation.trie import Trie

ONLY_SAMPLING = ("temperature", "top_k", "top_p", "min_p", "typical_p")
ONLY_BEAMS = ("length_penalty", "early_stopping")
# Names that other libraries use, or that Hugging Face has and we give another meaning or none.
OTHER_NAMES = {
    "max_length": "max_new_tokens (which does not count the prompt)",
    "min_length": "min_new_tokens (which does not count the prompt)",
    "output_scores": "return_scores",
    "beam_size": "num_beams",
    "stop": "stop_strings",
}
MOST = 2**31 - 1  # ids and counts are int32 in the graph


def wrong_values(values: Mapping[str, Any], defaults: Mapping[str, Any]) -> Iterator[str]:
    """What is wrong with single values; None is right where it is the default."""
    for name, value in values.items():
        words, test = RULES[name]
        off = defaults[name] is None
        if not (off and value is None) and not test(value):
            yield f"{name} must be {words}{', or None' if off else ''}; found {value!r}"


def conflicts(values: Mapping[str, Any], defaults: Mapping[str, Any]) -> Iterator[str]:
    """What possible values cannot mean together."""
    given = {name: value for name, value in values.items() if value is not None and value != defaults[name]}
    sample, beams = values["do_sample"], values["num_beams"]
    if values["min_new_tokens"] > values["max_new_tokens"]:
        yield "min_new_tokens={min_new_tokens} is more than max_new_tokens={max_new_tokens}".format(**values)
    if sample and beams > 1:
        yield "beam search with sampling is not implemented: choose do_sample=True or num_beams above 1"
    without_effect = [name for name in ONLY_SAMPLING if name in given]
    if without_effect and not sample:
        yield f"only sampling uses {', '.join(without_effect)}: add do_sample=True, or leave it out"
    without_effect = [name for name in ONLY_BEAMS if name in given]
    if without_effect and beams == 1:
        yield f"only beam search uses {', '.join(without_effect)}: add num_beams above 1, or leave it out"
    if not sample and values["num_return_sequences"] > beams:
        yield (
            "num_return_sequences={num_return_sequences} is more than num_beams={num_beams}, and without sampling "
            "there are no others: raise num_beams, or add do_sample=True".format(**values)
        )
    suppressed, stops = set(ids_of(values["suppress_tokens"])), set(ids_of(values["eos_token_id"]))
    for name in ("forced_bos_token_id", "forced_eos_token_id"):
        both = suppressed & set(ids_of(values[name]))
        if both:
            yield f"{name} and suppress_tokens both name {sorted(both)}"
    banned = stops & {word[0] for word in values["bad_words_ids"] or () if len(word) == 1}
    if banned:
        yield f"bad_words_ids forbids the stop token {sorted(banned)}: say eos_token_id=None to never stop"


def unknown_name(name: str, defaults: Mapping[str, Any]) -> str:
    """Says that there is no such option, and which may have been meant."""
    near = [OTHER_NAMES[name]] if name in OTHER_NAMES else difflib.get_close_matches(name, defaults, n=1)
    return f"unknown option {name!r}" + (f"; did you mean {near[0]}?" if near else "")


def ids_of(value: Any) -> tuple[int, ...]:
    """An id, several or None as a tuple."""
    if value is None:
        return ()
    return value if isinstance(value, tuple) else (value,)


def plain(name: str, value: Any) -> Any:
    """Python's own numbers, and tuples in place of lists and arrays; an empty list is None."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, list | tuple):
        return tuple(plain("", item) for item in value) or (None if name else ())
    return (value,) if name in ("logits_processor", "stop_strings") and value is not None else value


def _is_integer(value: Any, least: int = 0) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= MOST


def _is_real(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_ids(value: Any) -> bool:
    return isinstance(value, tuple) and len(value) > 0 and all(map(_is_integer, value))


def _several(test: Callable[[Any], Any]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, tuple) and len(value) > 0 and all(map(test, value))


def _whole(least: int) -> tuple[str, Callable]:
    return f"a whole number from {least} to {MOST}", lambda value: _is_integer(value, least)


def _real(words: str, test: Callable[[float], bool]) -> tuple[str, Callable]:
    return words, lambda value: _is_real(value) and test(value)


SWITCH = ("True or False", lambda value: isinstance(value, bool))
FRACTION = _real("above 0 and at most 1", lambda value: 0 < value <= 1)
ONE_OR_MORE_IDS = ("a token id or several", lambda value: _is_integer(value) or _is_ids(value))

# name -> what its value must be, in words and as a test
RULES: dict[str, tuple[str, Callable]] = {
    "do_sample": SWITCH,
    "num_beams": _whole(1),
    "num_return_sequences": _whole(1),
    "max_new_tokens": _whole(1),
    "min_new_tokens": _whole(0),
    "temperature": _real("above 0 (for greedy search say do_sample=False)", lambda value: value > 0),
    "top_k": _whole(1),
    "top_p": FRACTION,
    "min_p": _real("from 0 to 1", lambda value: 0 <= value <= 1),
    "typical_p": FRACTION,
    "repetition_penalty": _real("above 0", lambda value: value > 0),
    "no_repeat_ngram_size": _whole(0),
    "length_penalty": _real("a finite number", lambda value: True),
    "early_stopping": ('False, True or "never"', lambda value: isinstance(value, bool) or value == "never"),
    "eos_token_id": ONE_OR_MORE_IDS,
    "pad_token_id": _whole(0),
    "suppress_tokens": ("a list of token ids", _is_ids),
    "bad_words_ids": ("a list of lists of token ids, none empty", _several(_is_ids)),
    "forced_bos_token_id": _whole(0),
    "forced_eos_token_id": ONE_OR_MORE_IDS,
    "prefix_allowed_tokens_fn": ("a function or a Trie", lambda value: callable(value) or isinstance(value, Trie)),
    "logits_processor": ("functions (logits, context) -> logits", _several(callable)),
    "stop_strings": ("one text or several, none empty", _several(lambda text: isinstance(text, str) and text)),
    "seed": _whole(0),
    "return_scores": SWITCH,
}
