"""What sentence-transformers notes beside a network: how its vectors become one, in modules.json and subfolders."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from tfloader.checkpoints import open_checkpoint
from tfloader.checkpoints.base import TensorSpec
from tfloader.checkpoints.safetensors_writer import write_safetensors
from tfloader.errors import ConfigError, listing
from tfloader.files import read_json, show, write_json
from tfloader.layers.pooling import MODES

MODULES = "modules.json"
LENGTHS = "sentence_bert_config.json"
PROMPTS = "config_sentence_transformers.json"
WRITTEN = "sentence_transformers.models."
# Full names of modules, as written up to sentence-transformers 5, and from 6 on.
KINDS = {f"{WRITTEN}{name}": name for name in ("Transformer", "Pooling", "Dense", "Normalize")} | {
    "sentence_transformers.base.modules.transformer.Transformer": "Transformer",
    "sentence_transformers.sentence_transformer.modules.pooling.Pooling": "Pooling",
    "sentence_transformers.base.modules.dense.Dense": "Dense",
    "sentence_transformers.base.modules.normalize.Normalize": "Normalize",
}
# What version 6 notes of a transformer and of a dense layer, where nothing unusual is asked for.
USUAL = {
    "transformer_task": "feature-extraction",
    "modality_config": {"text": {"method": "forward", "method_output_name": "last_hidden_state"}},
    "module_input_name": "sentence_embedding",
    "module_output_name": "sentence_embedding",
}
POOLING_KEYS = {
    "cls": "pooling_mode_cls_token",
    "max": "pooling_mode_max_tokens",
    "mean": "pooling_mode_mean_tokens",
    "mean_sqrt_len": "pooling_mode_mean_sqrt_len_tokens",
    "weightedmean": "pooling_mode_weightedmean_tokens",
    "lasttoken": "pooling_mode_lasttoken",
}
ACTIVATIONS = {
    "torch.nn.modules.activation.Tanh": "tanh",
    "torch.nn.modules.activation.ReLU": "relu",
    "torch.nn.modules.activation.GELU": "gelu",
    "torch.nn.modules.activation.Sigmoid": "sigmoid",
    "torch.nn.modules.linear.Identity": "linear",
}
NO_LIMIT = 10**9
SIMILARITIES = ("cosine", "dot", "euclidean", "manhattan")


@dataclass(frozen=True)
class Dense:
    """A dense layer over the vectors: kernel [in, out], bias [out] or None, the activation's name in Keras."""

    kernel: np.ndarray
    bias: np.ndarray | None
    activation: str


@dataclass(frozen=True)
class SentenceModules:
    """The steps from token vectors to a sentence's.

    Attributes:
        pooling: see `tfloader.layers.pooling.Pooling`.
        include_prompt: whether the tokens of a prompt take part in it.
        dense: layers over the pooled vector, in order.
        normalize: whether vectors have length 1 at the end.
        max_length: the most tokens of a text, what is beyond is cut off; None: as many as the network reads.
        lower: whether texts are made lower case before they are tokenized.
        prompts, default_prompt: what is put before texts, by name, and the one that is used without a name.
        similarity: "cosine", "dot", "euclidean" or "manhattan".
    """

    pooling: tuple[str, ...] = ("mean",)
    include_prompt: bool = True
    dense: tuple[Dense, ...] = ()
    normalize: bool = True
    max_length: int | None = None
    lower: bool = False
    prompts: Mapping[str, str] = field(default_factory=dict)
    default_prompt: str | None = None
    similarity: str = "cosine"


def read_modules(folder: str) -> SentenceModules | None:
    """Reads the modules of a folder; None if it has no modules.json.

    Raises:
        ConfigError: a file is damaged, or asks for what is not implemented.
        CheckpointError: the weights of a dense layer cannot be read.
    """
    path = os.path.join(folder, MODULES)
    if not os.path.exists(path):
        return None
    steps = [_step(path, item) for item in read_json(path, ConfigError, kind=list)]
    kinds = [kind for kind, _ in steps]
    if not re.fullmatch("Transformer Pooling( Dense)*( Normalize)?", " ".join(kinds)) or steps[0][1]:
        raise ConfigError(
            f"{path}: expected a Transformer in the folder itself, Pooling, any number of Dense, perhaps Normalize; "
            f"found {', '.join(f'{kind} in {place!r}' for kind, place in steps)}."
        )
    pooling, include_prompt = _pooling(os.path.join(folder, steps[1][1], "config.json"))
    lengths = _known(
        os.path.join(folder, LENGTHS),
        {"max_seq_length": None, "do_lower_case": False},
        {**USUAL, "module_output_name": "token_embeddings"},
    )
    prompts = _known(
        os.path.join(folder, PROMPTS),
        {"prompts": {}, "default_prompt_name": None, "similarity_fn_name": "cosine"},
        {"model_type": "SentenceTransformer"},
        ignored=("__version__",),
    )
    return _checked(
        path,
        SentenceModules(
            pooling=pooling,
            include_prompt=include_prompt,
            dense=tuple(_dense(os.path.join(folder, place)) for kind, place in steps if kind == "Dense"),
            normalize=kinds[-1] == "Normalize",
            max_length=lengths["max_seq_length"] or _model_max_length(folder),
            lower=lengths["do_lower_case"],
            prompts=prompts["prompts"] or {},
            default_prompt=prompts["default_prompt_name"],
            similarity=prompts["similarity_fn_name"] or "cosine",
        ),
    )


def write_modules(folder: str, modules: SentenceModules, size: int) -> None:
    """Writes what `read_modules` reads; `size` is that of the network's vectors."""
    steps = [("Transformer", ""), ("Pooling", "1_Pooling")]
    steps += [("Dense", f"{number}_Dense") for number in range(2, 2 + len(modules.dense))]
    steps += [("Normalize", f"{len(steps)}_Normalize")] if modules.normalize else []
    listed = [
        {"idx": number, "name": str(number), "path": place, "type": WRITTEN + kind}
        for number, (kind, place) in enumerate(steps)
    ]
    for _, place in steps[1:]:
        os.mkdir(os.path.join(folder, place))
    write_json(os.path.join(folder, MODULES), listed)
    if modules.pooling == tuple(mode for mode in MODES if mode in modules.pooling):
        pooling = {"word_embedding_dimension": size}
        pooling |= {key: mode in modules.pooling for mode, key in POOLING_KEYS.items()}
    else:  # another order, which only version 6 can note
        names = [f"{mode}_tokens" if mode == "mean_sqrt_len" else mode for mode in modules.pooling]
        pooling = {"embedding_dimension": size, "pooling_mode": names}
    pooling["include_prompt"] = modules.include_prompt
    write_json(os.path.join(folder, "1_Pooling", "config.json"), pooling)
    names = {ours: theirs for theirs, ours in ACTIVATIONS.items()}
    for layer, (_, place) in zip(modules.dense, steps[2:], strict=False):
        path = os.path.join(folder, place)
        write_json(
            os.path.join(path, "config.json"),
            {
                "in_features": layer.kernel.shape[0],
                "out_features": layer.kernel.shape[1],
                "bias": layer.bias is not None,
                "activation_function": names[layer.activation],
            },
        )
        arrays = {"linear.weight": np.ascontiguousarray(layer.kernel.T)}
        arrays |= {} if layer.bias is None else {"linear.bias": layer.bias}
        specs = {name: TensorSpec(array.shape, array.dtype.name) for name, array in arrays.items()}
        write_safetensors(path, [(name, spec, partial(arrays.get, name)) for name, spec in specs.items()])
    write_json(os.path.join(folder, LENGTHS), {"max_seq_length": modules.max_length, "do_lower_case": modules.lower})
    write_json(
        os.path.join(folder, PROMPTS),
        {
            "prompts": dict(modules.prompts),
            "default_prompt_name": modules.default_prompt,
            "similarity_fn_name": modules.similarity,
        },
    )


def _step(path: str, item: Any) -> tuple[str, str]:
    """Kind and folder of a module."""
    kind, place = (item.get("type"), item.get("path")) if isinstance(item, Mapping) else (None, None)
    if kind not in KINDS:
        raise ConfigError(f"{path}: the module {show(str(kind))} is not implemented; there are {', '.join(KINDS)}.")
    if not isinstance(place, str) or not re.fullmatch(r"[\w-][\w.-]*|", place):
        raise ConfigError(f"{path}: {show(str(place))} is not the name of a folder beside it.")
    return KINDS[kind], place


def _known(
    path: str, defaults: Mapping[str, Any], usual: Mapping[str, Any] | None = None, ignored: Collection[str] = ()
) -> dict[str, Any]:
    """The values of a file, if there is one, or their defaults.

    Raises:
        ConfigError: a key is not known, or one of `usual` has another value.
    """
    found, usual = read_json(path, ConfigError) if os.path.exists(path) else {}, usual or {}
    problems = [
        f"{show(key)}: {value!r:.60}" + (f", expected {usual[key]!r}" if key in usual else "")
        for key, value in sorted(found.items())
        if key not in defaults and key not in ignored and not (key in usual and usual[key] == value)
    ]
    if problems:
        raise ConfigError(f"{path}: not implemented:\n{listing(problems)}")
    return {name: found.get(name, value) for name, value in defaults.items()}


def _pooling(path: str) -> tuple[tuple[str, ...], bool]:
    """The modes in their order, and whether a prompt is pooled: from one list, or from a yes or no for each mode."""
    sizes = dict.fromkeys(("word_embedding_dimension", "embedding_dimension"))
    found = _known(
        path, {**dict.fromkeys(POOLING_KEYS.values(), False), **sizes, "include_prompt": True, "pooling_mode": None}
    )
    listed = found["pooling_mode"]
    names = [listed] if isinstance(listed, str) else listed
    if names is None:
        names = [mode for mode in MODES if found[POOLING_KEYS[mode]] is True]
    modes = tuple("mean_sqrt_len" if name == "mean_sqrt_len_tokens" else name for name in names)
    flags = [found[key] for key in (*POOLING_KEYS.values(), "include_prompt")]
    if not modes or not set(modes) <= set(MODES) or not all(isinstance(flag, bool) for flag in flags):
        raise ConfigError(
            f"{path}: expected at least one of the modes {', '.join(MODES)}; found {listed or flags!r:.100}."
        )
    return modes, found["include_prompt"]


def _model_max_length(folder: str) -> int | None:
    """What the tokenizer's settings say, where version 6 notes the limit; without one they have a huge number."""
    path = os.path.join(folder, "tokenizer_config.json")
    length = read_json(path, ConfigError).get("model_max_length") if os.path.exists(path) else None
    return length if isinstance(length, int) and length < NO_LIMIT else None


def _dense(folder: str) -> Dense:
    path = os.path.join(folder, "config.json")
    names = {"in_features": None, "out_features": None, "bias": True, "activation_function": None}
    found = _known(path, names, USUAL)
    if found["activation_function"] not in ACTIVATIONS:
        raise ConfigError(
            f"{path}: activation_function {show(str(found['activation_function']))} is not implemented; there are "
            f"{', '.join(ACTIVATIONS)}."
        )
    with open_checkpoint(folder) as checkpoint:
        arrays = {name: np.asarray(checkpoint.read(name)) for name in checkpoint}
    size = (found["out_features"], found["in_features"])
    expected = {"linear.weight": size} | ({"linear.bias": size[:1]} if found["bias"] else {})
    shapes = {name: array.shape for name, array in arrays.items()}
    if shapes != expected:
        raise ConfigError(f"{path}: its tensors should be {expected}; there are {shapes}.")
    return Dense(arrays["linear.weight"].T, arrays.get("linear.bias"), ACTIVATIONS[found["activation_function"]])


def _checked(path: str, modules: SentenceModules) -> SentenceModules:
    length, prompts = modules.max_length, modules.prompts
    problems = []
    if length is not None and (type(length) is not int or length < 1):
        problems.append(f"max_seq_length: {length!r:.40}")
    if not isinstance(prompts, Mapping) or not all(isinstance(prompt, str) for prompt in prompts.values()):
        problems.append(f"prompts: {prompts!r:.40}")
    elif modules.default_prompt is not None and modules.default_prompt not in prompts:
        problems.append(
            f"default_prompt_name: {modules.default_prompt!r:.40} is none of {', '.join(prompts) or 'no prompts'}"
        )
    if not isinstance(modules.lower, bool):
        problems.append(f"do_lower_case: {modules.lower!r:.40}")
    if modules.similarity not in SIMILARITIES:
        problems.append(f"similarity_fn_name: {modules.similarity!r:.40} is none of {', '.join(SIMILARITIES)}")
    if problems:
        raise ConfigError(f"{path}: what lies beside it cannot be used:\n{listing(problems)}")
    return modules
