"""A checkpoint that is to be converted or compared: opened, and judged by the variables of its model.

The model is built without values: 2 s and some 60 MB for 48 blocks of 1536.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from tfloader.config import CONFIG_FIELDS, NOT_MATHEMATICS, TransformerConfig
from tfloader.conversion.variables import Variables
from tfloader.errors import ConfigError
from tfloader.files import MAX_JSON_BYTES, parse_json, read_text
from tfloader.naming import config_beside, read_raw_config, release_of
from tfloader.naming.fit import fit
from tfloader.naming.renamed import open_renamed

NOT_IN_VARIABLES = NOT_MATHEMATICS - {"application", "uncut_vocab_size", "id2label"}


class Source:
    """An open checkpoint with its release, config, and variables; a context manager.

    Arguments are those of `convert`, and:
        like: another Source, whose model serves where it would be the same; it holds no values.

    Attributes:
        config: as the file says, but for the vocabulary that is kept and for a head of which there is no tensor.
        raw_config: the file's own keys and values.
        family: the class that builds its model.
        options: options of the family's builder that make every part of which there is a tensor.
        transformer: the model that they make.
        fit: which tensor is which variable of that model, and what is wrong.
    """

    def __init__(
        self,
        path: str,
        keep_tokens: Sequence[int] | None = None,
        model: str | None = None,
        ignore: Collection[str] = (),
        rename: Mapping[str, str] | None = None,
        like: Source | None = None,
    ) -> None:
        from tfloader.models.builder import FAMILIES
        from tfloader.weights import fitted

        self.path, self.model, self.ignore, self.rename = path, model, ignore, rename
        self.checkpoint = open_renamed(path, rename)
        try:
            self.release = release_of(self.checkpoint, model)
            self.config, self.config_file = config_beside(self.checkpoint, self.release)
            self.raw_config = read_raw_config(self.config_file)
            self.family = FAMILIES[self.config.family]
            self.options = fit(self.checkpoint, self.release, self.config).options(self.family)
            self.transformer = like.transformer if like and self.builds_as(like) else self.built(self.config)
            self.fit = fitted(self.transformer, self.checkpoint, self.release, ignore, left_out=())
            self.config = self.config.replace(head=self.transformer.config.head)
            self.variables = Variables(self.checkpoint, self.fit)
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
        return sum(self.checkpoint[source.name].nbytes for source in self.fit.sources)

    @property
    def load_options(self) -> dict[str, Any]:
        """Options of `load` that give all of the model in float32, with the vocabulary that is kept."""
        given = {"model": self.model, "ignore": self.ignore, "rename": self.rename}
        options = {"dtype": "float32", **given, **self.options}
        if self.keep_tokens is not None:
            options |= {"keep_tokens": self.keep_tokens, **self.config.special_tokens}
        return options

    def _cut(self, keep: Sequence[int]) -> None:
        from tfloader.models.vocabulary import VocabularyCut

        cut = VocabularyCut(self.config.vocab_size, keep, None, self.config.uncut_vocab_size)
        moved = cut.moved(self.config.special_tokens, self.family.fixed_tokens)
        self.config = self.config.replace(vocab_size=cut.size, uncut_vocab_size=cut.uncut_size, **moved)
        self.variables.cut, self.variables.axes = cut, self.family.vocabulary_axes

    def problems(self) -> list[str]:
        """All that keeps this checkpoint from being just one model, whole: what `load` would refuse."""
        return self.fit.problems(self.checkpoint)

    def builds_as(self, other: Source) -> bool:
        """Whether both make the same model, but for what shows in no variable."""
        one, two = self.config, other.transformer.config
        different = {name for name in CONFIG_FIELDS if getattr(one, name) != getattr(two, name)}
        return (self.family, self.options) == (other.family, other.options) and different <= NOT_IN_VARIABLES

    def built(self, config: TransformerConfig, dtype: str = "float32") -> Any:
        """The Transformer that a config means, with memory that holds no values yet."""
        transformer = self.family(config, dtype=dtype, **self.options)
        transformer.initializer.filled_later = True
        return transformer.build()


def token_ids(keep_tokens: str | os.PathLike[str] | Sequence[int] | None) -> Sequence[int] | None:
    """The ids of a file, a JSON list or one id a line; a sequence as it is."""
    if keep_tokens is None or not isinstance(keep_tokens, (str, os.PathLike)):
        return keep_tokens
    path = os.fspath(keep_tokens)
    text = read_text(path, limit=MAX_JSON_BYTES)
    ids = parse_json(f'{{"ids": {text}}}', path)["ids"] if text.lstrip().startswith("[") else text.split()
    try:
        return [token if isinstance(token, int) and not isinstance(token, bool) else int(str(token)) for token in ids]
    except ValueError as reason:
        raise ConfigError(f"{path}: expected token ids, a JSON list or one a line; {str(reason)[-60:]}.") from None
