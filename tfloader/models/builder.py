"""From a path to a live Keras model and back: `load`, `save`, `build_transformer_model`, the registry of families."""

from __future__ import annotations

import gc
import os
from collections.abc import Collection, Mapping
from contextlib import contextmanager
from typing import Any

import keras

from tfloader.checkpoints import open_checkpoint, write_safetensors, write_tensorflow
from tfloader.config import TransformerConfig
from tfloader.errors import ConfigError, WeightsError, listing
from tfloader.files import write_json
from tfloader.models.bert import BERT
from tfloader.models.gpt2 import GPT2
from tfloader.models.gpt2_ml import GPT2_ML
from tfloader.models.t5 import T5
from tfloader.models.transformer import Transformer, split_options
from tfloader.naming import RELEASES, detect_release, find_config, folder_of, read_config, read_raw_config, shapes_of
from tfloader.naming.base import Release
from tfloader.weights import load_weights, tensors_to_save

FAMILIES: dict[str, type[Transformer]] = {"bert": BERT, "gpt2": GPT2, "gpt2_ml": GPT2_ML, "t5": T5}

# bert4keras' further names: (family, options).
ALIASES: dict[str, tuple[str, dict[str, Any]]] = {
    f"{name}{suffix}": ("t5", {"part": part} if part else {})
    for name in ("t5", "t5.1.0", "t5.1.1", "mt5.1.1")
    for suffix, part in (("", None), ("_encoder", "encoder"), ("_decoder", "decoder"))
}

# build_transformer_model gives what bert4keras gave: probabilities. `load` gives logits.
BERT4KERAS_DEFAULTS = {
    "gpt2": {"final_activation": "softmax"},
    "gpt2_ml": {"final_activation": "softmax"},
    "t5": {"with_lm": True},
}
LOGITS = {"bert": {"with_mlm": "linear"}}


def register_family(name: str, family: type[Transformer]) -> None:
    """Adds a family of your own, to be named by `model=name` and by the `family` of a registered release."""
    FAMILIES[name] = family


def load(
    path: str | os.PathLike | Mapping[str, Any],
    *,
    model: str | type[Transformer] | None = None,
    application: str | None = None,
    dtype: Any = None,
    config: str | os.PathLike | Mapping[str, Any] | None = None,
    compat: str | None = None,
    ignore: Collection[str] = (),
    ignore_config_keys: Collection[str] = (),
    **options: Any,
) -> keras.Model:
    """Loads a checkpoint into a Keras model, exactly or not at all.

    Encoders give the last hidden states [batch, length, hidden], or the heads that are asked for (with_pool, with_nsp,
    with_mlm); language models (GPT-2, GPT2_ML, T5, BERT with application "lm" or "unilm") give logits
    [batch, length, vocab].

    Args:
        path: a folder, one of its files, a TensorFlow checkpoint's prefix, or a mapping of arrays.
        model: family, by name or class, where it is not the one that the checkpoint's names say.
        application: "encoder", "lm" (causal) or "unilm"; None: as the config says, else "encoder" for BERT.
        dtype: "float32" (None: Keras' global policy), "bfloat16", "float16", "mixed_bfloat16", "mixed_float16".
        config: the config file, or its content as a dictionary, where it is not beside the checkpoint.
        compat: "bert4keras" reproduces that library's numbers where they differ from the original's.
        ignore: patterns of tensors that may stay unread, such as "classifier.*".
        ignore_config_keys: keys of the config file that you know to change nothing.
        **options: options of the family's builder (with_mlm=True, keep_tokens=[...] ...) and config values that
            override the file's (num_hidden_layers=3).

    Raises:
        CheckpointError, ConfigError, WeightsError: naming the file, what was found, and what to do.
    """
    family_name, preset = _family_name(model)
    transformer = _built(
        path, config, family_name, application, dtype, compat, ignore, ignore_config_keys, {**preset, **options}, LOGITS
    )
    return transformer.model


def build_transformer_model(
    config_path: str | os.PathLike | Mapping[str, Any] | None = None,
    checkpoint_path: str | os.PathLike | Mapping[str, Any] | None = None,
    model: str | type[Transformer] = "bert",
    application: str = "encoder",
    return_keras_model: bool = True,
    **options: Any,
) -> keras.Model | Transformer:
    """bert4keras' entry point: a model from a config, filled from a checkpoint if one is given.

    Language-model heads give probabilities, as they did there; ask for "linear" to get logits.

    Args:
        config_path: the config file or its content; None: beside the checkpoint.
        checkpoint_path: as `load`'s path; None: the model keeps its random start.
        model: family, by name ("bert", "gpt2", "gpt2_ml", "t5.1.1" ...) or class.
        application: "encoder", "lm" or "unilm".
        return_keras_model: False returns the Transformer with `.model`, `.layers` and, for T5, `.encoder`, `.decoder`.
        **options: as for `load`, `dtype`, `compat` and `ignore` included.
    """
    family_name, preset = _family_name(model)
    options = {**preset, **options}
    special = {
        name: options.pop(name, default)
        for name, default in (("dtype", None), ("compat", None), ("ignore", ()), ("ignore_config_keys", ()))
    }
    causal = family_name in ("gpt2", "gpt2_ml")
    transformer = _built(
        checkpoint_path,
        config_path,
        family_name,
        None if application == "encoder" and (causal or options.get("application")) else application,
        special["dtype"],
        special["compat"],
        special["ignore"],
        special["ignore_config_keys"],
        options,
        BERT4KERAS_DEFAULTS,
    )
    return transformer.model if return_keras_model else transformer


def save(
    model: keras.Model | Transformer,
    path: str | os.PathLike,
    format: str = "huggingface",
    *,
    tokenizer: Any = None,
    max_shard_bytes: int = 5 * 1000**3,
) -> None:
    """Writes a model as a public checkpoint: tensors, config, and the tokenizer's files if one is given.

    Args:
        model: what `load` or `build_transformer_model` returned (or the Transformer).
        path: the folder; it is made if need be.
        format: "huggingface" (config.json and safetensors, which transformers opens where it knows the family) or
            "tensorflow" (the names and config of the original release).
        tokenizer: its files are written too.
        max_shard_bytes: size from which safetensors are split.

    Raises:
        ConfigError, WeightsError: the format cannot express this model; nothing is written.
    """
    transformer = model if isinstance(model, Transformer) else getattr(model, "transformer", None)
    if not isinstance(transformer, Transformer):
        raise WeightsError(
            "This model was not made by tfloader, or was read back by keras.saving.load_model and has lost its config. "
            "Pass the model that load() or build_transformer_model() returned; models built on top of it share its "
            "variables."
        )
    beyond = transformer.beyond_the_weights()
    if beyond:
        raise WeightsError(
            f"No checkpoint format can note these options, and without them the weights mean something else:\n"
            f"{listing(beyond)}\nUse model.save('file.keras')."
        )
    release = release_to_write(transformer, format)
    config = config_to_write(transformer.config, release)
    tensors = tensors_to_save(transformer, release)
    if release.architecture:
        architecture, prefix = release.architecture([name for name, _, _ in tensors])
        config["architectures"] = [architecture]
        config["dtype"] = tensors[0][1].dtype
        tensors = [(name.removeprefix(prefix), spec, make) for name, spec, make in tensors]
    path = os.fspath(path)
    os.makedirs(path, exist_ok=True)
    if format == "huggingface":
        write_safetensors(path, tensors, max_shard_bytes=max_shard_bytes)
    else:
        write_tensorflow(os.path.join(path, f"{transformer.config.family}_model.ckpt"), tensors)
    write_json(os.path.join(path, release.written_config), config)
    if tokenizer is not None:
        tokenizer.save(path)


def release_to_write(transformer: Transformer, format: str) -> Release:
    """The release in which a model is written: the one that it came from if that has the format."""
    family = transformer.config.family
    found = [release for release in RELEASES if release.family == family and release.writes == format]
    if not found:
        formats = sorted({release.writes for release in RELEASES if release.family == family and release.writes})
        raise ConfigError(
            f"{family!r} models cannot be written as {format!r}; there is {' and '.join(formats) or 'none'}."
        )
    return transformer.release if transformer.release in found else found[0]


def config_to_write(config: TransformerConfig, release: Release) -> dict[str, Any]:
    """The config in a release's dialect: the one of the model's own type, if there are several."""
    own = [item for item in release.dialects if config.model_type == item.constants.get("model_type")]
    return (own or list(release.dialects))[0].write(config)


def _family_name(model: str | type[Transformer] | None) -> tuple[str | type[Transformer] | None, dict[str, Any]]:
    if model is None or not isinstance(model, str) or model in FAMILIES:
        return model, {}
    if model in ALIASES:
        return ALIASES[model]
    raise ConfigError(f"Unknown model {model!r}; there are {', '.join([*FAMILIES, *ALIASES])}. See register_family.")


def _built(
    path: Any,
    config: Any,
    model: str | type[Transformer] | None,
    application: str | None,
    dtype: Any,
    compat: str | None,
    ignore: Collection[str],
    ignore_config_keys: Collection[str],
    options: dict[str, Any],
    defaults: Mapping[str, Mapping[str, Any]],
) -> Transformer:
    """What `load` and `build_transformer_model` share."""
    if compat not in (None, "bert4keras"):
        raise ConfigError(f"compat must be None or 'bert4keras', found {compat!r}.")
    checkpoint = None if path is None else open_checkpoint(path)
    release = _guess_release(config, model) if checkpoint is None else detect_release(checkpoint)
    if isinstance(model, str) and release.family != model:
        raise ConfigError(
            f"model={model!r}, but the checkpoint is a {release.title} one: pass model={release.family!r}."
        )
    family = FAMILIES[release.family] if model is None or isinstance(model, str) else model
    overrides, builder = split_options(family, options)
    if application is not None:
        overrides["application"] = application
    if config is None:
        if checkpoint is None or isinstance(path, Mapping):
            raise ConfigError("A config is needed: pass the path of the config file, or its content as a dictionary.")
        config = find_config(folder_of(path), release)
    tensors = None if checkpoint is None else shapes_of(checkpoint, release)
    source = read_config(release, config, tensors, _needed(overrides), ignore_config_keys)
    meant = source
    if compat:
        meant = meant.replace(**{name: habit(getattr(meant, name)) for name, habit in family.bert4keras_habits.items()})
        if builder.get("residual_attention_scores") is True:
            builder["residual_attention_scores"] = "previous"
    meant = meant.replace(**overrides)
    for name, value in defaults.get(release.family, {}).items():
        if name != "with_mlm" or meant.application != "encoder":
            builder.setdefault(name, value)
    transformer = family(meant, dtype=dtype, **builder)
    transformer.release = release
    if checkpoint is None:
        return transformer.build()
    with checkpoint, _filled_later(transformer):
        transformer.build()
        load_weights(
            transformer, checkpoint, release=release, ignore=ignore, source_config=source, fresh="layers" not in builder
        )
    return transformer


def _needed(overrides: Mapping[str, Any]) -> Mapping[str, Any]:
    """Of the user's config values, those that a file may lack altogether; the others are applied after reading."""
    return {name: value for name, value in overrides.items() if name in ("vocab_size", "application")}


def _guess_release(config: Any, model: Any) -> Release:
    """The release of a config that comes without a checkpoint."""
    if config is None:
        raise ConfigError("Pass config_path, checkpoint_path, or both.")
    raw = dict(config) if isinstance(config, Mapping) else read_raw_config(os.fspath(config))
    family = model if isinstance(model, str) else _family_of_class(model)
    candidates = [
        (dialect.missing(raw), index)
        for index, release in enumerate(RELEASES)
        for dialect in release.dialects
        if release.family == family and dialect.accepts(raw)
    ]
    if not candidates:
        raise ConfigError(f"{config}: not a config of a {family!r} model (model_type {raw.get('model_type')!r}).")
    return RELEASES[min(candidates)[1]]


def _family_of_class(model: type[Transformer]) -> str:
    """The family that a user's own class stands for: its own, or the one that it derives from."""
    for known in model.__mro__:
        for name, family in FAMILIES.items():
            if family is known:
                return name
    raise ConfigError(f"{model.__name__} belongs to no family: see register_family.")


@contextmanager
def _filled_later(transformer: Transformer):
    """Within it, new kernels are not initialised: the load that follows assigns every one, or fails.

    The garbage collector rests too: it would search the growing graph again and again, a tenth of a small load.
    """
    collecting = gc.isenabled()
    gc.disable()
    transformer.initializer.filled_later = True
    try:
        yield
    finally:
        transformer.initializer.filled_later = False
        if collecting:
            gc.enable()
