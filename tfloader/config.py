"""`TransformerConfig`: everything about a model that its weights do not say, in one vocabulary, checked when made."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from reprlib import Repr
from typing import Any

from tfloader.errors import ConfigError, listing

# "gelu" has two forms that differ by up to 5e-4, and every release means one of them: here "gelu" is always the exact
# one and "gelu_tanh" always the approximation. Which one a config file means is a matter of its dialect.
ACTIVATION_NAMES = ("gelu", "gelu_tanh", "relu", "silu", "tanh", "sigmoid", "softmax", "linear")

APPLICATIONS = ("encoder", "lm", "unilm")

# What heads for tasks give, and how those with labels are trained.
HEADS = ("classification", "token_classification", "question_answering", "multiple_choice")
PROBLEM_TYPES = ("single_label_classification", "multi_label_classification", "regression")
MOST_LABELS = 1_000_000

# Far above every public model, far below what would exhaust memory before a check.
LIMITS = {
    "vocab_size": 10_000_000,
    "uncut_vocab_size": 10_000_000,
    "hidden_size": 100_000,
    "embedding_size": 100_000,
    "num_hidden_layers": 1_000,
    "num_decoder_layers": 1_000,
    "num_hidden_groups": 1_000,
    "inner_group_num": 64,
    "num_attention_heads": 4_096,
    "attention_head_size": 16_384,
    "intermediate_size": 1_000_000,
    "max_position_embeddings": 10_000_000,
    "type_vocab_size": 1_000_000,
    "relative_attention_num_buckets": 65_536,
    "relative_attention_max_distance": 10_000_000,
}
# Weights of the largest dense model that anyone has published, twenty times over.
MOST_WEIGHTS = 10**13
MAY_BE_ZERO = {"type_vocab_size", "num_hidden_layers", "num_decoder_layers"}


@dataclass(frozen=True)
class TransformerConfig:
    """Everything about a model that its weights do not say.

    Attributes:
        family: name of the family that builds it ("bert", "gpt2", "gpt2_ml", "t5", or a registered one).
        hidden_act: "gelu" is the exact (erf) form, "gelu_tanh" the approximation; also "relu", "silu", "tanh",
            "linear".
        gated_feed_forward: the first product is multiplied by a second, linear one (T5 1.1).
        embedding_size: width of the embeddings when it differs from hidden_size (factorised), else None.
        attention_head_size: width of one head when it is not hidden_size / num_attention_heads, else None.
        max_position_embeddings: rows of the position table; None where positions are relative.
        type_vocab_size: rows of the segment table; 0 for none.
        num_hidden_groups: groups of layers with common weights (ALBERT); 1: all layers have the same.
        inner_group_num: blocks that each of ALBERT's layers consists of.
        pad_token_id: id that is hidden from attention; None where every id is a real token (GPT-2).
        eos_token_id: id that ends a text; several, of which each does, become a tuple.
        application: "encoder" (sees both sides), "lm" (causal) or "unilm" (causal in segment 1 only).
        tie_word_embeddings: the output layer is the transposed token embedding.
        block_norm_eps: epsilon of the blocks' norms when it is not layer_norm_eps, else None.
        mlm_norm_eps: epsilon of the masked-language-model head's norm when it is not layer_norm_eps, else None.
        scale_logits: logits are multiplied by hidden_size ** -0.5 (T5 with tied embeddings).
        cross_position_bias: the cross attention adds the decoder's position bias, as bert4keras did by default.
        shared_segment_embeddings: segments are ids of tokens, looked up in the token table (CDial-GPT).
        mask_zero_segments: with shared segment embeddings, segment 0 hides its position, as in bert4keras.
        model_type: the release's own name of the model, where a family has several ("mt5" beside "t5").
        head: what the head for a task gives ("classification", "token_classification", "question_answering",
            "multiple_choice"); None: there is none.
        id2label: the labels that such a head scores, by their numbers 0, 1, ...
        problem_type: what the scores of a classification mean: "single_label_classification",
            "multi_label_classification" or "regression"; None: it is not said.
        classifier_dropout_prob: dropout before the head's layers when it is not hidden_dropout_prob, else None.
        uncut_vocab_size: tokens before keep_tokens or compound_tokens were applied, which saving notes; None: they
            were not, or (as an option of `load`) they may be applied once more.
        extras: further settings of a family registered by a user.
    """

    family: str
    vocab_size: int
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int
    hidden_act: str = "gelu"
    gated_feed_forward: bool = False
    embedding_size: int | None = None
    attention_head_size: int | None = None
    max_position_embeddings: int | None = None
    type_vocab_size: int = 0
    num_hidden_groups: int = 1
    inner_group_num: int = 1
    layer_norm_eps: float = 1e-12
    hidden_dropout_prob: float = 0.1
    attention_probs_dropout_prob: float = 0.1
    embedding_dropout_prob: float | None = None
    initializer_range: float = 0.02
    pad_token_id: int | None = None
    bos_token_id: int | None = None
    eos_token_id: int | Sequence[int] | None = None
    application: str = "encoder"
    num_decoder_layers: int | None = None
    decoder_start_token_id: int | None = None
    relative_attention_num_buckets: int = 32
    relative_attention_max_distance: int = 128
    tie_word_embeddings: bool = True
    scale_logits: bool = False
    cross_position_bias: bool = False
    shared_segment_embeddings: bool = False
    mask_zero_segments: bool = False
    block_norm_eps: float | None = None
    mlm_norm_eps: float | None = None
    model_type: str | None = None
    head: str | None = None
    id2label: Mapping[int, str] = field(default_factory=dict)
    problem_type: str | None = None
    classifier_dropout_prob: float | None = None
    uncut_vocab_size: int | None = None
    extras: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if isinstance(self.eos_token_id, list):
            object.__setattr__(self, "eos_token_id", tuple(self.eos_token_id))
        problems = list(_problems(self))
        if problems:
            raise ConfigError(f"The config of this {self.family!r} model cannot be used:\n{listing(problems)}")

    @property
    def head_size(self) -> int:
        """Width of one attention head."""
        return self.attention_head_size or self.hidden_size // self.num_attention_heads

    @property
    def label2id(self) -> dict[str, int]:
        """The numbers of the labels."""
        return {label: number for number, label in self.id2label.items()}

    @property
    def approximate_weights(self) -> int:
        """About how many numbers the embeddings and blocks hold, for a check before any memory is taken."""
        hidden, inner = self.hidden_size, self.num_attention_heads * self.head_size
        attention = 4 * hidden * inner
        feed_forward = (3 if self.gated_feed_forward else 2) * hidden * self.intermediate_size
        blocks = self.num_hidden_layers * self.inner_group_num * (attention + feed_forward)
        blocks += (self.num_decoder_layers or 0) * (2 * attention + feed_forward)
        rows = self.vocab_size + self.type_vocab_size + (self.max_position_embeddings or 0)
        return rows * (self.embedding_size or hidden) + blocks + (len(self.id2label) * hidden if self.head else 0)

    @property
    def special_tokens(self) -> dict[str, Any]:
        """Fields with the id of a special token -> that id, or a tuple of several."""
        return {name: getattr(self, name) for name in TOKEN_IDS}

    def strange_tokens(self) -> dict[str, str]:
        """Fields with the id of a special token that is none of the vocabulary's -> what is wrong with it."""
        return {
            name: f"the config says {name} = {token}, but there are {self.vocab_size} tokens: give {name}=... or None"
            for name, token in self.special_tokens.items()
            if not all(0 <= id < self.vocab_size for id in ids_of(token))
        }

    def replace(self, **changes: Any) -> TransformerConfig:
        """Returns a copy with some fields changed, checked again."""
        return dataclasses.replace(self, **changes)


TOKEN_IDS = ("pad_token_id", "bos_token_id", "eos_token_id", "decoder_start_token_id")
CONFIG_FIELDS = tuple(item.name for item in dataclasses.fields(TransformerConfig))

# Fields that say how a model is trained or used, not what it computes; a format may lack a place for them.
NOT_MATHEMATICS = {
    "application",
    "initializer_range",
    "hidden_dropout_prob",
    "attention_probs_dropout_prob",
    "embedding_dropout_prob",
    "bos_token_id",
    "eos_token_id",
    "decoder_start_token_id",
    "model_type",
    "id2label",
    "problem_type",
    "classifier_dropout_prob",
    "uncut_vocab_size",
}

# What a field that is None stands for.
FALLBACKS = {
    "attention_head_size": "head_size",
    "embedding_size": "hidden_size",
    "block_norm_eps": "layer_norm_eps",
    "mlm_norm_eps": "layer_norm_eps",
    "embedding_dropout_prob": "hidden_dropout_prob",
    "classifier_dropout_prob": "hidden_dropout_prob",
}

# What bert4keras called these; accepted in its config files and as keyword arguments.
BERT4KERAS_NAMES = {
    "max_position": "max_position_embeddings",
    "segment_vocab_size": "type_vocab_size",
    "dropout_rate": "hidden_dropout_prob",
    "attention_dropout_rate": "attention_probs_dropout_prob",
}


def ids_of(value: Any) -> tuple[int, ...]:
    """An id, several or None as a tuple."""
    if value is None:
        return ()
    return value if isinstance(value, tuple) else (value,)


def are_labels(value: Mapping[Any, Any]) -> bool:
    """Whether a mapping names labels by the numbers 0, 1, ... in this order."""
    return len(value) <= MOST_LABELS and all(
        type(key) is int and key == place and isinstance(label, str) for place, (key, label) in enumerate(value.items())
    )


def unnamed_labels(number: int) -> dict[int, str]:
    """So many labels by the names that Hugging Face gives to those without any."""
    return {place: f"LABEL_{place}" for place in range(number)}


def differing_fields(a: TransformerConfig, b: TransformerConfig) -> list[str]:
    """The fields that are not the same, and do not mean the same either."""
    different = (name for name in CONFIG_FIELDS if getattr(a, name) != getattr(b, name))
    return [name for name in different if _meaning(a, name) != _meaning(b, name)]


def _meaning(config: TransformerConfig, name: str) -> Any:
    value = getattr(config, name)
    return getattr(config, FALLBACKS.get(name, name)) if value is None else value


def _problems(config: TransformerConfig) -> Iterable[str]:
    wrong = set()
    for item in dataclasses.fields(config):
        value = getattr(config, item.name)
        problem = None if value is None and "None" in str(item.type) else _problem(item.name, str(item.type), value)
        if problem:
            wrong.add(item.name)
            yield f"{item.name} must {problem}, found {shown(value)}"
    if isinstance(config.hidden_act, str) and config.hidden_act not in ACTIVATION_NAMES:
        yield f"hidden_act {shown(config.hidden_act)} is not implemented; there are {', '.join(ACTIVATION_NAMES)}"
    for name, choices in (("application", APPLICATIONS), ("head", HEADS), ("problem_type", PROBLEM_TYPES)):
        if isinstance(value := getattr(config, name), str) and value not in choices:
            yield f"{name} must be one of {', '.join(choices)}, found {shown(value)}"
    if "id2label" not in wrong and not are_labels(config.id2label):
        yield f"id2label must name the labels 0, 1, ... in this order, found {shown(dict(config.id2label))}"
    if wrong & set(LIMITS):
        return
    if config.attention_head_size is None and config.hidden_size % config.num_attention_heads:
        yield (
            f"hidden_size {config.hidden_size} is not a multiple of num_attention_heads "
            f"{config.num_attention_heads}; give attention_head_size if that is meant"
        )
    elif config.num_hidden_layers * config.inner_group_num > LIMITS["num_hidden_layers"]:
        yield (
            f"num_hidden_layers * inner_group_num must be at most {LIMITS['num_hidden_layers']}, found "
            f"{config.num_hidden_layers} * {config.inner_group_num}"
        )
    elif config.approximate_weights > MOST_WEIGHTS:
        found = f"{config.approximate_weights:.0e}"
        yield f"its sizes mean about {found} weights; no model has more than {MOST_WEIGHTS:.0e}"


def _problem(name: str, kind: str, value: Any) -> str | None:
    """What a field's value must do and does not."""
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if kind.startswith("int"):
        if "Sequence" in kind and isinstance(value, tuple):
            return None if value and not any(_problem(name, "int", item) for item in value) else "be one id or several"
        if not is_number or isinstance(value, float):
            return "be an integer"
        lowest = 0 if name in MAY_BE_ZERO else 1
        if name in LIMITS and not lowest <= value <= LIMITS[name]:
            return f"lie between {lowest} and {LIMITS[name]}"
    elif kind.startswith("float"):
        return "be a number" if not is_number else None if 0 <= value < 1 else "lie in [0, 1)"
    elif kind.startswith("bool"):
        return None if isinstance(value, bool) else "be true or false"
    elif kind.startswith("str"):
        return None if isinstance(value, str) else "be a string"
    elif kind.startswith("Mapping"):
        return None if isinstance(value, Mapping) else "be a mapping"
    return None


class _Shown(Repr):
    """Values of foreign files as errors print them: short, however long, deep or large they are."""

    def __init__(self) -> None:
        super().__init__()
        self.maxstring = self.maxother = self.maxlong = 60
        self.maxlevel = 3

    def repr_int(self, x: int, level: int) -> str:
        return super().repr_int(x, level) if x.bit_length() < 1000 else f"about 2 ** {x.bit_length()}"


shown = _Shown().repr
