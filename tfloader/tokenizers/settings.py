"""tokenizer_config.json: each key is honoured, or harmless, or refused by name."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from typing import Any

from tfloader.errors import TokenizerError, listing
from tfloader.files import read_json
from tfloader.tokenizers.base import ROLES, BaseTokenizer

Settings = dict[str, Any]

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
COMMON |= {"tokenizer_class", "padding_side", "truncation_side", "split_special_tokens", "added_tokens_decoder"}
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
    name = _typed(config, "tokenizer_class", str, None)
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
    return _typed(config, key, bool, default)


def number(config: Settings, key: str, default: Any) -> Any:
    """A key that is a whole number from 0 on."""
    value = _typed(config, key, int, default)
    if value is not None and (isinstance(value, bool) or value < 0):
        raise TokenizerError(f"tokenizer_config.json: {key} must be a number from 0 on, found {value!r}.")
    return value


def special(config: Settings, role: str, default: str | None) -> str | None:
    """The token of a role, which null takes away."""
    key = f"{role}_token"
    content = _content(config.get(key, default))
    return None if content is None else _typed({key: content}, key, str, None)


def specials(config: Settings) -> dict[str, str]:
    """The tokens of all roles that the config gives."""
    found = {role: special(config, role, None) for role in ROLES}
    return {role: token for role, token in found.items() if token is not None}


def check_added(tokenizer: BaseTokenizer, folder: str, names: Collection[str], config: Settings) -> None:
    """Refuses tokens that the folder adds to the vocabulary, unless they are in it at just that id."""
    added: list[tuple[Any, Any]] = []
    if "added_tokens.json" in names:
        added += read_json(os.path.join(folder, "added_tokens.json"), TokenizerError).items()
    for id, token in (_typed(config, "added_tokens_decoder", dict, None) or {}).items():
        added.append((_content(token), int(id) if id.isdecimal() and len(id) < 12 else id))
    for key in ("additional_special_tokens", "extra_special_tokens"):
        value = config.get(key) or []
        listed = value.values() if isinstance(value, Mapping) else _typed(config, key, list, None) or []
        added += [(_content(token), "somewhere") for token in listed]

    def there(token: Any, id: Any) -> bool:
        found = tokenizer._find(token) if isinstance(token, str) else None
        return found is not None and (id == "somewhere" or found == id)

    wrong = [f"{token!r}: {id}" for token, id in added if not there(token, id)]
    if wrong:
        raise TokenizerError(
            f"{folder}: tokens were added that the vocabulary does not have at these ids:\n{listing(wrong)}\n"
            "Put them into the vocabulary file, or give the path of tokenizer.json if there is one."
        )


def _content(token: Any) -> Any:
    return token.get("content") if isinstance(token, Mapping) else token


def _typed(config: Settings, key: str, kind: type, default: Any) -> Any:
    value = config.get(key)
    if value is None:
        return default
    if not isinstance(value, kind):
        raise TokenizerError(f"tokenizer_config.json: {key} must be of the type {kind.__name__}, found {value!r:.80}.")
    return value
