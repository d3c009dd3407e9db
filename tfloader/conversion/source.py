"""A checkpoint that is to be converted or compared: opened, understood, and checked without building its model."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from tfloader.checkpoints import open_checkpoint
from tfloader.config import TransformerConfig
from tfloader.conversion.variables import Variables
from tfloader.errors import ConfigError, ConversionError
from tfloader.files import parse_json, read_text
from tfloader.inspection import Contents
from tfloader.naming import detect_release, find_config, folder_of, read_config, read_raw_config, shapes_of
from tfloader.naming.agreement import deviations, differences
from tfloader.naming.base import Row, counts

READABLE_DTYPES = ("float32", "float16", "bfloat16")
TOKEN_IDS = ("pad_token_id", "bos_token_id", "eos_token_id", "decoder_start_token_id")


def _width(config: TransformerConfig) -> int:
    return config.embedding_size or config.hidden_size


def _inner(config: TransformerConfig) -> int:
    return config.num_attention_heads * config.head_size


# What nearly all models have, so that a good checkpoint needs no model to be built. Where one has not, its family is
# asked. (Pattern of a variable's path, whether a model with this config has it)
ONLY_SOME: tuple[tuple[str, Callable[[TransformerConfig], Any]], ...] = (
    (r"^Embedding-Segment/", lambda config: config.type_vocab_size),
    (r"FeedForward/(gate|up)/", lambda config: config.gated_feed_forward),
    (r"FeedForward/intermediate/", lambda config: not config.gated_feed_forward),
    (r"^Decoder-Output-LM/", lambda config: not config.tie_word_embeddings),
    (r"^Embedding-Mapping/", lambda config: _width(config) != config.hidden_size),
)
# (pattern of a variable's path, its shape)
SHAPES: tuple[tuple[str, Callable[[TransformerConfig], tuple[Any, ...]]], ...] = (
    (r"^Embedding-Token/embeddings$", lambda config: (config.vocab_size, _width(config))),
    (r"^Embedding-Position/embeddings$", lambda config: (config.max_position_embeddings, _width(config))),
    (r"^Embedding-Segment/embeddings$", lambda config: (config.type_vocab_size, _width(config))),
    (r"^Embedding-Norm/", lambda config: (_width(config),)),
    (r"Transformer-.*Norm(-\d)?/(gamma|beta|scale)$", lambda config: (config.hidden_size,)),
    (r"Attention/(query|key|value)/kernel$", lambda config: (config.hidden_size, _inner(config))),
    (r"Attention/(query|key|value)/bias$", lambda config: (_inner(config),)),
    (r"Attention/output_dense/kernel$", lambda config: (_inner(config), config.hidden_size)),
    (r"FeedForward/(intermediate|gate|up)/kernel$", lambda config: (config.hidden_size, config.intermediate_size)),
    (r"FeedForward/intermediate/bias$", lambda config: (config.intermediate_size,)),
    (r"FeedForward/output_dense/kernel$", lambda config: (config.intermediate_size, config.hidden_size)),
    (r"/output_dense/bias$", lambda config: (config.hidden_size,)),
)


class Source:
    """An open checkpoint with its release, config, contents and variables; a context manager.

    Args:
        path: as `load`'s path.
        keep_tokens: ids of the tokens to keep, in their new order.
        model: the family, where the tensors' names fit several.

    Attributes:
        config: as the file says, but for the vocabulary that is kept.
        stored_config, raw_config: as the file says, in our words and in its own.

    Raises:
        TfloaderError: it cannot be read as any release.
    """

    def __init__(self, path: str, keep_tokens: Sequence[int] | None = None, model: str | None = None) -> None:
        self.path, self.model = path, model
        self.checkpoint = open_checkpoint(path)
        try:
            self.release = detect_release(self.checkpoint, [model] if model else ())
            if model not in (None, self.release.family):
                raise ConversionError(
                    f"{path}: model={model!r}, but the checkpoint is a {self.release.title} one, "
                    f"of the family {self.release.family!r}."
                )
            self.config_file = find_config(folder_of(path), self.release)
            self.raw_config = read_raw_config(self.config_file)
            shapes = shapes_of(self.checkpoint, self.release)
            self.stored_config = self.config = read_config(self.release, self.config_file, shapes)
            self.rows = self.release.naming.expand(counts(self.config))
            self.contents = Contents.of(self.checkpoint, self.release, self.config)
            self.variables = Variables(self.checkpoint, self.rows, self.contents.own)
            self.keep_tokens = keep_tokens
            if keep_tokens is not None:
                self._cut(keep_tokens)
        except BaseException:
            self.checkpoint.close()
            raise

    def __enter__(self) -> Source:
        return self

    def __exit__(self, *_: object) -> None:
        self.checkpoint.close()

    @property
    def nbytes(self) -> int:
        """Size of the model's tensors."""
        return sum(self.checkpoint[name].nbytes for name in set(self.contents.own.values()))

    @property
    def load_options(self) -> dict[str, Any]:
        """Options of `load` that give all of the model in float32, with the vocabulary that is kept."""
        options = {"model": self.model, "dtype": "float32", **self.contents.load_options(self.stored_config)}
        if self.keep_tokens is not None:
            moved = {name: getattr(self.config, name) for name in TOKEN_IDS}
            options |= {"keep_tokens": self.keep_tokens, **moved}
        return options

    def _cut(self, keep: Sequence[int]) -> None:
        from tfloader.models.builder import FAMILIES

        size = self.config.vocab_size
        wrong = [token for token in keep if not 0 <= token < size]
        if wrong or len(set(keep)) < len(keep) or not keep:
            found = f"id {wrong[0]}" if wrong else "an id twice" if keep else "none"
            raise ConversionError(f"keep_tokens must name ids from 0 to {size - 1} once each; it names {found}.")
        new = {old: index for index, old in enumerate(keep)}
        named = {name: getattr(self.config, name) for name in TOKEN_IDS if getattr(self.config, name) is not None}
        lost = [f"{name} = {token}" for name, token in named.items() if token not in new]
        if lost:
            raise ConversionError(f"keep_tokens leaves out ids that the config names: {', '.join(lost)}. Keep them.")
        moved = {name: new[token] for name, token in named.items()}
        self.config = self.config.replace(vocab_size=len(keep), **moved)
        self.variables.keep = np.asarray(keep, "int64")
        self.variables.axes = FAMILIES[self.config.family].vocabulary_axes

    def problems(self) -> Iterator[str]:
        """All that keeps this checkpoint from being just one model, whole: what `load` would refuse."""
        yield from self.variables.problems
        own = set(self.contents.own.values())
        for name in self.contents.unknown:
            yield f"{name} {self.checkpoint[name].shape} has no use in a {self.release.title} model"
        for name in own:
            if self.checkpoint[name].dtype not in READABLE_DTYPES:
                supported = ", ".join(READABLE_DTYPES)
                yield f"{name} is stored as {self.checkpoint[name].dtype}; supported: {supported}"
        missing, unusual = list(self._missing()), list(self._unusual())
        if missing or unusual:
            transformer = self.built(self.stored_config)
            for row, path in missing:
                if transformer.variable(path) is not None:
                    yield f"{path} has no tensor {row.theirs!r}"
            for path in unusual:
                name, found = self.variables.places[path].name, self.variables.stored(path).shape
                if transformer.variable(path) is None:
                    yield f"{name} has no use: a model with this config has no {path}"
                elif transformer.source_shape(path) != found:
                    yield f"{name} means the shape {found} for {path}, the config {transformer.source_shape(path)}"
        for first, second in self.contents.repeats:
            yield from differences(self.checkpoint, first, second)
        names = {self.release.naming.canonical(name): name for name in self.checkpoint}
        for constant in self.release.naming.constants:
            if constant.theirs in names:
                yield from deviations(self.checkpoint, names[constant.theirs], constant, self.stored_config)

    def _missing(self) -> Iterator[tuple[Row, str]]:
        for row in self.rows:
            for path in row.ours:
                needed = all(has(self.stored_config) for pattern, has in ONLY_SOME if re.search(pattern, path))
                if path not in self.variables and needed and row.part not in self.contents.lacking - {"segments"}:
                    yield row, path

    def _unusual(self) -> Iterator[str]:
        """Variables that a model with this config mostly does not have, or not in this shape."""
        config = self.stored_config
        for path in self.variables:
            usual = [shape(config) for pattern, shape in SHAPES if re.search(pattern, path)][:1]
            has = all(has(config) for pattern, has in ONLY_SOME if re.search(pattern, path))
            if not has or usual not in ([], [self.variables.stored(path).shape]):
                yield path

    def built(self, config: TransformerConfig, dtype: str = "float32") -> Any:
        """The Transformer that a config means, with memory that holds no values yet."""
        from tfloader.models.builder import FAMILIES

        transformer = FAMILIES[config.family](config, dtype=dtype, **self.contents.load_options(config))
        transformer.initializer.filled_later = True
        transformer.build()
        return transformer


def token_ids(keep_tokens: str | os.PathLike[str] | Sequence[int] | None) -> Sequence[int] | None:
    """The ids of a file, a JSON list or one id a line; a sequence as it is."""
    if keep_tokens is None or not isinstance(keep_tokens, (str, os.PathLike)):
        return keep_tokens
    path = os.fspath(keep_tokens)
    text = read_text(path)
    ids = parse_json(f'{{"ids": {text}}}', path)["ids"] if text.lstrip().startswith("[") else text.split()
    try:
        return [token if isinstance(token, int) and not isinstance(token, bool) else int(str(token)) for token in ids]
    except ValueError as reason:
        raise ConfigError(f"{path}: expected token ids, a JSON list or one a line; {str(reason)[-60:]}.") from None
