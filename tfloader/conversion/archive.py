"""From a checkpoint to a Keras archive, `model.keras`, for `keras.saving.load_model` after `import tfloader`.

The model is built without values; each layer's variables are read from the source when Keras saves the layer.
"""

from __future__ import annotations

import os
import shutil
import zipfile
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

import numpy as np

from tfloader.checks import Check, outputs_on_random_ids
from tfloader.conversion import companions
from tfloader.conversion.comparison import difference_of
from tfloader.conversion.folder import new_folder
from tfloader.conversion.source import Source, token_ids
from tfloader.conversion.streaming import Problems, reason_not_to_verify
from tfloader.errors import ConversionError, listing
from tfloader.naming.assembly import as_dtype
from tfloader.naming.fit import READABLE_DTYPES
from tfloader.progress import progress_bar

FILE = "model.keras"


def export(
    source: str,
    target: str,
    *,
    to: str = "keras",
    model: str | None = None,
    dtype: str | None = None,
    keep_tokens: Any = None,
    tokenizer: str | os.PathLike[str] | bool | None = None,
    ignore: Collection[str] = (),
    rename: Mapping[str, str] | None = None,
    verify: bool | None = None,
) -> list[Check]:
    """Writes a folder with `model.keras`, a model with every head of which there are tensors; see `tfloader.convert`.

    Its dtype policy is `dtype`, or the dtype of the tensors.
    """
    with Source(source, token_ids(keep_tokens), model, ignore, rename) as opened:
        problems = Problems(opened, target, tokenizer)
        dtypes = {spec.dtype for spec in opened.variables.values()} if dtype is None else {dtype}
        if len(dtypes) != 1 or not dtypes <= set(READABLE_DTYPES):
            found = " and ".join(sorted(dtypes))
            problems.append(f"dtype: one of {', '.join(READABLE_DTYPES)} for the whole model, found {found}.")
        if problems:
            problems.refuse()
        with new_folder(target, nbytes=2 * opened.nbytes) as stage:
            transformer = opened.built(opened.config, dtypes.pop())
            with progress_bar(f"{source} to {to}", opened.nbytes) as bar:
                _save(transformer, opened, os.path.join(stage, FILE), bar)
            companions.write(stage, problems.tokenizer, None, problems.generation)
            checks = [
                Check("source", "ok", f"{opened.release.title}, {len(opened.variables)} variables"),
                Check("target", "ok", f"Keras archive, {transformer.dtype_policy.name}"),
                *_verified(opened, os.path.join(stage, FILE), transformer, verify),
            ]
    return checks


def _save(transformer: Any, source: Source, path: str, bar: Any) -> None:
    """Writes the archive; each variable's values come straight from the source."""
    paths = {id(transformer.variable(name)): name for name in source.variables}
    lost = [variable.path for variable in transformer.model.weights if id(variable) not in paths]
    if lost:
        raise ConversionError(f"These variables have no tensor:\n{listing(lost)}")

    def values(variable: Any) -> np.ndarray:
        if id(variable) not in paths:
            raise ConversionError(
                f"Keras saves {getattr(variable, 'path', variable)!r} in a way that is not known here."
            )
        name = paths[id(variable)]
        array = as_dtype(source.variables.read(name), variable.dtype, name)
        bar.update(array.nbytes)
        return array

    for owner in {name.rpartition("/")[0] for name in paths.values()}:
        layer = transformer.variable(owner)
        layer.save_own_variables = _saver(layer.save_own_variables, values)
    folder = f"{path}.folder"
    transformer.model.save(folder, zipped=False)
    with zipfile.ZipFile(path, "w") as archive:
        for name in sorted(os.listdir(folder)):
            if os.path.isfile(os.path.join(folder, name)):
                archive.write(os.path.join(folder, name), name)
    shutil.rmtree(folder)


def _saver(original: Callable[[Any], None], values: Callable[[Any], np.ndarray]) -> Callable[[Any], None]:
    """A layer's own `save_own_variables`, with other values for its variables."""

    def save_own_variables(store: Any) -> None:
        places: dict[str, Any] = {}
        original(places)
        for key, variable in places.items():
            store[key] = values(variable)

    return save_own_variables


def _verified(source: Source, path: str, transformer: Any, wanted: bool | None) -> Iterator[Check]:
    reason = reason_not_to_verify(source.nbytes, wanted)
    if reason:
        yield Check("verify", "skipped", reason)
        return
    import keras

    from tfloader.models.builder import load

    model = keras.saving.load_model(path, compile=False)  # the file that was just written, not a stranger's
    layers = {layer.name: layer for layer in model.layers}
    problems = []
    for name in source.variables:
        found, *attributes = name.split("/")
        variable: Any = layers.get(found)
        for attribute in attributes:
            variable = getattr(variable, attribute, None)
        if variable is None:
            layer = transformer.layers[transformer.prefix + found]
            problems.append(f"{name} was not read back: does get_config() of {type(layer).__name__} give its name?")
            continue
        expected = as_dtype(source.variables.read(name), transformer.dtype_policy.name, name)
        if not difference_of(keras.ops.convert_to_numpy(variable), expected)[0]:
            problems.append(f"{name} differs")
    if problems:
        raise ConversionError(f"What was written is not the same model, so it was removed:\n{listing(problems)}")
    yield Check("tensors", "ok", f"{len(source.variables)} variables, equal bit for bit")
    options = {**source.load_options, "dtype": transformer.dtype_policy.name}
    pairs = zip(
        outputs_on_random_ids(load(source.path, **options), source.config),
        outputs_on_random_ids(model, source.config),
        strict=True,
    )
    largest = max(difference_of(*map(np.asarray, pair))[1] for pair in pairs)
    if largest:
        raise ConversionError(f"What was written gives other outputs, by up to {largest:.3g}, so it was removed.")
    yield Check("outputs", "ok", "equal bit for bit on random token ids")
