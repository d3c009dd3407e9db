"""What a call of generation leaves open: a Hugging Face folder's generation_config.json, in our words.

Every key of that file is an option of ours, or checked against the values that mean nothing, or harmless, or refused by
name, as the keys of a model's config are.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

from tfloader.border import public
from tfloader.config import shown
from tfloader.errors import ConfigError, listing
from tfloader.files import read_json
from tfloader.generation.option_rules import USED_BY, plain, wrong_values
from tfloader.generation.options import DEFAULTS, GenerationOptions

FILE = "generation_config.json"

# Options of ours that are no keys of the file.
OURS = {"prefix_allowed_tokens_fn", "logits_processor", "sliding_context", "seed", "return_scores"}
# Values that turn an option off there and that we have no such word for.
OFF = {"top_k": 0, "penalty_alpha": 0}
# Keys that change the result and are not implemented: the values with which they do not.
ONLY: dict[str, tuple[Any, ...]] = {
    **dict.fromkeys(("min_length", "encoder_no_repeat_ngram_size", "epsilon_cutoff", "eta_cutoff"), (0,)),
    **dict.fromkeys(("encoder_repetition_penalty", "guidance_scale"), (1,)),
    **dict.fromkeys(("remove_invalid_values", "renormalize_logits", "token_healing"), (False,)),
    "begin_suppress_tokens": ([],),
    **dict.fromkeys(("constraints", "dola_layers", "exponential_decay_length_penalty", "force_words_ids"), ()),
    **dict.fromkeys(("forced_decoder_ids", "max_time", "sequence_bias", "top_h", "watermarking_config"), ()),
}
# Book-keeping, caches, what is returned, and speculation, which finds the same tokens sooner.
HARMLESS = re.compile(
    r"_from_model_config|transformers_version|_commit_hash|trust_remote_code|bos_token_id|use_cache|cache_\w+|"
    r"max_cache_len|return_legacy_cache|output_\w+|return_dict_in_generate|low_memory|is_assistant|use_mtp|"
    r"num_assistant_tokens(_schedule)?|assistant_\w+|target_lookbehind|prompt_lookup_num_tokens|"
    r"max_matching_ngram_size|speculation_type|compile_config|disable_compile|continuous_batching_config|"
    r"prefill_chunk_size"
)
HF_MAX_LENGTH, HF_TOP_K = 20, 50  # what a silent file means
# A call that names one of these takes none of them from the defaults.
STRATEGY = ("do_sample", "num_beams", "num_beam_groups", "penalty_alpha")


@public
def load_generation_config(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Reads generation_config.json as options of `GenerationOptions`, to be the defaults of a `TextGenerator`.

    A file that samples and says nothing of top_k means 50, as in transformers; 0 or null is none.

    Args:
        path: the file, or its folder; a config.json beside it is asked for the decoder's start token.

    Raises:
        ConfigError: naming each key that is unknown, has a value that is not implemented, or contradicts another.
    """
    path = os.fspath(path)
    path = os.path.join(path, FILE) if os.path.isdir(path) else path
    raw = read_json(path)
    found: dict[str, Any] = {}
    problems = []
    for name, value in raw.items():
        if name in DEFAULTS and name not in OURS:
            if value is None or value == OFF.get(name):
                value = DEFAULTS[name]
            found[name] = value
        elif name in ONLY:
            if value is not None and not any(value == allowed for allowed in ONLY[name]):
                supported = " or ".join(map(repr, (*ONLY[name], None)))
                problems.append(f"{name} = {shown(value)} is not implemented; supported: {supported}")
        elif name == "max_length":
            if value not in (None, HF_MAX_LENGTH) and raw.get("max_new_tokens") is None:
                problems.append(f"max_length = {shown(value)} counts the prompt; only max_new_tokens is implemented")
        elif name == "decoder_start_token_id":
            if value not in (None, start := _start_token(path, value)):
                problems.append(f"{name} = {shown(value)}, but {start!r} by config.json, which is what is used")
        elif not HARMLESS.fullmatch(name):
            problems.append(f"unknown key {shown(name)} (= {shown(value)})")
    if found.get("do_sample") is True and "top_k" not in raw:
        found["top_k"] = HF_TOP_K
    if problems:
        raise ConfigError(
            f"{path}: cannot be read as a Hugging Face generation config:\n{listing(problems)}\n"
            "Correct the file, or generate without it and give the options yourself."
        )
    try:
        GenerationOptions.of(**with_defaults({}, found))
    except ConfigError as reason:
        raise ConfigError(f"{path}: {reason}") from None
    return found


def with_defaults(given: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """A call's options, and those of the defaults that it leaves open.

    A call that names a strategy (`STRATEGY`) takes none from the defaults, and options that the strategy in use has no
    use for are not taken either.
    """
    named = any(name in given for name in STRATEGY)
    taken = {name: value for name, value in defaults.items() if not (named and name in STRATEGY)}
    together = {**DEFAULTS, **taken, **given}
    if any(wrong_values({name: plain(name, value) for name, value in together.items() if name in DEFAULTS}, DEFAULTS)):
        return taken | dict(given)  # to be refused
    useless = {name for _, _, is_on, names in USED_BY if not is_on(together) for name in names}
    return {name: value for name, value in taken.items() if name not in useless} | dict(given)


def _start_token(path: str, value: Any) -> Any:
    beside = os.path.join(os.path.dirname(path), "config.json")
    config = read_json(beside) if os.path.isfile(beside) else {}
    return config.get("decoder_start_token_id", config.get("pad_token_id", value))
