"""What each generation option may be, and which do not go together."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from tfloader.config import ids_of
from tfloader.generation.trie import Trie
from tfloader.suggestions import did_you_mean

FILTERS = ("temperature", "top_k", "top_p", "min_p", "typical_p")
# Options that one strategy alone uses: (its name, how to ask for it, when it is on, the options).
USED_BY: tuple[tuple[str, str, Callable[[Mapping[str, Any]], bool], tuple[str, ...]], ...] = (
    ("sampling", "do_sample=True", lambda o: o["do_sample"], ("temperature", "top_p", "min_p", "typical_p")),
    (
        "sampling or contrastive search",
        "do_sample=True or penalty_alpha",
        lambda o: o["do_sample"] or o["penalty_alpha"] is not None,
        ("top_k",),
    ),
    ("beam search", "num_beams above 1", lambda o: o["num_beams"] > 1, ("length_penalty", "early_stopping")),
    ("diverse beam search", "num_beam_groups above 1", lambda o: o["num_beam_groups"] > 1, ("diversity_penalty",)),
)
# Names that other libraries use, or that Hugging Face has and we give another meaning or none.
OTHER_NAMES = {
    "max_length": "max_new_tokens (which does not count the prompt)",
    "min_length": "min_new_tokens (which does not count the prompt)",
    "output_scores": "return_scores",
    "beam_size": "num_beams",
    "stop": "stop_strings",
}
MOST = 2**31 - 1  # ids and counts are int32 in the graph
LARGE = 1e30  # scores are float32 there: products with more would be infinite


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
    if values["penalty_alpha"] is not None and (sample or beams > 1):
        yield "penalty_alpha asks for contrastive search, which neither do_sample nor num_beams goes with"
    if values["penalty_alpha"] is not None and (values["top_k"] or 1) < 2:
        yield "penalty_alpha needs top_k, how many candidates contrastive search compares: at least 2"
    if beams % values["num_beam_groups"]:
        yield "num_beams={num_beams} is not a multiple of num_beam_groups={num_beam_groups}".format(**values)
    if values["num_beam_groups"] > 1 and not values["diversity_penalty"]:
        yield "num_beam_groups needs a diversity_penalty above 0: without it all groups find the same"
    if abs(values["length_penalty"]) * math.log(values["max_new_tokens"]) > math.log(LARGE):
        yield "length_penalty={length_penalty}: length ** length_penalty is out of range for float32".format(**values)
    for strategy, remedy, is_on, names in USED_BY:
        without_effect = [name for name in names if name in given]
        if without_effect and not is_on(values):
            yield f"only {strategy} uses {', '.join(without_effect)}: add {remedy}, or leave it out"
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
    hint = f"; did you mean {OTHER_NAMES[name]}?" if name in OTHER_NAMES else did_you_mean(name, defaults)
    return f"unknown option {name!r}{hint}"


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


def _several(test: Callable[[Any], Any]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, tuple) and len(value) > 0 and all(map(test, value))


_is_ids = _several(_is_integer)


def _whole(least: int) -> tuple[str, Callable]:
    return f"a whole number from {least} to {MOST}", lambda value: _is_integer(value, least)


def _real(words: str, test: Callable[[float], bool]) -> tuple[str, Callable]:
    return words, lambda value: _is_real(value) and test(value)


def _positive(hint: str = "") -> tuple[str, Callable]:
    return _real(f"above 0, from {1 / LARGE:g} to {LARGE:g}{hint}", lambda value: 1 / LARGE <= value <= LARGE)


SWITCH = ("True or False", lambda value: isinstance(value, bool))
FRACTION = _real("above 0 and at most 1", lambda value: 0 < value <= 1)
ONE_OR_MORE_IDS = ("a token id or several", lambda value: _is_integer(value) or _is_ids(value))

# name -> what its value must be, in words and as a test
RULES: dict[str, tuple[str, Callable]] = {
    "do_sample": SWITCH,
    "num_beams": _whole(1),
    "num_beam_groups": _whole(1),
    "num_return_sequences": _whole(1),
    "max_new_tokens": _whole(1),
    "min_new_tokens": _whole(0),
    "temperature": _positive(" (for greedy search say do_sample=False)"),
    "top_k": _whole(1),
    "top_p": FRACTION,
    "min_p": _real("from 0 to 1", lambda value: 0 <= value <= 1),
    "typical_p": FRACTION,
    "penalty_alpha": FRACTION,
    "repetition_penalty": _positive(),
    "no_repeat_ngram_size": _whole(0),
    "length_penalty": _real("a finite number", lambda value: True),
    "diversity_penalty": _real(f"from 0 to {LARGE:g}", lambda value: 0 <= value <= LARGE),
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
    "sliding_context": _whole(1),
    "seed": (
        f"a whole number from 0 to {MOST}, or one for each prompt",
        lambda value: _is_integer(value) or _is_ids(value),
    ),
    "return_scores": SWITCH,
}
