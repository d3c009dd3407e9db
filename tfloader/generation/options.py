"""What a user may ask of generation: Hugging Face's names and meanings, checked before anything runs.

An option that would have no effect is refused as an unknown one is: whoever sets `top_p` and gets greedy search has
been misled. All problems of a call are reported at once.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Unpack

from tfloader.errors import ConfigError, listing
from tfloader.generation.option_rules import conflicts, ids_of, plain, unknown_name, wrong_values
from tfloader.generation.trie import Trie

if TYPE_CHECKING:
    from tfloader.option_types import GenerateOptions


@dataclass(frozen=True)
class GenerationOptions:
    """One call's options. Lists are kept as tuples.

    Attributes:
        do_sample: draw tokens at random; otherwise take the likeliest one, or search with beams.
        num_beams: beams of a beam search; 1 for none.
        num_beam_groups: groups into which the beams are divided, for diverse beam search (Vijayakumar et al., 2018):
            at each step a group's tokens lose diversity_penalty for each beam of an earlier group that chose them.
        num_return_sequences: sequences for each prompt, at most num_beams unless do_sample.
        max_new_tokens, min_new_tokens: new tokens, without the prompt; before the minimum no stop token is chosen.
        temperature, top_k, top_p, min_p, typical_p: of sampling; None is off.
        penalty_alpha: contrastive search (Su et al., 2022) among the top_k likeliest tokens: probability, weighted
            1 - penalty_alpha, less the greatest likeness to an earlier token, weighted penalty_alpha.
        repetition_penalty: above 1 makes tokens of the prompt or the output less likely to come again.
        no_repeat_ngram_size: no n-gram of this size comes twice; 0 is off.
        length_penalty, early_stopping: of beam search; early_stopping is False, True or "never".
        diversity_penalty: see num_beam_groups.
        eos_token_id: one id or several that stop a sequence; None for none.
        pad_token_id: what fills a row after its end.
        suppress_tokens: ids that are never chosen.
        bad_words_ids: sequences of ids that never appear.
        forced_bos_token_id: the first new token.
        forced_eos_token_id: one id or several for the last new token, where max_new_tokens is reached.
        prefix_allowed_tokens_fn: a function of the prompt's number and the ids so far (a list, without padding) that
            gives the ids allowed next; or a `Trie`.
        logits_processor: functions (logits, Context) -> logits of TensorFlow operations, traced into the graph. They
            come after all other processors and before temperature, top_k and the other filters of sampling.
        stop_strings: texts that end a sequence when they appear in it.
        sliding_context: a text that fills all the positions of the model goes on with its last `sliding_context`
            tokens in view; None: such a text is an error.
        seed: makes samples reproducible. A sequence depends on the seed, its prompt, and its number among the
            sequences of this prompt, on nothing else; so equal prompts of a batch get equal samples, unless each
            prompt has a seed of its own in a list. None: other samples each time, for each prompt.
        return_scores: also give the log-probability of each token.
    """

    do_sample: bool = False
    num_beams: int = 1
    num_beam_groups: int = 1
    num_return_sequences: int = 1
    max_new_tokens: int = 64
    min_new_tokens: int = 0
    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    typical_p: float | None = None
    penalty_alpha: float | None = None
    repetition_penalty: float = 1.0
    no_repeat_ngram_size: int = 0
    length_penalty: float = 1.0
    diversity_penalty: float = 0.0
    early_stopping: bool | Literal["never"] = False
    eos_token_id: int | Sequence[int] | None = None
    pad_token_id: int | None = None
    suppress_tokens: Sequence[int] | None = None
    bad_words_ids: Sequence[Sequence[int]] | None = None
    forced_bos_token_id: int | None = None
    forced_eos_token_id: int | Sequence[int] | None = None
    prefix_allowed_tokens_fn: Callable[[int, list[int]], Sequence[int]] | Trie | None = None
    logits_processor: Sequence[Callable] | None = None
    stop_strings: str | Sequence[str] | None = None
    sliding_context: int | None = None
    seed: int | Sequence[int] | None = None
    return_scores: bool = False

    def __post_init__(self) -> None:
        vars(self).update({name: plain(name, value) for name, value in vars(self).items()})
        _refuse(_problems(vars(self)))

    @classmethod
    def of(cls, **options: Unpack[GenerateOptions]) -> GenerationOptions:
        """The options of a call, every problem of which is reported.

        Raises:
            ConfigError: a name is unknown, a value impossible, or an option would have no effect.
        """
        unknown = [unknown_name(name, DEFAULTS) for name in options if name not in DEFAULTS]
        known = {name: plain(name, value) for name, value in options.items() if name in DEFAULTS}
        _refuse([*unknown, *_problems({**DEFAULTS, **known})])
        return cls(**known)

    def replace(self, **changes: Unpack[GenerateOptions]) -> GenerationOptions:
        """A copy with some options changed, checked again."""
        options: dict[str, Any] = {**vars(self), **changes}
        return self.of(**options)

    @property
    def eos_token_ids(self) -> tuple[int, ...]:
        """The ids that stop a sequence."""
        return ids_of(self.eos_token_id)

    @property
    def beams_per_group(self) -> int:
        """Beams that are searched together."""
        return self.num_beams // self.num_beam_groups

    @property
    def rows_per_prompt(self) -> int:
        """Rows of one prompt that processors see at once: its samples, or the beams of one group."""
        return self.beams_per_group if self.num_beams > 1 else self.num_return_sequences

    def check(self, vocab_size: int, prompts: int | None = None) -> None:
        """Checks what depends on the model and on the number of prompts.

        Raises:
            ConfigError: beams or ids do not fit the vocabulary, or there is not one set of phrases a prompt.
        """
        _refuse(self._misfits(vocab_size, prompts))

    def _misfits(self, vocab_size: int, prompts: int | None) -> Iterator[str]:
        if self.num_beams > vocab_size:
            yield f"num_beams={self.num_beams} is more than the vocabulary of {vocab_size} tokens"
        if self.penalty_alpha is not None and (self.top_k or 0) > vocab_size:
            yield f"top_k={self.top_k} is more than the vocabulary of {vocab_size} tokens"
        if prompts is not None and isinstance(self.seed, tuple) and len(self.seed) != prompts:
            yield f"seed has {len(self.seed)} numbers, but there are {prompts} prompts"
        options_of_ids = (
            "eos_token_id",
            "pad_token_id",
            "suppress_tokens",
            "forced_bos_token_id",
            "forced_eos_token_id",
        )
        named: dict[str, Iterable[int]] = {name: ids_of(getattr(self, name)) for name in options_of_ids}
        named["bad_words_ids"] = (token for word in self.bad_words_ids or () for token in word)
        trie = self.prefix_allowed_tokens_fn
        if isinstance(trie, Trie):
            named["prefix_allowed_tokens_fn"] = [trie.largest]
            if prompts is not None and trie.groups not in (1, prompts):
                yield f"prefix_allowed_tokens_fn has phrases for {trie.groups} prompts, but there are {prompts}"
            if not self.eos_token_ids:
                yield "a Trie needs an eos_token_id, which ends a phrase"
        for name, ids in named.items():
            outside = sorted({token for token in ids if token >= vocab_size})
            if outside:
                yield f"{name} has ids outside the vocabulary of {vocab_size} tokens: {outside[:10]}"


DEFAULTS = {item.name: item.default for item in dataclasses.fields(GenerationOptions)}


def _refuse(problems: Iterable[str]) -> None:
    problems = list(problems)
    if problems:
        raise ConfigError(f"These generation options cannot be used:\n{listing(problems)}")


def _problems(values: Mapping[str, Any]) -> list[str]:
    # What options mean together can be said only of possible ones.
    return list(wrong_values(values, DEFAULTS)) or list(conflicts(values, DEFAULTS))
