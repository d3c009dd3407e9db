"""Keyword arguments sorted into what they are: fields of the config, and options of a family's builder."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from tfloader.config import BERT4KERAS_NAMES, CONFIG_FIELDS
from tfloader.errors import ConfigError, listing
from tfloader.models.transformer import Transformer
from tfloader.suggestions import did_you_mean


def split_options(family: type[Transformer], options: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Sorts keyword arguments into config fields (by our or bert4keras' names) and the family's builder options.

    Raises:
        ConfigError: naming each argument that is neither, with the nearest one that exists.
    """
    known = {
        name
        for base in family.__mro__
        if "__init__" in vars(base)
        for name, parameter in inspect.signature(base.__init__).parameters.items()
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY
    }
    overrides, builder, problems = {}, {}, []
    for name, value in options.items():
        field = BERT4KERAS_NAMES.get(name, name)
        if name in known:
            builder[name] = value
        elif field in CONFIG_FIELDS and field not in ("family", "extras"):
            overrides[field] = value
        else:
            others = {*known, *CONFIG_FIELDS, *BERT4KERAS_NAMES} - {name}
            problems.append(f"{name!r}{did_you_mean(name, sorted(others))}")
    if problems:
        raise ConfigError(f"{family.__name__} has no such option:\n{listing(problems)}")
    return overrides, builder
