"""`TextGenerator`: from text to text, over the decoding core."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np

from tfloader.config import TransformerConfig
from tfloader.errors import ConfigError, TokenizerError, listing
from tfloader.generation.decoding import SPARE_MEMORY, Decoder, Generated
from tfloader.generation.defaults import load_generation_config, with_defaults
from tfloader.generation.options import GenerationOptions
from tfloader.models.transformer import Transformer

if TYPE_CHECKING:
    from tfloader.option_types import GenerateOptions

# After how many steps the host looks at the text, where it must: for stop strings, and while streaming.
LOOK_EVERY = 4


class TextGenerator:
    """Generates text with a loaded language model.

    Args:
        model: what `tfloader.load` returned: GPT-2, GPT2_ML, T5, or BERT with application "lm" or "unilm".
        tokenizer: what `tfloader.load_tokenizer` returned; None for token ids only.
        defaults: options for calls that do not say otherwise, or the path of a generation_config.json or its folder.
            A call that names a strategy (do_sample, num_beams, num_beam_groups, penalty_alpha) takes none from them.
        spare_memory: bytes. A model whose weights take no more than this is given second copies of its kernels, with
            which a step of one row in bfloat16 takes a sixth less time on CPUs; 0: never.

    All options are those of `GenerationOptions`. Where eos_token_id is not given it is the model's own: the config's,
    for BERT and its kin the tokenizer's [SEP]; pass eos_token_id=None for none.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any = None,
        defaults: Mapping[str, Any] | str | os.PathLike[str] | None = None,
        spare_memory: int = SPARE_MEMORY,
    ) -> None:
        transformer = model if isinstance(model, Transformer) else getattr(model, "transformer", None)
        if not isinstance(transformer, Transformer):
            raise ConfigError("TextGenerator needs a model that tfloader.load or build_transformer_model returned.")
        self.transformer = transformer
        self.config: TransformerConfig = transformer.config
        self.tokenizer = tokenizer
        is_path = isinstance(defaults, str | os.PathLike)
        self.defaults = load_generation_config(defaults) if is_path else dict(defaults or {})
        self.options({})  # what is wrong with them is said now
        self.decoder = Decoder(transformer, spare_memory)

    def generate(self, prompts: str | Sequence[str], **options: Unpack[GenerateOptions]) -> Any:
        """Continues prompts (T5: answers sources).

        Returns:
            The new text of one prompt, or a list for a list of prompts; with num_return_sequences > 1 a list of that
            many texts in place of each text.
        """
        single = isinstance(prompts, str)
        found = self.generate_ids(self.encode([prompts] if single else prompts), **options)
        texts = [self.decode(ids) for ids in found.sequences]
        count = self.options(options).num_return_sequences
        grouped: list[Any] = texts if count == 1 else [texts[i : i + count] for i in range(0, len(texts), count)]
        return grouped[0] if single else grouped

    def generate_ids(self, input_ids: Any, attention_mask: Any = None, **options: Unpack[GenerateOptions]) -> Generated:
        """The same on token ids.

        Args:
            input_ids: a list of lists of ids, of any lengths, or an array [prompts, length].
            attention_mask: for an array: 1 = real, 0 = padding, on either side.

        Raises:
            ConfigError: an empty prompt, ids out of range, a prompt longer than the model's positions, an option that
                does not exist or has no effect.
        """
        settings = self.options(options)
        tokens, real = self.aligned(input_ids, attention_mask)
        if not settings.stop_strings:
            *_, (found, _) = self.decoder.stretches(tokens, real, settings)
        else:
            looks = LOOK_EVERY, lambda sequences: np.array([self.has_stop(ids, settings) for ids in sequences])
            *_, (found, _) = self.decoder.stretches(tokens, real, settings, *looks)
            ends = [self.stop_of(ids, settings) for ids in found.sequences]
            sequences = [ids[:end] for ids, end in zip(found.sequences, ends, strict=True)]
            rows = [row[:end] for row, end in zip(found.token_scores or (), ends, strict=True)]
            found = Generated(sequences, np.array([row.sum() for row in rows], "float32"), rows)
        return found if settings.return_scores else found._replace(token_scores=None)

    def stream(self, prompt: str, **options: Unpack[GenerateOptions]) -> Iterator[str]:
        """Yields the new text of one prompt piece by piece as it is made, never half a character."""
        settings = self.options(options)
        if settings.num_return_sequences > 1 or settings.num_beams > 1:
            raise ConfigError("stream() gives one text as it comes: num_beams and num_return_sequences must be 1.")
        tokens, real = self.aligned(self.encode([prompt]), None)
        shown = ""
        for ((ids,), *_), finished in self.decoder.stretches(tokens, real, settings, LOOK_EVERY):
            end = self.stop_of(ids, settings)
            ended = finished or end is not None
            text = self.decode(ids[:end])
            stable = text if ended else text.rstrip("\ufffd")
            if len(stable) > len(shown) and stable.startswith(shown):
                yield stable[len(shown) :]
                shown = stable
            if ended:
                return

    def score(self, texts: str | Sequence[str]) -> Any:
        """The log-probability of each text under the model, given its first token: a float, or an array for a list.

        Not for T5 and UniLM, whose texts have sources.
        """
        single = isinstance(texts, str)
        tokens, real = self.aligned(self.encode([texts] if single else texts), None)
        scores = self.decoder.score(tokens, real)
        return float(scores[0]) if single else scores

    # ---- text and ids

    def encode(self, prompts: Sequence[str]) -> list[list[int]]:
        """Token ids of prompts, with what the tokenizer puts before them; what it puts behind would end the text.

        A T5's or UniLM's source is a whole text, and keeps both.
        """
        if self.tokenizer is None:
            raise TokenizerError("This TextGenerator has no tokenizer: pass one, or use generate_ids.")
        encoded = [list(self.tokenizer.encode(prompt)[0]) for prompt in prompts]
        closing = len(getattr(self.tokenizer, "_end", ())) if self.config.application == "lm" else 0
        return [ids[: len(ids) - closing] for ids in encoded]

    def room(self, prompt: str) -> int | None:
        """How many new tokens the model's positions leave behind a prompt; None where nothing limits them."""
        most = self.config.max_position_embeddings
        return None if most is None else most - len(self.encode([prompt])[0])

    def decode(self, ids: Sequence[int]) -> str:
        stops = self.special_ids()
        return self.tokenizer.decode([token for token in ids if token not in stops])

    def special_ids(self) -> set[int]:
        ids = {getattr(self.tokenizer, f"{name}_token_id", None) for name in ("bos", "eos", "cls", "sep", "pad")}
        return {*ids, self.config.eos_token_id} - {None}

    def options(self, options: Mapping[str, Any]) -> GenerationOptions:
        """A call's options, with all that it leaves open."""
        sep = getattr(self.tokenizer, "sep_token_id", None) if self.transformer.ends_with_sep else None
        own: dict[str, Any] = {"eos_token_id": self.config.eos_token_id if sep is None else sep}
        settings = GenerationOptions.of(**own | with_defaults(options, self.defaults))
        if settings.stop_strings and (self.tokenizer is None or settings.num_beams > 1):
            raise ConfigError("stop_strings need a tokenizer, and cannot be combined with num_beams.")
        return settings

    def aligned(self, input_ids: Any, attention_mask: Any) -> tuple[np.ndarray, np.ndarray]:
        """Prompts as (tokens, real), [prompts, length], padded on the left."""
        if attention_mask is not None:
            mask = np.asarray(attention_mask) != 0
            input_ids = [row[keep].tolist() for row, keep in zip(np.asarray(input_ids), mask, strict=True)]
        rows = [np.asarray(row) for row in input_ids]
        problems = [] if rows else ["there is no prompt"]
        for index, row in enumerate(rows):
            if not row.size:
                problems.append(f"prompt {index} is empty")
            elif row.ndim != 1 or row.dtype.kind not in "iu":
                problems.append(f"prompt {index} is not a list of token ids")
            elif row.min() < 0 or row.max() >= self.config.vocab_size:
                problems.append(f"prompt {index} has ids outside 0 to {self.config.vocab_size - 1}")
        if problems:
            raise ConfigError(f"These prompts cannot be continued:\n{listing(problems)}")
        length = max(len(row) for row in rows)
        tokens = np.stack([np.pad(row, (length - len(row), 0)) for row in rows]).astype("int32")
        real = np.arange(length) >= length - np.array([len(row) for row in rows])[:, None]
        return tokens, real

    def has_stop(self, ids: Sequence[int], settings: GenerationOptions) -> bool:
        text = self.decode(ids) if settings.stop_strings else ""
        return any(stop in text for stop in settings.stop_strings or ())

    def stop_of(self, ids: Sequence[int], settings: GenerationOptions) -> int | None:
        """How many ids it takes until a stop string is complete; None where there is none."""
        if not self.has_stop(ids, settings):
            return None
        return next(end for end in range(1, len(ids) + 1) if self.has_stop(ids[:end], settings))
