"""Renders the tables of docs/checkpoints.md from `tfloader.naming.RELEASES`, and puts them in place.

python docs/make_checkpoints.py          (tests/test_documentation.py fails until it has been run)
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from tfloader.errors import ConfigError
from tfloader.naming import RELEASES
from tfloader.naming.dialect import REQUIRED, Dialect
from tfloader.naming.release import Release

PAGE = Path(__file__).with_name("checkpoints.md")

CONTAINERS = {
    "tensorflow": "TensorFlow checkpoint",
    "safetensors": "safetensors",
    "torch": "pytorch_model.bin",
    "hdf5": "tf_model.h5",
    "keras2": "Keras 2's .weights or .h5",
}
TOKENIZERS = {
    "roberta": "`vocab.json` + `merges.txt`",
    "albert": "`vocab.txt`, or `tokenizer.json`",
    "gpt2": "`encoder.json` + `vocab.bpe`, or `vocab.json` + `merges.txt`",
    "t5": "`spiece.model`, or another `*.model`",
}
# Tables of tokens, from which some dialects take what their files do not say.
EMBEDDINGS = ("shared/embedding", "bert/embeddings/word_embeddings", "Embedding-Token/embeddings")
ACTIVATIONS = {"gelu": "exact (erf)", "gelu_tanh": "tanh"}


def releases() -> str:
    """One row a release: what is read, and what `save(format=...)` writes."""
    header = ("release", "name", "family", "read from", "config file", "tokenizer files", "written as")
    return _table(header, [_release(release) for release in RELEASES])


def _release(release: Release) -> tuple[str, ...]:
    return (
        release.title,
        f"`{release.name}`",
        f"`{release.family}`",
        ", ".join(CONTAINERS[item] for item in release.formats if item in CONTAINERS),
        ", ".join(f"`{pattern}`" for pattern in release.config_files),
        TOKENIZERS.get(release.family, "`vocab.txt`"),
        f'`"{release.writes}"`' if release.writes else "only read",
    )


def numerics() -> str:
    """One row a config format: what its files mean where a number or a word is open to doubt."""
    found: dict[str, Dialect] = {}
    for release in RELEASES:
        found |= {dialect.name: dialect for dialect in release.dialects}
    header = ("config format", '"gelu" is', "epsilon of the norms", "padding id")
    return _table(header, [_dialect(dialect) for dialect in found.values()])


def _dialect(dialect: Dialect) -> tuple[str, ...]:
    silent = _read(dialect, None)
    epsilon = f"{silent.layer_norm_eps:g}"
    key = next((key.theirs for key in dialect.keys if key.ours == "layer_norm_eps"), None)
    padding = next((key.theirs for key in dialect.keys if key.ours == "pad_token_id"), None)
    silent_padding = "none" if silent.pad_token_id is None else str(silent.pad_token_id)
    return (
        dialect.name,
        _gelu(dialect),
        f"`{key}`, else {epsilon}" if key else epsilon,
        f"`{padding}`, else {silent_padding}" if padding else silent_padding,
    )


def _gelu(dialect: Dialect) -> str:
    if "hidden_act" in dialect.fixed:
        return f"{ACTIVATIONS[dialect.fixed['hidden_act']]}, always"
    meanings = {}
    for name in ("gelu", "gated-gelu"):
        try:
            meanings[name] = ACTIVATIONS[_read(dialect, name).hidden_act]
        except ConfigError:
            continue
    return "; ".join(meaning if name == "gelu" else f'"{name}" {meaning}' for name, meaning in meanings.items())


def _read(dialect: Dialect, act: str | None) -> Any:
    """What a file with the least of keys means, and with an activation if one is given."""
    raw: dict[str, Any] = {key.theirs: 8 for key in dialect.keys if key.default is REQUIRED}
    for key in dialect.keys:
        if key.ours == "hidden_act" and (act or key.theirs in raw):
            raw[key.theirs] = act or "relu" if key.values is None else act or next(iter(key.values))
    return dialect.read(raw, dialect.name, "bert", tensors=dict.fromkeys(EMBEDDINGS, (8, 8)))


def _table(header: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [header, ("---",) * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def with_tables(text: str) -> str:
    """The page with its tables as they should be now."""
    for name, table in (("releases", releases()), ("numerics", numerics())):
        pattern = rf"(<!-- {name}:[^\n]*-->\n).*?(\n<!-- end of {name} -->)"
        text, count = re.subn(pattern, lambda match, table=table: match[1] + table + match[2], text, flags=re.DOTALL)
        if count != 1:
            raise SystemExit(f"{PAGE}: expected one place for the table {name!r}, found {count}.")
    return text


if __name__ == "__main__":
    PAGE.write_text(with_tables(PAGE.read_text("utf-8")), "utf-8")
