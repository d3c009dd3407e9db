"""From a path to a live Keras model and back: `load`, `save`, `build_transformer_model`."""

from __future__ import annotations

import gc
import inspect
import os
import warnings
from collections.abc import Collection, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal, Unpack, overload

import keras

from tfloader.border import public
from tfloader.checkpoints.base import folder_of
from tfloader.config import BERT4KERAS_NAMES, CONFIG_FIELDS
from tfloader.errors import CheckpointError, ConfigError, TokenizerError, WeightsError, listing
from tfloader.models.families import FAMILIES, families_meant
from tfloader.models.transformer import Transformer
from tfloader.models.vocabulary import VocabularyCut
from tfloader.naming import (
    detect_release,
    find_config,
    read_config,
    read_raw_config,
    shapes_of,
    uncut_vocab_size_beside,
)
from tfloader.naming.reading import has_config, release_of_config
from tfloader.naming.renamed import open_renamed
from tfloader.naming.writing import (
    as_published,
    config_to_write,
    in_place_of_an_earlier_save,
    release_to_write,
    write_folder,
    write_tokenizer,
)
from tfloader.staging import staged
from tfloader.suggestions import did_you_mean
from tfloader.weights import load_weights, tensors_to_save

if TYPE_CHECKING:
    from tfloader.option_types import BuildOptions, LoadOptions

# What a checkpoint's tensors go by, whatever the user's model has of them.
OF_THE_TENSORS = {
    *("num_hidden_layers", "num_decoder_layers", "num_hidden_groups", "inner_group_num", "max_position_embeddings"),
}
# A path, or the content: of a config a dictionary, of a checkpoint a mapping of arrays.
Source = str | os.PathLike[str] | Mapping[str, Any]


@public
def load(
    path: Source,
    *,
    model: str | type[Transformer] | None = None,
    application: str | None = None,
    dtype: Any = None,
    config: Source | None = None,
    compat: str | None = None,
    ignore: str | Collection[str] = (),
    ignore_config_keys: str | Collection[str] = (),
    rename: Mapping[str, str] | None = None,
    **options: Unpack[LoadOptions],
) -> keras.Model:
    """Loads a checkpoint into a Keras model, exactly or not at all.

    Encoders give the last hidden states [batch, length, hidden], or the heads that are asked for (with_pool, with_nsp,
    with_mlm, head); language models (GPT, GPT-2, GPT2_ML, T5, BERT with application "lm" or "unilm") give logits
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
        rename: what the names of tensors begin with -> what stands there in the release: {"model.": ""}; with a star
            in front, what they end with: {"*/ExponentialMovingAverage": ""}.
        **options: options of the family's builder (with_mlm=True, keep_tokens=[...] ...) and config values that
            override the file's (num_hidden_layers=3).

    Raises:
        CheckpointError, ConfigError, WeightsError: naming the file, what was found, and what to do.
    """
    own = {"dtype": dtype, "compat": compat, "ignore": ignore, "ignore_config_keys": ignore_config_keys}
    return _built(path, config, model, application, False, rename=rename, **own, **options).model


@overload
def build_transformer_model(
    config_path: Source | None = ...,
    checkpoint_path: Source | None = ...,
    model: str | type[Transformer] = ...,
    application: str = ...,
    return_keras_model: Literal[True] = ...,
    **options: Unpack[BuildOptions],
) -> keras.Model: ...
@overload
def build_transformer_model(
    config_path: Source | None = ...,
    checkpoint_path: Source | None = ...,
    model: str | type[Transformer] = ...,
    application: str = ...,
    *,
    return_keras_model: Literal[False],
    **options: Unpack[BuildOptions],
) -> Transformer: ...
@public
def build_transformer_model(
    config_path: Source | None = None,
    checkpoint_path: Source | None = None,
    model: str | type[Transformer] = "bert",
    application: str = "encoder",
    return_keras_model: bool = True,
    **options: Unpack[BuildOptions],
) -> keras.Model | Transformer:
    """bert4keras' entry point: a model from a config, filled from a checkpoint if one is given.

    Language-model heads give probabilities, as they did there; ask for "linear" to get logits.

    Args:
        config_path: the config file or its content; None: beside the checkpoint.
        checkpoint_path: as `load`'s path; None: the model keeps its random start.
        model: family, by name ("bert", "gpt", "gpt2", "gpt2_ml", "t5.1.1" ...) or class.
        application: "encoder", "lm" or "unilm".
        return_keras_model: False returns the Transformer with `.model`, `.layers` and, for T5, `.encoder`, `.decoder`.
        **options: as for `load`, its dtype, compat, ignore, ignore_config_keys and rename among them.
    """
    causal = all("encoder" not in FAMILIES[name].applications for name in families_meant(model)[0])
    meant = None if application == "encoder" and causal else application
    transformer = _built(checkpoint_path, config_path, model, meant, True, **options)
    return transformer.model if return_keras_model else transformer


@public
def save(
    model: keras.Model | Transformer,
    path: str | os.PathLike,
    format: str = "huggingface",
    *,
    tokenizer: Any = None,
    max_shard_bytes: int = 5 * 1000**3,
) -> None:
    """Writes a model as a public checkpoint: tensors, config, and the tokenizer's files if one is given.

    They appear all at once: whatever fails or kills the process, `load` finds the old model or the new one. A folder
    holds one checkpoint, so an earlier save there, of any format and family, is replaced as a whole. Of that, the
    tokenizer's files and generation_config.json stay if no tokenizer is given, and the earlier model is of the same
    family and has as many tokens. Files of your own (README.md, adapters, states of a training) stay. A folder with a
    checkpoint that is no earlier save (pytorch_model.bin, tf_model.h5, another .ckpt, what `download` fetched) is
    refused.

    Args:
        model: what `load` or `build_transformer_model` returned (or the Transformer).
        path: the folder; it is made if need be.
        format: "huggingface" (config.json and safetensors, which transformers opens where it knows the family) or
            "tensorflow" (the names and config of the original release).
        tokenizer: what `load_tokenizer` returned; its files are written too.
        max_shard_bytes: size from which safetensors are split.

    Raises:
        ConfigError, WeightsError, TokenizerError: the format cannot express this model or tokenizer.
        CheckpointError: the folder cannot be written, or holds another checkpoint. In any case nothing there has
            changed.
    """
    transformer = model if isinstance(model, Transformer) else getattr(model, "transformer", None)
    if not isinstance(transformer, Transformer):
        raise WeightsError(
            "This model was not made by tfloader, or was read back by keras.saving.load_model and has lost its config. "
            "Pass the model that load() or build_transformer_model() returned; models built on top of it share its "
            "variables."
        )
    if tokenizer is not None and not hasattr(tokenizer, "save"):
        raise TokenizerError(f"tokenizer: expected what load_tokenizer() returns, found {type(tokenizer).__name__}.")
    beyond = transformer.beyond_the_weights()
    if beyond:
        raise WeightsError(
            f"No checkpoint format can note these options, and without them the weights mean something else:\n"
            f"{listing(beyond)}\nUse model.save('file.keras')."
        )
    release = release_to_write(transformer.config, format, transformer.release)
    config = config_to_write(transformer.config, release)
    tensors = as_published(release, config, tensors_to_save(transformer, release))
    nbytes = sum(spec.nbytes for _, spec, _ in tensors)
    replaced = in_place_of_an_earlier_save(os.fspath(path), release, transformer.config, tokenizer)
    with staged(path, CheckpointError, nbytes, replaced) as stage:
        write_folder(stage, release, config, tensors, max_shard_bytes)
        write_tokenizer(stage, tokenizer, release)


def _built(
    path: Any,
    config: Any,
    model: str | type[Transformer] | None,
    application: str | None,
    bert4keras: bool,
    /,
    dtype: Any = None,
    compat: str | None = None,
    ignore: str | Collection[str] = (),
    ignore_config_keys: str | Collection[str] = (),
    rename: Mapping[str, str] | None = None,
    **options: Any,
) -> Transformer:
    """What `load` and `build_transformer_model` share."""
    if compat not in (None, "bert4keras"):
        raise ConfigError(f"compat must be None or 'bert4keras', found {compat!r}.")
    families, preset = families_meant(model)
    checkpoint = None if path is None else open_renamed(path, rename)
    # All of a config file's keys as keywords, as bert4keras allows; their words are then the file's.
    whole = config is None and {"vocab_size", "hidden_size"} <= options.keys()
    if whole and not has_config(checkpoint):
        config = {}
    release = (
        release_of_config(config, families) if checkpoint is None else detect_release(checkpoint, families, config)
    )
    if isinstance(model, str) and release.family not in families:
        raise ConfigError(
            f"model={model!r}, but the checkpoint is a {release.title} one: pass model={release.family!r}."
        )
    family = FAMILIES[release.family] if model is None or isinstance(model, str) else model
    if whole:
        config, options = _in_words_of_a_file(release, options, config, checkpoint)
    overrides, builder = split_options(family, {**preset, **options})
    if application is not None:
        overrides["application"] = application
    if config is None:
        if checkpoint is None or isinstance(path, Mapping):
            raise ConfigError("A config is needed: pass the path of the config file, or its content as a dictionary.")
        config = find_config(folder_of(checkpoint.path), release)
    tensors = None if checkpoint is None else shapes_of(checkpoint, release)
    others = {name: value for name, value in overrides.items() if name not in OF_THE_TENSORS}
    meant = source = read_config(release, config, tensors, others, ignore_config_keys, given=overrides)
    if checkpoint is not None:
        checkpoint.check_in_place()
    if checkpoint is not None and meant.uncut_vocab_size is None:
        overrides.setdefault("uncut_vocab_size", uncut_vocab_size_beside(checkpoint, release))
    if builder.get("keep_tokens") is not None:
        uncut_size = overrides.get("uncut_vocab_size", meant.uncut_vocab_size)
        cut = VocabularyCut(meant.vocab_size, builder["keep_tokens"], None, uncut_size)
        stated = {name: token for name, token in meant.special_tokens.items() if name not in overrides}
        meant = meant.replace(**cut.moved(stated, family.fixed_tokens))
    if compat:
        meant = meant.replace(**{name: habit(getattr(meant, name)) for name, habit in family.bert4keras_habits.items()})
        if builder.get("residual_attention_scores") is True:
            builder["residual_attention_scores"] = "previous"
    meant = meant.replace(**overrides)
    if bert4keras:
        builder = {**family.bert4keras_defaults.get(meant.application, {}), **builder}
    transformer = family(meant, dtype=dtype, **builder)
    transformer.release = release
    for told in transformer.config.strange_tokens().values():
        warnings.warn(told, stacklevel=4)
    if checkpoint is None:
        return transformer.build()
    with checkpoint, _filled_later(transformer):
        transformer.build()
        new = load_weights(
            transformer, checkpoint, release=release, ignore=ignore, source_config=source, fresh="layers" not in builder
        )
    if new:
        told = f"The head {transformer.config.head!r} is new: {checkpoint.path} does not hold its {', '.join(new)}."
        warnings.warn(f"{told} They start at random.", stacklevel=4)
    return transformer


def _in_words_of_a_file(
    release: Any, options: dict[str, Any], config: Source | None, checkpoint: Any
) -> tuple[Source | None, dict[str, Any]]:
    """Config and options, of keywords that are all keys of a config file; one may lie beside the checkpoint, too."""
    dialect = release.dialect_for(options, "the given config")
    stated = {name: value for name, value in options.items() if dialect.knows(name)}
    options = {name: value for name, value in options.items() if name not in stated}
    if config is not None:
        return stated, options
    said = read_config(release, read_raw_config(find_config(folder_of(checkpoint.path), release)) | stated)
    fields = {key.ours: getattr(said, key.ours) for key in dialect.keys if set(key.names) & set(stated)}
    return None, options | fields


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


@contextmanager
def _filled_later(transformer: Transformer):
    """Within it, new kernels are not initialised: the load that follows assigns every one, or fails.

    The garbage collector, which takes a tenth of a small load to search the growing graph, rests too.
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
