"""What goes into an export's folder, the check that it is the same model, and the folder's making."""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfloader import __version__
from tfloader.checks import Check
from tfloader.conversion import companions
from tfloader.conversion.comparison import TEXTS
from tfloader.conversion.folder import new_folder, problems_with
from tfloader.conversion.source import Source, token_ids
from tfloader.conversion.streaming import reason_not_to_verify
from tfloader.errors import ConfigError, ConversionError, TfloaderError, TokenizerError, listing
from tfloader.exporting.formats import FORMATS, Arrays, Format, as_arrays
from tfloader.exporting.signatures import (
    PREFILL,
    SERVE,
    STEP,
    TEXT,
    Limits,
    Signature,
    decoding_signatures,
    model_signature,
    sample,
)
from tfloader.exporting.text import WordPieceInGraph, reasons_against
from tfloader.files import write_json
from tfloader.models.builder import load
from tfloader.naming.writing import config_to_write, release_to_write
from tfloader.tokenizers import load_tokenizer

# Of the largest output: other programs add up in another order.
TOLERANCE = {"float16": 5e-2, "bfloat16": 5e-2}
SIZES = ((2, 7), (3, 5))  # batch and length of what is tried
DESCRIPTION = "signatures.json"
# What a text's tokens are to a model, from (ids, mask).
FROM_TEXT: dict[str, Callable[[Any, Any], Any]] = {
    "input_ids": lambda ids, mask: ids,
    "attention_mask": lambda ids, mask: mask,
    "token_type_ids": lambda ids, mask: tf.zeros_like(ids),
}


def check(to: str, folder: str, source: str | None, text: bool | None) -> None:
    """Raises a ConversionError with all that can be known before a model is loaded."""
    if to not in FORMATS:
        raise ConversionError(f"to={to!r} is no format to export to; there are {', '.join(FORMATS)}.")
    form = FORMATS[to]
    problems = [*problems_with(folder, source), *form.missing()]
    if text and not form.holds_text:
        problems.append("text=True: the format has no strings")
    refuse(to, problems)


def refuse(to: str, problems: Iterable[str]) -> None:
    problems = list(problems)
    if problems:
        raise ConversionError(f"to={to!r} is not possible:\n{listing(problems)}")


def converted(to: str, write: Callable[[], None]) -> None:
    """Calls a converter, whatever it raises, and says in our words that it failed."""
    try:
        write()
    except (TfloaderError, OSError):
        raise
    except Exception as error:
        said = next((line for line in str(error).splitlines() if line.strip()), "")
        raise ConversionError(
            f"to={to!r}: its converter cannot express a part of this model ({type(error).__name__}: {said[:300]}). "
            "Nothing was left there. Try another format, or newer versions of the converter."
        ) from error


@dataclass(frozen=True)
class Export:
    """A model with what goes along, and what `tfloader.exporting.export` is told of the signatures."""

    model: keras.Model
    tokenizer: Any
    generation: dict[str, Any] | None  # the content of generation_config.json
    text: bool | None
    max_length: int | None
    decoding: bool | None

    def write(self, folder: str, to: str, verify: bool | None) -> list[Check]:
        form, module = FORMATS[to], tf.Module()
        module.variables_of_the_model = [item.value for item in self.model.weights]
        nbytes = sum(item.dtype.size * item.shape.num_elements() for item in module.variables_of_the_model)
        refuse(to, form.problems(self.limits.dtype, nbytes))
        signatures = {SERVE: model_signature(self.model)}
        if form.holds_text and self.text is not False:
            with contextlib.nullcontext() if self.text else contextlib.suppress(TokenizerError):
                signatures[TEXT] = self.text_signature(module, signatures[SERVE])
        if self.decoding is not False:
            with contextlib.nullcontext() if self.decoding else contextlib.suppress(ConfigError):
                signatures |= decoding_signatures(self.model)
        with new_folder(folder, nbytes=nbytes) as stage:
            converted(to, lambda: form.write(module, signatures, stage))
            unverified = reason_not_to_verify(nbytes, verify)
            checks = [] if unverified else list(self.checks(form, stage, signatures))
            write_description(os.path.join(stage, DESCRIPTION), to, signatures)
            self.write_companions(stage)
            return checks

    @functools.cached_property
    def limits(self) -> Limits:
        return Limits.of(self.model)

    # ---- strings

    def text_signature(self, module: tf.Module, serve: Signature) -> Signature:
        if reasons := list(self.reasons_against_text(serve)):
            raise TokenizerError(f"text=True: the model cannot take texts:\n{listing(reasons)}")
        limit = self.max_length or self.limits.positions
        tokenize = WordPieceInGraph(self.tokenizer, limit, truncate=self.max_length is not None)
        module.tokenizer = tokenize  # holds the vocabulary's table

        def function(texts: Any) -> dict[str, Any]:
            ids, mask = tokenize(texts)
            found = serve.function(*(FROM_TEXT[name](ids, mask) for name in serve.inputs))
            return {**found, "input_ids": ids, "attention_mask": mask}

        return Signature.of(function, {"texts": tf.TensorSpec([None], tf.string)})

    def reasons_against_text(self, serve: Signature) -> Iterator[str]:
        limits, tokenizer = self.limits, self.tokenizer
        strange = [name for name, spec in serve.inputs.items() if name not in FROM_TEXT or spec.shape[1] is not None]
        if strange:
            yield f"its input {', '.join(strange)} does not follow from a text"
        if self.max_length and limits.positions and self.max_length > limits.positions:
            yield f"max_length={self.max_length}, but it has {limits.positions} positions"
        if tokenizer is None:
            yield "there is no tokenizer"
            return
        yield from reasons_against(tokenizer)
        if tokenizer.vocab_size > limits.vocab_size:
            yield f"the tokenizer has {tokenizer.vocab_size} tokens, the model {limits.vocab_size}"
        seen = not limits.causal and "attention_mask" not in serve.inputs
        if seen and tokenizer.pad_token_id != limits.pad_token_id:
            yield f"the tokenizer pads with id {tokenizer.pad_token_id}, the model hides {limits.pad_token_id}"

    # ---- the check

    def checks(self, form: Format, folder: str, signatures: Mapping[str, Signature]) -> Iterator[Check]:
        """Runs each signature as it was written, on random input, beside the model.

        Raises:
            ConversionError: the outputs differ by more than rounding.
        """
        tolerance = TOLERANCE.get(self.limits.dtype, 1e-4)
        for name, signature in signatures.items():
            run, largest = form.open(folder, name), 0.0
            for seed, (batch, length) in enumerate(SIZES):
                length = min(length, self.limits.positions or length)
                inputs, expected = self.example(name, signatures, batch, length, seed)
                found = run(**inputs)
                for key, written in form.output_names(signature).items():
                    largest = max(largest, difference(found[written], expected[key]))
            told = f"largest difference {largest:.3g} of the largest output"
            if largest > tolerance:
                raise ConversionError(
                    f"{name}: what was written does not give what the model gives: {told}. Nothing was left there. "
                    "Try other versions of TensorFlow and of the converter, or another format."
                )
            yield Check(name, "ok", f"{told}, on random input of {len(SIZES)} sizes")

    def example(
        self, name: str, signatures: Mapping[str, Signature], batch: int, length: int, seed: int
    ) -> tuple[dict[str, Any], Arrays]:
        """Input for a signature, and what the live model and tokenizer give for it."""
        if name == TEXT:
            # So that they fit into the positions, and where a length is given must be cut.
            most = None if self.max_length or not self.limits.positions else max(self.limits.positions // 3 - 1, 0)
            texts = [text[:most] for text in TEXTS[:batch]]
            tokens = self.tokenizer(texts, max_length=self.max_length)
            values = [FROM_TEXT[key](tokens.input_ids, tokens.attention_mask) for key in signatures[SERVE].inputs]
            found = signatures[SERVE].function(*map(tf.constant, values))
            ids = {"input_ids": tokens.input_ids, "attention_mask": tokens.attention_mask}
            return {"texts": np.array(texts, object)}, as_arrays(found) | ids
        if name == STEP:
            _, state = self.example(PREFILL, signatures, batch, length - 1, seed)
            del state["logits"]
            tokens = np.random.default_rng(seed).integers(0, self.limits.vocab_size, batch)
            inputs = {"token": tokens.astype("int32"), **state}
        else:
            inputs = sample(signatures[name], self.limits, batch, length, seed)
        values = [tf.constant(inputs[key]) for key in signatures[name].inputs]
        return inputs, as_arrays(signatures[name].function(*values))

    # ---- what goes along

    def write_companions(self, folder: str) -> None:
        transformer = getattr(self.model, "transformer", None)
        if transformer is not None:
            with contextlib.suppress(ConfigError):  # a family that has no dialect of its own
                release = release_to_write(transformer.config, "huggingface", transformer.release)
                write_json(os.path.join(folder, release.written_config), config_to_write(transformer.config, release))
        companions.write(folder, self.tokenizer, None, self.generation)


def write_description(path: str, to: str, signatures: Mapping[str, Signature]) -> None:
    """What other programs need to know to call the model."""

    def described(spec: tf.TensorSpec) -> dict[str, Any]:
        return {"dtype": spec.dtype.name, "shape": spec.shape.as_list()}

    content = {}
    for name, item in signatures.items():
        outputs = {theirs: described(item.outputs[ours]) for ours, theirs in FORMATS[to].output_names(item).items()}
        content[name] = {"inputs": {key: described(spec) for key, spec in item.inputs.items()}, "outputs": outputs}
    write_json(path, {"format": to, "tfloader": __version__, "signatures": content})


def gathered(
    model: Any,
    tokenizer: Any,
    dtype: str | None,
    keep_tokens: str | os.PathLike[str] | Sequence[int] | None,
    ignore: Collection[str],
) -> tuple[keras.Model, Any, dict[str, Any] | None]:
    """(model, tokenizer, generation defaults), from a path or from what is loaded already."""
    is_path = isinstance(tokenizer, (str, os.PathLike))
    if isinstance(model, (str, os.PathLike)):
        with Source(os.fspath(model), token_ids(keep_tokens), ignore=ignore) as source:
            if is_path or tokenizer is None or isinstance(tokenizer, bool):
                tokenizer = companions.tokenizer_of(source, tokenizer)
            options: dict[str, Any] = dict(source.load_options, dtype=dtype or "float32")
            built = load(source.path, **{key: value for key, value in options.items() if not key.startswith("with_")})
            return built, tokenizer, companions.generation_defaults(source)
    problems = [
        f"{name} is for a path, and this model is loaded already: give it to load()"
        for name, value in (("dtype", dtype), ("keep_tokens", keep_tokens), ("ignore", ignore or None))
        if value is not None
    ]
    if not isinstance(model, keras.Model) or not getattr(model, "inputs", None):
        problems.append(f"model: expected a path or a functional Keras model, found {type(model).__name__}")
    if problems:
        raise ConversionError(f"This cannot be exported:\n{listing(problems)}")
    return model, load_tokenizer(tokenizer) if is_path else tokenizer or None, None


def difference(found: np.ndarray, expected: np.ndarray) -> float:
    """The largest one, relative to the largest magnitude of what is expected; for integers any is infinite.

    Infinite too where shapes differ, or one is a number and the other is none.
    """
    same_kind = found.shape == expected.shape and found.dtype == expected.dtype
    if not same_kind or (np.isfinite(found) != np.isfinite(expected)).any():
        return float("inf")
    gaps = np.abs(found.astype("float64") - expected.astype("float64"))
    largest = float(np.where(np.isfinite(gaps), gaps, 0).max(initial=0))
    if not largest:
        return 0.0
    return float("inf") if expected.dtype.kind in "iu" else largest / float(np.abs(expected).max())
