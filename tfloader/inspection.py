"""What a checkpoint is, and whether it is sound: behind `tfloader info` and `tfloader verify`, for scripts as well.

`info` reads the index, the config and the tokenizer, and imports no framework for containers that need none.
`verify` reads every byte, builds the model, and runs it.
"""

from __future__ import annotations

import dataclasses
import os
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import numpy as np

from tfloader.border import public
from tfloader.checkpoints import Checkpoint
from tfloader.checkpoints.base import folder_of, show
from tfloader.checks import Check, Skipped, outcome, outputs_on_random_ids
from tfloader.config import TransformerConfig
from tfloader.errors import CheckpointError, SegmentationError, TfloaderError, TokenizerError, WeightsError, listing
from tfloader.naming import config_beside, release_of
from tfloader.naming.base import counts
from tfloader.naming.fit import fit
from tfloader.naming.release import Release
from tfloader.naming.renamed import open_renamed
from tfloader.tokenizers import load_tokenizer
from tfloader.tokenizers.loading import kinds_of_tokenizer

TOKENIZER_KINDS = {
    "Tokenizer": "WordPiece",
    "BytePairTokenizer": "byte-level BPE",
    "SpTokenizer": "SentencePiece",
    "JsonTokenizer": "tokenizer.json",
}


@public
def info(
    path: str | os.PathLike[str], model: str | None = None, rename: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Describes a checkpoint without loading it.

    Args:
        path: as `load`'s path.
        model: the family, where the names of the tensors fit several.
        rename: as `load`'s.

    Returns:
        A dictionary that json can write: path, release, family, parts, config, parameters, dtypes (parameters of
        each), not_of_the_model (optimizer slots and the like), unknown (tensors that `load` would refuse), files,
        bytes, tokenizer.

    Raises:
        CheckpointError, ConfigError: it is none that tfloader can read.
    """
    with open_renamed(path, rename) as checkpoint:
        release = release_of(checkpoint, model)
        config, config_file = config_beside(checkpoint, release)
        found = fit(checkpoint, release, config)
        try:
            described, kind = _described_tokenizer(path, config)
            tokenizer = {"kind": kind, "vocab_size": described.vocab_size}
        except TfloaderError as reason:
            tokenizer = {"none": str(reason)}
        dtypes: Counter[str] = Counter()
        for source in found.sources:
            dtypes[checkpoint[source.name].dtype] += checkpoint[source.name].size
        return {
            "path": os.fspath(path),
            "release": release.title,
            "family": config.family,
            "parts": found.parts,
            "config": dataclasses.asdict(config),
            "parameters": dtypes.total(),
            "dtypes": dict(dtypes),
            "not_of_the_model": {
                "tensors": len(found.foreign),
                "parameters": sum(checkpoint[name].size for name in found.foreign),
            },
            "unknown": list(found.unknown),
            "files": [*checkpoint.files, config_file],
            "bytes": sum(os.path.getsize(file) for file in checkpoint.files),
            "tokenizer": tokenizer,
        }


@public
def verify(
    path: str | os.PathLike[str],
    model: str | None = None,
    ignore: str | Collection[str] = (),
    rename: Mapping[str, str] | None = None,
) -> Iterator[Check]:
    """Checks a checkpoint from its bytes to a forward pass; gives each outcome as soon as it is known.

    Arguments are those of `info`, and `ignore`: patterns of tensors that may stay unread, such as "classifier.*". It is
    sound if none is "FAILED". A failed check skips only those that depend on it.
    """
    found: dict[str, Any] = {"family": model, "ignore": ignore, "rename": rename}
    try:
        for name, check, needs in CHECKS:
            lost = [need for need in needs if need not in found]
            if lost:
                yield Check(name, "skipped", f"it needs the {lost[0]}")
                continue
            result, value = outcome(name, check, path, *(found[need] for need in needs))
            if result.status == "ok":
                found[name] = value
            yield result
    finally:
        if "checkpoint" in found:
            found["checkpoint"][0].close()


def _open(path: Any, family: str | None, rename: Mapping[str, str] | None) -> tuple[tuple[Checkpoint, Release], str]:
    checkpoint = open_renamed(path, rename)
    try:
        release = release_of(checkpoint, family)
    except BaseException:
        checkpoint.close()
        raise
    return (checkpoint, release), f"{release.title}, {len(checkpoint)} tensors"


def _config(path: Any, opened: tuple[Checkpoint, Release]) -> tuple[TransformerConfig, str]:
    config, file = config_beside(*opened)
    return config, "; ".join([f"{os.path.basename(file)}, family {config.family}", *config.strange_tokens().values()])


def _load(
    path: Any,
    opened: tuple[Checkpoint, Release],
    config: TransformerConfig,
    ignore: Collection[str],
    rename: Mapping[str, str] | None,
) -> tuple[Any, str]:
    """The model with every part of which there is a tensor: what is left over or missing is refused."""
    from tfloader.models.builder import FAMILIES, load
    from tfloader.weights import fitted

    options: dict[str, Any] = fit(*opened, config).options(FAMILIES[config.family])
    options |= dict.fromkeys(config.strange_tokens())
    model = load(path, model=config.family, dtype="float32", ignore=ignore, rename=rename, **options)
    found = fitted(model.transformer, *opened, ignore, left_out=())
    found.refuse(opened[0])
    parts = f", with {', '.join(found.parts)}" if found.parts else ""
    return model, f"{len(model.weights)} variables{parts}, each from one tensor"


def _data(path: Any, opened: tuple[Checkpoint, Release]) -> tuple[None, str]:
    """Reads all, the tensors that the model does not use included."""
    checkpoint, _ = opened
    problems, nbytes = [], 0
    for name, spec in checkpoint.items():
        nbytes += spec.nbytes
        try:
            array = checkpoint.read(name)
        except CheckpointError as error:
            problems.append(str(error))
            continue
        bad = spec.size - np.count_nonzero(np.isfinite(array))
        if bad:
            problems.append(f"{show(name)}: {bad} of {spec.size} values are NaN or infinite")
    if problems:
        raise CheckpointError(f"{len(problems)} of {len(checkpoint)} tensors are damaged:\n{listing(problems)}")
    checked = "checksums agree" if checkpoint.format == "tensorflow" else "this format has no checksums"
    return None, f"{len(checkpoint)} tensors, {nbytes:,} bytes, all finite; {checked}"


def _exact(path: Any, opened: tuple[Checkpoint, Release], config: TransformerConfig, model: Any) -> tuple[None, str]:
    """Compares every tensor, made anew of the model's variables, with the file's."""
    import keras

    checkpoint, release = opened
    own = {source.row.theirs: source.name for source in fit(checkpoint, release, config).sources}
    unmatched = {id(variable): variable.path for variable in model.weights}
    problems = []
    for row in release.naming.expand(counts(config)):
        variables = [model.transformer.variable(path) for path in row.ours]
        if row.theirs not in own or any(variable is None for variable in variables):
            continue
        theirs = checkpoint.read(own[row.theirs]).astype("float32")
        made = row.op.to_theirs(*map(keras.ops.convert_to_numpy, variables))
        if made.size != theirs.size or not np.array_equal(made, theirs.reshape(made.shape), equal_nan=True):
            problems.append(f"{' + '.join(row.ours)} holds other values than {show(own[row.theirs])}")
        for variable in variables:
            if unmatched.pop(id(variable), None) is None:
                problems.append(f"{variable.path} has two tensors")
    problems += [f"{name} has no tensor" for name in unmatched.values()]
    if problems:
        raise WeightsError(f"The model differs from the file. Please report this bug:\n{listing(problems)}")
    return None, f"all {len(model.weights)} variables, taken back out of the model, equal the file's tensors"


def _tokenizer(path: Any, config: TransformerConfig) -> tuple[None, str]:
    if not kinds_of_tokenizer(os.listdir(folder_of(path))):
        raise Skipped("there is none beside the checkpoint")
    try:
        found, kind = _described_tokenizer(path, config)
    except SegmentationError as reason:
        raise Skipped("its words need the function that splits a text into them: see load_tokenizer") from reason
    size, rows = found.vocab_size, config.vocab_size
    if size > rows:
        raise TokenizerError(f"it has {size} tokens, but the embedding only {rows} rows; they do not belong together.")
    pad = found.pad_token_id
    if None not in (pad, config.pad_token_id) and pad != config.pad_token_id:
        raise TokenizerError(f"it pads with id {pad}, but the config says that padding is {config.pad_token_id}.")
    spare = f"; {rows - size} more rows in the embedding (normal padding)" if rows > size else ", as many as embeddings"
    return None, f"{kind}, {size} tokens{spare}"


def _forward(path: Any, model: Any) -> tuple[None, str]:
    outputs = outputs_on_random_ids(model, model.transformer.config)
    if not all(np.isfinite(item).all() for item in outputs):
        raise WeightsError("the token ids of two random texts give NaN or infinite numbers.")
    shapes = " and ".join(str(list(item.shape)) for item in outputs)
    return None, f"random token ids give finite numbers, {shapes}"


# (name, function, the earlier checks whose results it takes)
CHECKS = (
    ("checkpoint", _open, ("family", "rename")),
    ("config", _config, ("checkpoint",)),
    ("model", _load, ("checkpoint", "config", "ignore", "rename")),
    ("data", _data, ("checkpoint",)),
    ("exactness", _exact, ("checkpoint", "config", "model")),
    ("tokenizer", _tokenizer, ("config",)),
    ("forward pass", _forward, ("model",)),
)


def _described_tokenizer(path: Any, config: TransformerConfig) -> tuple[Any, str]:
    found = load_tokenizer(path, config.model_type or config.family)
    name = type(found).__name__
    return found, TOKENIZER_KINDS.get(name, name)
