"""Two tokenizers in one folder must be one: other programs take tokenizer.json, and nobody knows which is right."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from tfloader.errors import TokenizerError, listing
from tfloader.files import MAX_TEXT_BYTES, read_json, read_text, show
from tfloader.tokenizers.base import BaseTokenizer
from tfloader.tokenizers.bounds import border
from tfloader.tokenizers.fast import JsonTokenizer, open_json
from tfloader.tokenizers.vocabulary import load_vocab

JSON = "tokenizer.json"
# Of these all programs make the same tokens, if they go by the same vocabulary and rules.
TEXTS = ("Hello, World!", "It's 3.14 of the unbelievable MAPS", "今天天气很好。", "naïve Ärger", "a-b_c@d.org")


def check_agreement(tokenizer: BaseTokenizer, folder: str, names: Collection[str], splits_special_tokens: bool) -> None:
    """Refuses a folder with a tokenizer.json and other files that say something else.

    Args:
        tokenizer: what one of them gave.
        names: of the files in the folder, tokenizer.json among them.
        splits_special_tokens: what the folder's config says of special tokens in a text.
    """
    if isinstance(tokenizer, JsonTokenizer):
        differences = [*_other_numbers(tokenizer, folder, names)]
    else:
        path = os.path.join(folder, JSON)
        rust = open_json(read_text(path, TokenizerError), path)
        rust.no_truncation()
        rust.no_padding()
        rust.encode_special_tokens = splits_special_tokens
        with border(path):
            differences = [*_differences(tokenizer, rust)]
    if differences:
        raise TokenizerError(
            f"{folder}: {JSON} and the other files of a tokenizer are not the same:\n{listing(differences, 5)}\n"
            "Give the path of the file that belongs to the model, or remove what does not."
        )


def _other_numbers(tokenizer: JsonTokenizer, folder: str, names: Collection[str]) -> Iterator[str]:
    known: dict[str, Mapping[str, Any]] = {}
    if "vocab.txt" in names:
        known["vocab.txt"] = load_vocab(os.path.join(folder, "vocab.txt"))
    if {"vocab.json", "merges.txt"} <= set(names):
        known["vocab.json"] = read_json(os.path.join(folder, "vocab.json"), TokenizerError, MAX_TEXT_BYTES)
    for name, vocab in known.items():
        for token, id in vocab.items():
            if tokenizer._find(token) != id:
                yield f"{show(token)}: {tokenizer._find(token)} in {JSON}, {id} in {name}"


def _differences(tokenizer: BaseTokenizer, rust: Any) -> Iterator[str]:
    theirs = rust.get_vocab(with_added_tokens=True)
    for token, id in theirs.items():
        if tokenizer._find(token) != id:
            yield f"{show(token)}: {id} in {JSON}, else {tokenizer._find(token)}"
    if len(theirs) < tokenizer.vocab_size:
        yield f"{JSON} has {len(theirs)} tokens, the others {tokenizer.vocab_size}"
    added = {token.content for token in rust.get_added_tokens_decoder().values()}
    for text in (*TEXTS, *sorted(added - set(tokenizer.special_tokens.values()))):
        ours, found = tokenizer._ids([text])[0], rust.encode(text, add_special_tokens=False).ids
        if ours != found:
            yield f"{show(text)} gives {found} by {JSON}, else {ours}"
