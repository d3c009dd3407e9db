"""What `**options` of `load`, `build_transformer_model` and `TextGenerator` may hold, for type checkers.

Written by docs/make_option_types.py; a test keeps it true. A family of your own may have further options: a
`dict[str, Any]` of them, passed with `**`, is let through.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypedDict

if TYPE_CHECKING:
    import keras

    from tfloader.generation.trie import Trie


class LoadOptions(TypedDict, total=False):
    """Builder options of the families, and config values that override the file's, also by bert4keras' names."""

    prefix: str
    layers: Mapping[str, keras.layers.Layer] | None
    sequence_length: int | None
    keep_tokens: Sequence[int] | None
    compound_tokens: Sequence[Any] | None
    residual_attention_scores: bool | str
    layer_norm_cond: Any
    layer_norm_cond_hidden_size: int | None
    layer_norm_cond_hidden_act: str
    additional_input_layers: Any
    head: str | bool | None
    num_labels: int | None
    hierarchical_position: bool | float | None
    custom_position_ids: bool
    custom_attention_mask: bool
    with_pool: bool | str
    with_nsp: bool | str
    with_mlm: bool | str
    unshared: bool
    with_discriminator: bool | str
    final_activation: bool | str | None
    with_lm: bool | str
    part: str
    vocab_size: int
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int
    hidden_act: str
    gated_feed_forward: bool
    embedding_size: int | None
    attention_head_size: int | None
    max_position_embeddings: int | None
    type_vocab_size: int
    num_hidden_groups: int
    inner_group_num: int
    layer_norm_eps: float
    hidden_dropout_prob: float
    attention_probs_dropout_prob: float
    embedding_dropout_prob: float | None
    initializer_range: float
    pad_token_id: int | None
    bos_token_id: int | None
    eos_token_id: int | Sequence[int] | None
    num_decoder_layers: int | None
    decoder_start_token_id: int | None
    relative_attention_num_buckets: int
    relative_attention_max_distance: int
    tie_word_embeddings: bool
    scale_logits: bool
    cross_position_bias: bool
    shared_segment_embeddings: bool
    mask_zero_segments: bool
    block_norm_eps: float | None
    mlm_norm_eps: float | None
    model_type: str | None
    id2label: Mapping[int, str]
    problem_type: str | None
    classifier_dropout_prob: float | None
    uncut_vocab_size: int | None
    max_position: int | None
    segment_vocab_size: int
    dropout_rate: float
    attention_dropout_rate: float


class BuildOptions(LoadOptions, total=False):
    """The same with those that `load` has by name."""

    dtype: Any
    compat: str | None
    ignore: str | Collection[str]
    ignore_config_keys: str | Collection[str]
    rename: Mapping[str, str] | None


class GenerateOptions(TypedDict, total=False):
    """The options of one call; see `GenerationOptions`."""

    do_sample: bool
    num_beams: int
    num_beam_groups: int
    num_return_sequences: int
    max_new_tokens: int
    min_new_tokens: int
    temperature: float
    top_k: int | None
    top_p: float | None
    min_p: float | None
    typical_p: float | None
    penalty_alpha: float | None
    repetition_penalty: float
    no_repeat_ngram_size: int
    length_penalty: float
    diversity_penalty: float
    early_stopping: bool | Literal["never"]
    eos_token_id: int | Sequence[int] | None
    pad_token_id: int | None
    suppress_tokens: Sequence[int] | None
    bad_words_ids: Sequence[Sequence[int]] | None
    forced_bos_token_id: int | None
    forced_eos_token_id: int | Sequence[int] | None
    prefix_allowed_tokens_fn: Callable[[int, list[int]], Sequence[int]] | Trie | None
    logits_processor: Sequence[Callable] | None
    stop_strings: str | Sequence[str] | None
    sliding_context: int | None
    seed: int | Sequence[int] | None
    return_scores: bool
