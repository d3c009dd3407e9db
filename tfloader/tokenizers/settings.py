"""tokenizer_config.json: each key is honoured, or harmless, or refused by name."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from typing import Any

from tfloader.errors import TokenizerError, listing
from tfloader.files import read_json

Settings = dict[str, Any]
ROLES = ("pad", "unk", "bos", "eos", "cls", "sep", "mask")

# Keys that do not change which ids a text gets, or that every call decides anew.
HARMLESS = {
    "add_special_tokens", "backend", "chat_template", "clean_up_tokenization_spaces", "do_tokenize",
    "full_tokenizer_file", "init_inputs", "is_local", "legacy", "local_files_only", "max_len",
    "max_length", "merges_file", "model_input_names", "model_max_length", "name_or_path",
    "pad_to_multiple_of", "pad_token_type_id", "processor_class", "return_token_type_ids",
    "special_tokens_map_file", "stride", "tokenizer_file", "transformers_version", "trim_offsets",
    "truncation_strategy", "use_fast", "vocab_file", "vocab_size",
}  # fmt: skip
# Keys that every kind of tokenizer honours.
COMMON = {f"{role}_token" for role in ROLES} | {"additional_special_tokens", "extra_special_tokens"}
COMMON |= {
    "tokenizer_class",
    "token_start",
    "token_end",
    "padding_side",
    "truncation_side",
    "split_special_tokens",
    "added_tokens_decoder",
}
# Keys that are understood in these values only.
NEUTRAL: Settings = {
    "add_bos_token": (None, False),
    "add_eos_token": (None,),
    "add_prefix_space": (None, False),
    "auto_map": (None,),
    "do_basic_tokenize": (None, True),
    "do_lower_case": (None, False),
    "errors": (None, "replace"),
    "never_split": (None, []),
    "normalization": (None, False),
    "sp_model_kwargs": (None, {}),
    "wordpieces_prefix": (None, "##"),
}
GENERIC_CLASSES = {None, "PreTrainedTokenizerFast", "TokenizersBackend", "PreTrainedTokenizer"}


def read_settings(folder: str, names: Collection[str]) -> Settings:
    """The keys of tokenizer_config.json, and of special_tokens_map.json where the former is silent."""
    config: Settings = {}
    for name in ("special_tokens_map.json", "tokenizer_config.json"):  # the latter wins
        if name in names:
            config |= read_json(os.path.join(folder, name), TokenizerError)
    return config


def class_name(config: Settings) -> str | None:
    """The tokenizer class that a config names, without "Fast"."""
    name = typed(config, "tokenizer_class", str, None)
    return name if name is None or name in GENERIC_CLASSES else name.removesuffix("Fast")


def check(config: Settings, file: str, honoured: Collection[str], classes: Collection[str | None]) -> None:
    """Refuses, all at once, what a config asks for and this kind of tokenizer does not do."""
    problems = []
    for key, value in config.items():
        if key == "tokenizer_class" and class_name(config) not in {*classes, *GENERIC_CLASSES}:
            problems.append(f"tokenizer_class {value!r}: expected one of {', '.join(sorted(filter(None, classes)))}")
        elif not (key in honoured or key in COMMON or key in HARMLESS or value in NEUTRAL.get(key, ())):
            reason = f"only {NEUTRAL[key][-1]!r} is implemented" if key in NEUTRAL else "not a key that is known here"
            problems.append(f"{key}={str(value)[:60]!r}: {reason}")
    if problems:
        folder, name = os.path.split(file)
        raise TokenizerError(
            f"{folder}: tokenizer_config.json asks for what {name} would not give:\n{listing(problems)}\n"
            "Remove the keys if they do no harm, or give the path of tokenizer.json if there is one."
        )


def flag(config: Settings, key: str, default: Any) -> Any:
    """A key that is true or false; null or a missing key means the default."""
    return typed(config, key, bool, default)


def number(config: Settings, key: str, default: Any, most: int) -> Any:
    """A key that is a whole number from 0 to `most`."""
    value = typed(config, key, int, default)
    if value is not None and (isinstance(value, bool) or not 0 <= value <= most):
        raise TokenizerError(f"tokenizer_config.json: {key} must be a number from 0 to {most}, found {value!r:.80}.")
    return value


def around(config: Settings, start: str | None, end: str | None) -> tuple[str | None, str | None]:
    """What stands around a text: what our own `save` has written, or else the usual tokens."""
    usual = {"token_start": start, "token_end": end}
    start, end = (typed(config, key, str, None) if key in config else token for key, token in usual.items())
    return start, end


def special(config: Settings, role: str, default: str | None) -> str | None:
    """The token of a role, which null takes away."""
    key = f"{role}_token"
    content = config.get(key, default)
    content = content.get("content") if isinstance(content, Mapping) else content
    return None if content is None else typed({key: content}, key, str, None)


def specials(config: Settings) -> dict[str, str]:
    """The tokens of all roles that the config gives."""
    found = {role: special(config, role, None) for role in ROLES}
    return {role: token for role, token in found.items() if token is not None}


def typed(config: Settings, key: str, kind: type, default: Any) -> Any:
    value = config.get(key)
    if value is None:
        return default
    if not isinstance(value, kind):
        raise TokenizerError(f"tokenizer_config.json: {key} must be of the type {kind.__name__}, found {value!r:.80}.")
    return value
