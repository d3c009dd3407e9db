"""`TextGenerator`: from text to text, over the decoding core."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np

from tfloader.border import public
from tfloader.config import TransformerConfig
from tfloader.errors import ConfigError, TokenizerError, listing
from tfloader.generation.decoding import SPARE_MEMORY, Decoder, Generated
from tfloader.generation.defaults import load_generation_config, with_defaults
from tfloader.generation.detokenizing import Detokenizer
from tfloader.generation.option_rules import ids_of
from tfloader.generation.options import GenerationOptions
from tfloader.models.transformer import Transformer
from tfloader.tokenizers.base import BaseTokenizer

if TYPE_CHECKING:
    from tfloader.option_types import GenerateOptions

# After how many steps the host looks at the text, where it must: for stop strings, and while streaming.
LOOK_EVERY = 4


class TextGenerator:
    """Generates text with a loaded language model. Threads may share it.

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

    @public
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
        if not (is_path or isinstance(defaults, Mapping | None)):
            raise ConfigError(f"defaults are options or a path; found a {type(defaults).__name__}.")
        self.defaults = load_generation_config(defaults) if is_path else dict(defaults or {})
        continues = self.config.application == "lm"
        vocab_size, ends = self.config.vocab_size, ids_of(self.config.eos_token_id)
        if not isinstance(tokenizer, BaseTokenizer | None):
            kind = type(tokenizer).__name__
            raise TokenizerError(
                f"TextGenerator needs a tokenizer of tfloader.load_tokenizer, or none; found a {kind}."
            )
        self.texts: Any = None if tokenizer is None else Detokenizer(tokenizer, ends, vocab_size, continues)
        # What is wrong with the defaults is said now.
        self.options({} if "eos_token_id" in self.defaults else {"eos_token_id": None})
        self.decoder = Decoder(transformer, spare_memory)

    def generate(self, prompts: str | Sequence[str], **options: Unpack[GenerateOptions]) -> Any:
        """Continues prompts (T5: answers sources).

        Returns:
            The new text of one prompt, with the space between them if there is one, or a list for a list of prompts;
            with num_return_sequences > 1 a list of that many texts in place of each text, or of as many as exist.
        """
        single, prompts = isinstance(prompts, str), texts_of(prompts)
        rows = self.encode(prompts)
        found = self.generate_ids(rows, **options)
        texts: list[Any] = [[] for _ in rows]
        for ids, number in zip(found.sequences, found.prompts, strict=True):
            texts[number].append(self.texts.text(ids, before(prompts[number], rows[number])))
        if self.options(options).num_return_sequences == 1:
            texts = [text for (text,) in texts]
        return texts[0] if single else texts

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
            prompts = [row[present].tolist() for row, present in zip(tokens, real, strict=True)]

            def stops(found: Generated) -> list[int | None]:
                pairs = zip(found.sequences, found.prompts, strict=True)
                return [self.texts.stop_of(ids, prompts[number], settings.stop_strings) for ids, number in pairs]

            def stopped(found: Generated) -> np.ndarray:
                return np.array([end is not None for end in stops(found)])

            *_, (found, _) = self.decoder.stretches(tokens, real, settings, LOOK_EVERY, stopped)
            ends = stops(found)
            sequences = [ids[:end] for ids, end in zip(found.sequences, ends, strict=True)]
            rows = [row[:end] for row, end in zip(found.token_scores or (), ends, strict=True)]
            scores = np.array([row.sum() for row in rows], "float32")
            found = found._replace(sequences=sequences, scores=scores, token_scores=rows)
        return found if settings.return_scores else found._replace(token_scores=None)

    def stream(self, prompt: str, **options: Unpack[GenerateOptions]) -> Iterator[str]:
        """Yields what `generate` gives for one prompt piece by piece as it is made.

        What a later token may still change is held back: half a character, or the space in "it' s".
        """
        settings = self.options(options)
        if settings.num_return_sequences > 1 or settings.num_beams > 1:
            raise ConfigError("stream() gives one text as it comes: num_beams and num_return_sequences must be 1.")
        (row,) = rows = self.encode([prompt])
        row = before(prompt, row)
        shown = ""
        for ((ids,), *_), finished in self.decoder.stretches(*self.aligned(rows, None), settings, LOOK_EVERY):
            end = self.texts.stop_of(ids, row, settings.stop_strings)
            ended = finished or end is not None
            text = self.texts.text(ids[:end], row) if ended else self.texts.settled(ids, row)
            if ended and not text.startswith(shown):
                raise TokenizerError(
                    f"This tokenizer's decode changes what was streamed already, {shown[-40:]!r}, once more tokens "
                    f"follow. The whole text is {text!r}: use generate in place of stream."
                )
            if len(text) > len(shown) and text.startswith(shown):
                yield text[len(shown) :]
                shown = text
            if ended:
                return

    def score(self, texts: str | Sequence[str]) -> Any:
        """The log-probability of each text under the model, given its first token: a float, or an array for a list.

        Not for T5 and UniLM, whose texts have sources.
        """
        tokens, real = self.aligned(self.encode(texts_of(texts)), None)
        scores = self.decoder.score(tokens, real)
        return float(scores[0]) if isinstance(texts, str) else scores

    # ---- text and ids

    def encode(self, prompts: Sequence[str]) -> list[list[int]]:
        """Token ids of prompts, with what the tokenizer puts before them; what it puts behind would end the text.

        A T5's or UniLM's source is a whole text, and keeps both.
        """
        if self.texts is None:
            raise TokenizerError("This TextGenerator has no tokenizer: pass one, or use generate_ids.")
        encoded = [list(self.tokenizer.encode(prompt)[0]) for prompt in texts_of(prompts)]
        closing = len(self.tokenizer._end) if self.texts.continues else 0
        return [ids[: len(ids) - closing] for ids in encoded]

    def room(self, prompt: str) -> int | None:
        """How many new tokens the model's positions leave behind a prompt; None where nothing limits them."""
        most = self.config.max_position_embeddings
        return None if most is None else most - len(self.encode([prompt])[0])

    def options(self, options: Mapping[str, Any]) -> GenerationOptions:
        """A call's options, with all that it leaves open."""
        options = with_defaults(options, self.defaults)
        if "eos_token_id" not in options:
            options = {**options, "eos_token_id": self.own_eos_token_ids()}
        settings = GenerationOptions.of(**options)
        if settings.stop_strings and (self.texts is None or settings.num_beams > 1):
            raise ConfigError("stop_strings need a tokenizer, and cannot be combined with num_beams.")
        return settings if self.texts is None else self.with_tokenizer(settings, self.texts)

    def with_tokenizer(self, settings: GenerationOptions, texts: Detokenizer) -> GenerationOptions:
        """Options as this tokenizer makes them: stop strings that are tokens, and ids without a token."""
        tokens = {stop: texts.token_of(stop) for stop in settings.stop_strings or ()}
        strings = [stop for stop, token in tokens.items() if token is None]
        impossible = [stop for stop in strings if not texts.can_write(stop)]
        if impossible:
            raise ConfigError(
                f"stop_strings {impossible} would stop nothing: this tokenizer's texts cannot hold them. Name texts as "
                "its decode writes them, tokens that it leaves out, or ids with eos_token_id."
            )
        ends = (*settings.eos_token_ids, *(token for token in tokens.values() if token is not None))
        named = {*ends, settings.forced_bos_token_id, *ids_of(settings.forced_eos_token_id)}
        suppressed = (*ids_of(settings.suppress_tokens), *(id for id in texts.without_token if id not in named))
        return settings.replace(eos_token_id=ends, stop_strings=strings, suppress_tokens=suppressed)

    def own_eos_token_ids(self) -> tuple[int, ...]:
        """What stops a text where nobody says: the tokenizer's [SEP] for BERT and its kin, otherwise the config's."""
        sep = getattr(self.tokenizer, "sep_token_id", None) if self.transformer.ends_with_sep else None
        own = ids_of(self.config.eos_token_id if sep is None else sep)
        outside = [token for token in own if token >= self.config.vocab_size]
        if outside:
            raise ConfigError(
                f"The model's config.json has the stop token eos_token_id = {outside[0]}, outside its vocabulary of "
                f"{self.config.vocab_size} tokens. Correct it there, or say eos_token_id=ID here; None never stops."
            )
        return own

    def beginning(self) -> str:
        """How to begin from nothing, for an error."""
        roles = (getattr(self.tokenizer, f"{role}_token_id", None) for role in ("bos", "cls", "eos"))
        known = [id for id in (*roles, self.config.bos_token_id, *ids_of(self.config.eos_token_id)) if id is not None]
        return f"; a text from nothing begins behind a start token: generate_ids([[{known[0]}]])" if known else ""

    def aligned(self, input_ids: Any, attention_mask: Any) -> tuple[np.ndarray, np.ndarray]:
        """Prompts as (tokens, real), [prompts, length], padded on the left."""
        try:
            if attention_mask is not None:
                mask = np.asarray(attention_mask) != 0
                input_ids = [row[keep] for row, keep in zip(np.asarray(input_ids), mask, strict=True)]
            rows = [np.asarray(row) for row in input_ids]
        except (TypeError, ValueError, IndexError) as error:
            raise ConfigError(
                "Prompts are lists of token ids, or an array [prompts, length] with an attention_mask of the same "
                f"shape; these are not: {error}."
            ) from None
        problems = [] if rows else ["there is no prompt"]
        for index, row in enumerate(rows):
            if not row.size:
                problems.append(f"prompt {index} is empty{self.beginning()}")
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


def texts_of(given: Any) -> list[str]:
    """One text or several as a list."""
    texts = [given] if isinstance(given, str) else list(given) if isinstance(given, Iterable) else [given]
    wrong = [
        f"text {number} is a {type(text).__name__}" for number, text in enumerate(texts) if not isinstance(text, str)
    ]
    if wrong:
        raise ConfigError(f"Expected a text, or a list of texts:\n{listing(wrong)}")
    return texts


def before(prompt: str, row: list[int]) -> list[int]:
    """The prompt's ids, where new text may need a space behind it; none where one stands there."""
    return [] if prompt[-1:].isspace() else row
