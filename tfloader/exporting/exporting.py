"""`export`: checks the request before a model is loaded, then gathers the model and writes it."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from typing import Any

from tfloader.border import public


@public
def export(
    model: Any,
    folder: str | os.PathLike[str],
    to: str = "savedmodel",
    *,
    tokenizer: Any = None,
    dtype: str | None = None,
    keep_tokens: str | os.PathLike[str] | Sequence[int] | None = None,
    ignore: str | Collection[str] = (),
    text: bool | None = None,
    max_length: int | None = None,
    decoding: bool | None = None,
    verify: bool | None = None,
) -> list[Any]:
    """Writes a model for programs that know neither tfloader nor Keras.

    The folder appears as a whole, or not at all. In it: the model, `signatures.json` (names, shapes and dtypes of
    inputs and outputs), config, tokenizer files and generation defaults. Signatures:

    - `serving_default`: the model as it is called. Inputs are `input_ids`, `token_type_ids`, `attention_mask`,
      `position_ids`, `decoder_input_ids` as far as the model has them, int32 with batch and length open.
    - `serving_text`: strings [batch] in place of the ids (SavedModel and WordPiece only); also returns `input_ids`
      and `attention_mask`.
    - `prefill`, `step`: cached decoding of a language model; see `tfloader.exporting.decoding`. In ONNX
      what a step gives for the next one is called `next_cache` and `next_mask`.

    Args:
        model: a functional Keras model with tfloader's layers, or the path of a checkpoint: what `load` gives for it.
        folder: it is made; it must not be there yet, or be empty.
        to: "savedmodel", "onnx" (needs `pip install tfloader[onnx]`) or "litert".
        tokenizer: a tokenizer, or its path; None: the one beside a path, False: none.
        dtype: for a path: what to load it in (float32). ONNX and LiteRT take float32 only.
        keep_tokens: for a path: ids of the tokens to keep, or a file of them.
        ignore: for a path: patterns of tensors that may stay unread, such as "classifier.*".
        text: whether there is a signature that takes strings; None: if the tokenizer can be expressed exactly.
        max_length: cuts longer texts to so many tokens, as the tokenizer does; None: more tokens than the model has
            positions are an error.
        decoding: whether there are `prefill` and `step`; None: if the model is a language model.
        verify: runs what was written on random input beside the model, and refuses to make the folder if they differ;
            None: for models up to 1 GB.

    Returns:
        What was checked, as a list of `tfloader.checks.Check`, one a signature with the largest difference.

    Raises:
        ConversionError: the folder is taken, a package is missing, the format cannot hold this model, or what was
            written gives other numbers.
        ConfigError, TokenizerError: `decoding=True` or `text=True` is not possible.
    """
    from tfloader.exporting.writing import Export, check, gathered

    folder, source = os.fspath(folder), os.fspath(model) if isinstance(model, (str, os.PathLike)) else None
    check(to, folder, source, text)
    found = gathered(model, tokenizer, dtype, keep_tokens, ignore)
    return Export(*found, text, max_length, decoding).write(folder, to, verify)
