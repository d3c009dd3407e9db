"""`tfloader generate`, a command of tfloader.cli. What is heavy is imported when it runs."""

from __future__ import annotations

import argparse
import ast
import itertools
import os
import re
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import tfloader
from tfloader import assets
from tfloader.errors import ArgumentError, ConfigError
from tfloader.terminal import json_line


def generate(options: argparse.Namespace) -> int:
    """Continue prompts with a language model (T5: answer sources).

    The first argument is the model's path if there is such a path, or if it holds a path separator or nothing but
    ASCII; otherwise it is a prompt already, and the model is the small one of classical Chinese poems that comes with
    tfloader. Prompts come from the command line, from a file with one a line, or from both. Prints each prompt with
    its continuation, or one JSON object a line with --json.

    Options of generation have Hugging Face's names; those without a flag of their own are given as
    --option NAME=VALUE. What is not given is as the folder's generation_config.json says, if it has one.

    Example:
      tfloader generate gpt2-124M "The quick brown fox" --sample --top-p 0.9 --stream
      tfloader generate 春江潮水
    """
    from tfloader.checkpoints.base import folder_of
    from tfloader.files import read_text
    from tfloader.generation.defaults import FILE, with_defaults

    path, prompts = _model_and_prompts(options.given)
    if options.prompts:
        # Not splitlines, which also cuts at characters that texts may hold, such as U+2028.
        prompts += [line for line in re.split("\r\n|\r|\n", read_text(options.prompts)) if line.strip()]
    if not prompts:
        raise ArgumentError("There is no prompt: give one as an argument, or a file with --prompts FILE.")
    asked = _options_of_generation(options)
    file = os.path.join(folder_of(path), FILE)
    defaults = tfloader.load_generation_config(file) if os.path.isfile(file) and not options.no_defaults else {}
    try:
        tfloader.GenerationOptions.of(**with_defaults(asked, defaults))  # before the model is loaded
    except ConfigError as reason:
        raise ArgumentError(str(reason)) from reason
    load = {"application": options.application} if options.application else {}
    model = tfloader.load(path, model=options.model, dtype=options.dtype, **load)
    tokenizer = tfloader.load_tokenizer(path, model.transformer.config.family)
    if not options.given or path != options.given[0]:
        _refuse_unknown_characters(tokenizer, prompts)
    generator = tfloader.TextGenerator(model, tokenizer, defaults)
    answers = model.transformer.answers_sources  # nothing is continued: the text stands alone
    if options.stream:
        for (prompt,), settings in _batches(generator, prompts, 1, asked):
            print("" if answers else prompt, end="", flush=True)
            for piece in generator.stream(prompt, **settings):
                print(piece, end="", flush=True)
            print()
        return 0
    progress = _progress(len(prompts))
    for batch, settings in _batches(generator, prompts, options.batch_size, asked):
        for prompt, texts in zip(batch, generator.generate(batch, **settings), strict=True):
            for text in [texts] if isinstance(texts, str) else texts:
                if options.json:
                    print(json_line({"prompt": prompt, "text": text}), flush=True)
                else:
                    print(text if answers else prompt + text, flush=True)
        progress(len(batch))
    return 0


def _model_and_prompts(given: Sequence[str]) -> tuple[str, list[str]]:
    """What `generate` says about its first argument."""
    first = given[0] if given else ""
    if first and (os.path.exists(first) or first.isascii() or {os.sep, os.altsep} & set(first)):
        return first, list(given[1:])
    return assets.path(), list(given)


def _options_of_generation(options: argparse.Namespace) -> dict[str, Any]:
    """Those that the command line names."""
    asked: dict[str, Any] = {"do_sample": True} if options.sample else {}
    for name in ("max_new_tokens", "temperature", "top_k", "top_p", "num_beams", "seed"):
        asked |= {name: getattr(options, name)} if getattr(options, name) is not None else {}
    for item in options.option:
        name, _, value = item.partition("=")
        try:
            asked[name] = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            asked[name] = value
    return asked


def _refuse_unknown_characters(tokenizer: Any, prompts: Sequence[str]) -> None:
    characters = dict.fromkeys("".join(prompts))
    unknown = [item for item in characters if tokenizer.unk_token_id in tokenizer.encode(item)[0]]
    if unknown:
        raise ConfigError(
            f"The model in the box does not know {' '.join(unknown[:20])}. It has learned classical poems in "
            "simplified characters: write these otherwise, or name another model first."
        )


def _batches(
    generator: Any, prompts: Sequence[str], size: int, asked: dict[str, Any]
) -> Iterator[tuple[list[str], dict[str, Any]]]:
    """Prompts to be decoded together, and their options: a number of new tokens that nobody asked for gives way."""
    settings = generator.options(asked)

    def new_tokens(prompt: str) -> int:
        room = generator.room(prompt)
        if room is None or "max_new_tokens" in asked or settings.sliding_context:
            return settings.max_new_tokens
        return min(settings.max_new_tokens, max(room, 1))

    for new, group in itertools.groupby(prompts, new_tokens):
        group = list(group)
        for start in range(0, len(group), size):
            yield group[start : start + size], asked | {"max_new_tokens": new}


def _progress(total: int) -> Any:
    """A function that shows that so many more of `total` are done; nothing where stderr is no terminal."""
    if not sys.stderr.isatty() or total < 2:
        return lambda more: None
    from keras.utils import Progbar

    return Progbar(total, unit_name="prompt").add
