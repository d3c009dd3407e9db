"""`Release`: all that is known of one way in which a model is published."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from tfloader.errors import ConfigError
from tfloader.naming.base import Naming
from tfloader.naming.dialect import Dialect

# The fields of a release that is a TensorFlow checkpoint.
TENSORFLOW: dict[str, Any] = {"formats": ("tensorflow", "memory"), "writes": "tensorflow"}
TF_OPTIMIZER_SLOTS = (
    r"(^|/)global_step$",
    r"/(adam|lamb)_[mv](_\d+)?$",
    r"/(Adam|Adam_1|Adafactor|Momentum|LAMB|LAMB_1)$",
    r"(^|/)beta[12]_power(_\d+)?$",
    r"_slot_(v|vr|vc|m)$",
    r"/(adafactor)_(m|v|vr|vc)$",
    r"(^|/)(current_loss_scale|good_steps|num_good_steps|loss_scale)$",
    r"^save_counter/",
)


@dataclass(frozen=True)
class TextFormat:
    """Which special tokens stand around a text that a model reads.

    Attributes:
        start, end: the roles of the first and the last token ("cls", "sep", "eos"), None for none.
        tokens: role -> token, where the tokenizer's files do not name them.
        also: further model types, and tokenizer classes, of which the same is true.
    """

    start: str | None = "cls"
    end: str | None = "sep"
    tokens: Mapping[str, str] = field(default_factory=dict)
    also: tuple[str, ...] = ()


NOTHING_AROUND = TextFormat(None, None)


@dataclass(frozen=True)
class Release:
    """One way in which a model is published: container, tensor names, config dialect.

    Attributes:
        name: short name.
        title: what `tfloader info` prints.
        family: the family that builds it.
        formats: containers in which it comes.
        signature: a tensor (canonical name), or several, that all its checkpoints have, and no others if possible; a
            tuple in place of one: any of these. Not one that a tied copy may stand for.
        lacks: tensors that no checkpoint of it has, where a release with more has the signature too.
        gives_way_to: the release that is meant where one file holds both models and no family is asked for.
        naming: the table of tensors.
        config_files: patterns of its config file's name, best first.
        dialects: the config dialects that these files may be in; a file's `model_type` chooses.
        writes: the format name under which `tfloader.save` writes it, or None where it is only read.
        model_types: the model types that it is written for, where the family's others have a release of their own.
        tokenizer_files: its names of files that a tokenizer's `save` writes under Hugging Face's.
        text_format: which special tokens stand around a text.
        architectures: for Hugging Face folders: optional part -> the class that has it, the first that fits; None ->
            the class of the model without any of these.
        body: the beginning of the canonical names that a folder of that last class leaves out.
    """

    name: str
    title: str
    family: str
    formats: tuple[str, ...]
    signature: str | tuple[str | tuple[str, ...], ...]
    naming: Naming
    config_files: tuple[str, ...]
    dialects: tuple[Dialect, ...]
    writes: str | None = None
    model_types: tuple[str, ...] = ()
    tokenizer_files: Mapping[str, str] = field(default_factory=dict)
    text_format: TextFormat = field(default_factory=TextFormat)
    architectures: Mapping[str | None, str] = field(default_factory=dict)
    body: str = ""
    lacks: tuple[str, ...] = ()
    gives_way_to: str | None = None

    @property
    def written_config(self) -> str:
        """Name of the config file when writing: the first that is no pattern and says what it is."""
        plain = (name for name in self.config_files if re.fullmatch(r"\w*(config|hparams)\.json", name))
        return next(plain, "config.json")

    def fits(self, names: Collection[str]) -> bool:
        """Whether a checkpoint with these tensors (canonical names) may be of this release."""
        needed = (self.signature,) if isinstance(self.signature, str) else self.signature
        choices = ((item,) if isinstance(item, str) else item for item in needed)
        return all(any(name in names for name in item) for item in choices) and not any(
            name in names for name in self.lacks
        )

    def architecture(self, names: Collection[str]) -> tuple[str, str]:
        """The class that holds just these tensors (canonical names), and the beginning that it leaves out of them."""
        # A part has at least one tensor outside of the blocks, whose name stands in the table as it is.
        parts = {row.part for row in self.naming.rows if row.theirs in names}
        part = next((part for part in self.architectures if part in parts and part is not None), None)
        return self.architectures[part], self.body if part is None else ""

    def dialect_for(self, raw: Mapping[str, Any], source: str) -> Dialect:
        """The dialect of a config file, by its `model_type` and its keys.

        Raises:
            ConfigError: the file says that it belongs to a model of another type.
        """
        candidates = [dialect for dialect in self.dialects if dialect.accepts(raw)]
        if candidates:
            return min(candidates, key=lambda dialect: dialect.missing(raw))
        expected = " or ".join(repr(dialect.constants.get("model_type")) for dialect in self.dialects)
        raise ConfigError(
            f"{source}: model_type is {raw.get('model_type')!r}, but the tensors beside it are named as those of a "
            f"{self.title} checkpoint ({expected}). Such a model may compute differently and is not implemented."
        )
