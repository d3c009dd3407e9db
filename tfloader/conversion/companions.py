"""What is written beside the tensors: the config in the target's dialect, the tokenizer, the generation defaults."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from tfloader.checkpoints.base import folder_of
from tfloader.config import NOT_MATHEMATICS, differing_fields
from tfloader.conversion.source import Source
from tfloader.errors import ConfigError, TokenizerError
from tfloader.files import read_json, write_json
from tfloader.naming import read_config
from tfloader.naming.release import Release
from tfloader.naming.writing import GENERATION, config_to_write, write_tokenizer
from tfloader.tokenizers import load_tokenizer
from tfloader.tokenizers.loading import kinds_of_tokenizer
from tfloader.tokenizers.wordpiece import Tokenizer

# Keys that describe the file they stand in; they are written anew, or not at all.
OF_THE_FILE = {"architectures", "dtype", "torch_dtype", "transformers_version", "tfloader", "auto_map", "_commit_hash"}


def translated_config(
    source: Source, release: Release, shapes: Mapping[str, tuple[int, ...]]
) -> tuple[dict[str, Any], list[str]]:
    """The config in the target's dialect, and which fields, none of them mathematics, that has no keys for.

    In the same dialect, harmless keys stay. `shapes` are those of the target's tensors.

    Raises:
        ConfigError: the dialect cannot express what the model computes.
    """
    written = config_to_write(source.config, release)
    dialect = release.dialect_for(written, release.written_config)
    if dialect is source.release.dialect_for(source.raw_config, source.config_file) and source.keep_tokens is None:
        written |= {
            key: value
            for key, value in source.raw_config.items()
            if key not in written and key not in OF_THE_FILE and dialect.is_harmless(key)
        }
    again = read_config(release, written, shapes)
    lost = differing_fields(again, source.config)
    wrong = [name for name in lost if name == "application" or name not in NOT_MATHEMATICS]
    if wrong:
        found = "; ".join(f"{name} = {getattr(source.config, name)!r}" for name in wrong)
        raise ConfigError(f"{release.written_config} of a {release.title} has no words for {found}.")
    pairs = ((name, getattr(source.config, name), getattr(again, name)) for name in lost if name != "model_type")
    return written, [f"{name} = {ours!r} (there it means {theirs!r})" for name, ours, theirs in pairs]


def tokenizer_of(source: Source, given: str | os.PathLike[str] | bool | None) -> Any | None:
    """The tokenizer that goes along; None where there is none, or none is wanted.

    Args:
        given: its path; None or True: the one beside the source, False: none.

    Raises:
        TokenizerError: it cannot be read, cut as the embedding is, or does not belong to the model.
    """
    path = given if isinstance(given, str | os.PathLike) else source.path
    beside = given is None or given is True
    if given is False or (beside and not kinds_of_tokenizer(os.listdir(folder_of(source.path)))):
        return None
    config = source.config
    try:
        tokenizer = load_tokenizer(path, config.model_type or config.family)
        if beside:
            tokenizer = _cut(tokenizer, source.keep_tokens)
        if tokenizer.vocab_size > config.vocab_size:
            raise TokenizerError(
                f"the tokenizer has {tokenizer.vocab_size} tokens, but the embedding only {config.vocab_size} rows; "
                "they do not belong together."
            )
    except TokenizerError as error:
        raise TokenizerError(f"{error} (With tokenizer=False, --no-tokenizer, none goes along.)") from error
    return tokenizer


def _cut(tokenizer: Any, keep: Sequence[int] | None) -> Any:
    if keep is None:
        return tokenizer
    if type(tokenizer) is not Tokenizer:
        raise TokenizerError(
            f"a {type(tokenizer).__name__} cannot be cut to keep_tokens. Give the tokenizer of the smaller vocabulary, "
            "or say that none is to go along."
        )
    roles = tokenizer.special_tokens
    vocab = {tokenizer.id_to_token(old): new for new, old in enumerate(keep) if old < tokenizer.vocab_size}
    kept = Tokenizer(
        vocab,
        tokenizer.do_lower_case,
        roles.get("cls"),
        roles.get("sep"),
        roles["unk"],
        roles.get("pad", "[PAD]"),
        roles.get("mask", "[MASK]"),
        word_maxlen=tokenizer.word_maxlen,
        strip_accents=tokenizer.strip_accents,
        tokenize_chinese_chars=tokenizer.tokenize_chinese_chars,
        special_tokens=tokenizer.keeps_special_tokens,
        added_tokens=[token for content, token in tokenizer.added_tokens.items() if content in vocab],
    )
    kept.padding_side, kept.truncation_side = tokenizer.padding_side, tokenizer.truncation_side
    return kept


def generation_defaults(source: Source) -> dict[str, Any] | None:
    """The content of generation_config.json; None where there is none, or its ids are no longer the vocabulary's."""
    path = os.path.join(folder_of(source.path), GENERATION)
    return read_json(path) if os.path.exists(path) and source.keep_tokens is None else None


def write(folder: str, tokenizer: Any | None, release: Release | None, generation: Mapping[str, Any] | None) -> None:
    """Writes the tokenizer's files, under a release's names of them, and the generation defaults."""
    write_tokenizer(folder, tokenizer, release)
    if generation is not None:
        write_json(os.path.join(folder, GENERATION), dict(generation))
