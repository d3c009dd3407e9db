"""Config files as two-way tables: a `Dialect` reads a release's file into a `TransformerConfig` and writes one back.

Each key of a file is translated, checked against the values that we implement, or listed as harmless; anything else
is refused by name.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from tfloader.config import NOT_MATHEMATICS, TransformerConfig, differing_fields, shown
from tfloader.errors import ConfigError, listing
from tfloader.naming.heads import HeadKeys
from tfloader.suggestions import did_you_mean

REQUIRED = object()
MAX_KEYS = 1_000
# The key under which tfloader notes what a format has no key for; of every format these -> their defaults.
NOTES = "tfloader"
ALWAYS_NOTED = {"uncut_vocab_size": None}


@dataclass(frozen=True)
class Key:
    """One line of a dialect: our field, their key, and the two-way translation of values.

    `values` maps all of their values that we implement to ours, the one to be written first; None: the same.
    `default` is the value where the file lacks the key.
    """

    ours: str
    theirs: str
    default: Any = REQUIRED
    values: Mapping[Any, Any] | None = None
    aliases: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        return self.theirs, *self.aliases

    def read(self, value: Any) -> Any:
        """Our value for theirs.

        Raises:
            ValueError: it is none that we implement.
        """
        if self.values is None:
            return value
        if not isinstance(value, (str, bool)) or value not in self.values:
            supported = ", ".join(map(repr, self.values))
            raise ValueError(f"{self.theirs} = {shown(value)} is not implemented; supported: {supported}")
        return self.values[value]

    def write(self, value: Any) -> Any:
        """Their value for ours; one that they have no word for stays as it is, and is refused on the way back."""
        if self.values is None:
            return value
        return next((theirs for theirs, ours in self.values.items() if ours == value), value)


def same(*required: str, **defaults: Any) -> tuple[Key, ...]:
    """Keys that are named as our fields are: those that a file must have, and those with defaults."""
    return (*(Key(name, name) for name in required), *(Key(name, name, value) for name, value in defaults.items()))


def revised(keys: Iterable[Key], *new: Key, without: Collection[str] = ()) -> tuple[Key, ...]:
    """Keys of another dialect with new ones in place of those for the same fields, and without some fields."""
    by_field = {key.ours: key for key in (*keys, *new)}
    return tuple(key for name, key in by_field.items() if name not in without)


@dataclass(frozen=True)
class Dialect:
    """A release's config format as a two-way table.

    Attributes:
        name: what errors call it.
        keys: the translated keys.
        fixed: our fields that this format implies and cannot express otherwise.
        only: their keys of which we implement just these values; the first one is the default.
        harmless: their keys (regular expressions) that do not change what the model computes.
        constants: keys written as they are.
        notes: our fields that this format has no key for, noted under the key "tfloader" -> their defaults.
        heads: the keys that concern a head for a task; None: there are none.
        finish_read: for what is not one key to one field: called with our fields (to be changed), their dictionary,
            and the shapes of the checkpoint's tensors (empty where there is none).
        finish_write: the same on the way out: called with the config and their dictionary (to be changed).
    """

    name: str
    keys: tuple[Key, ...]
    fixed: Mapping[str, Any] = field(default_factory=dict)
    only: dict[str, tuple[Any, ...]] = field(default_factory=dict)
    harmless: Collection[str] = ()
    constants: Mapping[str, Any] = field(default_factory=dict)
    notes: Mapping[str, Any] = field(default_factory=dict)
    heads: HeadKeys | None = None
    finish_read: Any = None
    finish_write: Any = None

    def accepts(self, raw: Mapping[str, Any]) -> bool:
        """Whether a file may be meant for this dialect: it names no other model type."""
        return raw.get("model_type") in (None, self.constants.get("model_type"))

    def claims(self, raw: Mapping[str, Any]) -> bool:
        """Whether a file says that it is of this dialect: it has all its constants."""
        return bool(self.constants) and all(raw.get(key) == value for key, value in self.constants.items())

    def is_harmless(self, key: str) -> bool:
        return any(re.fullmatch(pattern, key) for pattern in self.harmless)

    def knows(self, key: str) -> bool:
        """Whether a file may have this key."""
        translated = {name for item in self.keys for name in item.names}
        return key in translated or key in self.only or key == "model_type" or self.is_harmless(key)

    def missing(self, raw: Mapping[str, Any]) -> int:
        """How many of the keys that this dialect needs a file lacks."""
        return sum(key.default is REQUIRED and not set(key.names) & set(raw) for key in self.keys)

    def read(
        self,
        raw: Mapping[str, Any],
        source: str,
        family: str,
        overrides: Mapping[str, Any] | None = None,
        ignore: Collection[str] = (),
        tensors: Mapping[str, tuple[int, ...]] | None = None,
        given: Mapping[str, Any] | None = None,
    ) -> TransformerConfig:
        """Translates a config file's dictionary.

        Args:
            source: the file's name, for errors.
            overrides: our fields that take precedence over the file.
            ignore: their keys that the user vouches for.
            tensors: shapes of the checkpoint's tensors, for what the file leaves to them.
            given: our fields where the file lacks them, or says them in words that it does not have.

        Raises:
            ConfigError: naming every key that is missing, unknown, or has a value that is not implemented.
        """
        if len(raw) > MAX_KEYS:
            raise ConfigError(f"{source}: it has {len(raw)} keys; no {self.name} config has more than {MAX_KEYS}.")
        strange = [shown(name) for name in raw if not isinstance(name, str)]
        if strange:
            raise ConfigError(f"{source}: the keys of a config must be strings, found {', '.join(strange[:5])}.")
        overrides, ignore = dict(overrides or {}), {ignore} if isinstance(ignore, str) else set(ignore)
        fields, problems = self._translated(raw, {**overrides, **(given or {})})
        problems += self._refused(raw, ignore)
        if problems:
            raise ConfigError(
                f"{source}: cannot be read as a {self.name} config:\n{listing(problems)}\n"
                "A key that you know to change nothing can be named in ignore_config_keys=[...]."
            )
        fields = {"family": family, "model_type": self.constants.get("model_type"), **self.fixed, **fields}
        fields |= {name: value for name, value in overrides.items() if fields.get(name) is None}
        try:
            if self.heads:
                fields |= self.heads.read(raw)
            if self.finish_read:
                self.finish_read(fields, raw, tensors or {})
            noted = raw.get(NOTES)
            if isinstance(noted, dict):
                fields |= {name: noted[name] for name in (*ALWAYS_NOTED, *self.notes) if name in noted}
            return TransformerConfig(**(fields | overrides))
        except ConfigError as reason:
            raise ConfigError(f"{source}: {reason}") from None

    def _translated(self, raw: Mapping[str, Any], given: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
        """Our fields from the translated keys, and what is wrong with these."""
        fields, problems = {}, []
        for key in self.keys:
            found = [name for name in key.names if name in raw]
            try:
                if any(not _same(raw[name], raw[found[0]]) for name in found):
                    raise ValueError(f"{' and '.join(found)} mean the same but differ")
                if not found and key.default is REQUIRED:
                    raise ValueError(f"the key {key.theirs!r} is missing")
                fields[key.ours] = key.read(raw[found[0]]) if found else key.default
            except ValueError as reason:
                if key.ours in given:
                    fields[key.ours] = given[key.ours]
                else:
                    words = "; there 'gelu' is the exact one, 'gelu_tanh' the other" if key.ours == "hidden_act" else ""
                    problems.append(f"{reason} (or give {key.ours}=...{words})")
        return fields, problems

    def _refused(self, raw: Mapping[str, Any], ignore: Collection[str]) -> Iterator[str]:
        """What is wrong with the other keys: values that we do not implement, and names that we do not know."""
        for name, allowed in self.only.items():
            if name in raw and name not in ignore and not any(_same(raw[name], value) for value in allowed):
                supported = " or ".join(map(repr, allowed))
                yield f"{name} = {shown(raw[name])} is not implemented; supported: {supported}"
        known = [*(name for key in self.keys for name in key.names), *self.only]
        for name in raw:
            if name not in {"model_type", NOTES, *ignore, *known} and not self.is_harmless(name):
                yield f"unknown key {shown(name)} (= {shown(raw[name])}){did_you_mean(name, known)}"

    def write(self, config: TransformerConfig) -> dict[str, Any]:
        """Translates a config back; what this format cannot express is refused, not dropped.

        Raises:
            ConfigError: naming the settings that the format has no key for.
        """
        raw: dict[str, Any] = {}
        for key in self.keys:
            value = getattr(config, key.ours)
            noted = key.ours in self.notes and key.values is not None and value not in key.values.values()
            if not noted and (value is not None or key.default is not REQUIRED):
                raw[key.theirs] = key.write(value)
        raw |= self.constants
        if self.heads:
            raw |= self.heads.write(config)
        if self.finish_write:
            self.finish_write(config, raw)
        notes = {name: (getattr(config, name), silent) for name, silent in {**ALWAYS_NOTED, **self.notes}.items()}
        if notes := {name: value for name, (value, silent) in notes.items() if value != silent}:
            raw[NOTES] = notes
        try:
            again = self.read(raw, f"a {self.name} config", config.family, {"application": config.application})
        except ConfigError as reason:
            raise ConfigError(f"This model's config cannot be written: {reason}") from None
        lost = [
            f"{name} = {getattr(config, name)!r} (it means {getattr(again, name)!r} there)"
            for name in differing_fields(again, config)
            if name not in NOT_MATHEMATICS
        ]
        if lost:
            raise ConfigError(f"A {self.name} config cannot express:\n{listing(lost)}\nSave in another format.")
        return raw


def _same(found: Any, allowed: Any) -> bool:
    return type(found) is type(allowed) and found == allowed
