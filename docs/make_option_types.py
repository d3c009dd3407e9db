"""Writes tfloader/option_types.py from the signatures of the families and the fields of the two option classes.

python docs/make_option_types.py          (tests/test_option_types.py fails until it has been run)
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Mapping
from pathlib import Path

from tfloader.config import BERT4KERAS_NAMES, TransformerConfig
from tfloader.generation.options import GenerationOptions
from tfloader.models import builder

MODULE = Path(__file__).parents[1] / "tfloader/option_types.py"

HEADER = '''"""What `**options` of `load`, `build_transformer_model` and `TextGenerator` may hold, for type checkers.

Written by docs/make_option_types.py; a test keeps it true. A family of your own may have further options: a
`dict[str, Any]` of them, passed with `**`, is let through.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypedDict

if TYPE_CHECKING:
    import keras

    from tfloader.generation.trie import Trie
'''

BUILD = '''class BuildOptions(LoadOptions, total=False):
    """The same with those that `load` has by name."""

    dtype: Any
    compat: str | None
    ignore: str | Collection[str]
    ignore_config_keys: str | Collection[str]
    rename: Mapping[str, str] | None
'''


def load_options() -> dict[str, str]:
    """Builder options of all families, then config fields, then bert4keras' names of these: name -> type."""
    fields = {item.name: str(item.type) for item in dataclasses.fields(TransformerConfig)}
    options: dict[str, list[str]] = {}
    for family in builder.FAMILIES.values():
        for base in reversed(family.__mro__):
            parameters = inspect.signature(base.__init__).parameters.values() if "__init__" in vars(base) else ()
            for parameter in parameters:
                if parameter.kind is inspect.Parameter.KEYWORD_ONLY:
                    kinds = options.setdefault(parameter.name, [])
                    kinds += [kind for kind in parameter.annotation.split(" | ") if kind not in kinds]
    found = {name: " | ".join(kinds) for name, kinds in options.items()}
    found |= {name: kind for name, kind in fields.items() if name not in (*found, "family", "extras")}
    found |= {theirs: fields[ours] for theirs, ours in BERT4KERAS_NAMES.items()}
    named = inspect.signature(builder.load).parameters
    return {name: kind for name, kind in found.items() if name not in named}


def generate_options() -> dict[str, str]:
    return {item.name: str(item.type) for item in dataclasses.fields(GenerationOptions)}


def typed_dict(name: str, docstring: str, options: Mapping[str, str]) -> str:
    lines = [f"class {name}(TypedDict, total=False):", f'    """{docstring}"""', ""]
    return "\n".join([*lines, *(f"    {option}: {kind}".replace("'", '"') for option, kind in options.items())]) + "\n"


def module() -> str:
    load = typed_dict(
        "LoadOptions",
        "Builder options of the families, and config values that override the file's, also by bert4keras' names.",
        load_options(),
    )
    generate = typed_dict("GenerateOptions", "The options of one call; see `GenerationOptions`.", generate_options())
    return "\n\n".join([HEADER, load, BUILD, generate])


if __name__ == "__main__":
    MODULE.write_text(module(), "utf-8")
