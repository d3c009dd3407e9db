"""Configs as bert4keras users wrote them by hand for families whose own config it could not read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from tfloader.config import TransformerConfig
from tfloader.naming.dialect import Dialect, Key, same
from tfloader.naming.google_bert import GOOGLE_HARMLESS, SIZES
from tfloader.naming.hf_t5 import OUTPUT_LAYERS

# T5-PEGASUS (Zhuiyi, 2021) was trained in bert4keras: these are its numbers, besides the exact gelu, and the ids of
# [CLS] and [SEP]. Nothing in its folder says so but the size of the vocabulary, which is that of no other T5.
T5_PEGASUS = {
    "model_type": "t5_pegasus",
    "cross_position_bias": True,
    "scale_logits": True,
    "decoder_start_token_id": 101,
    "eos_token_id": 102,
}
T5_PEGASUS_VOCABULARY = 50_000


def _finish_t5(
    fields: dict[str, Any], raw: Mapping[str, Any], tensors: Mapping[str, Any], pegasus: bool = False
) -> None:
    """A list of two activations means T5 1.1, which has an output layer of its own."""
    act = fields["hidden_act"]
    fields["gated_feed_forward"] = isinstance(act, list) and len(act) == 2 and act[1] == "linear"
    if fields["gated_feed_forward"]:
        act = act[0]
    # "gelu" is what the T5 release means by it; compat="bert4keras" makes it the exact one.
    fields["hidden_act"] = "gelu_tanh" if act == "gelu" else act
    tied = not fields["gated_feed_forward"]
    if tensors:
        tied = not OUTPUT_LAYERS & set(tensors)
    fields["tie_word_embeddings"] = fields["scale_logits"] = tied
    if fields.get("num_decoder_layers") is None:
        fields["num_decoder_layers"] = fields.get("num_hidden_layers")
    if pegasus or (fields["gated_feed_forward"] and fields.get("vocab_size") == T5_PEGASUS_VOCABULARY):
        fields |= T5_PEGASUS | ({"hidden_act": "gelu"} if fields["hidden_act"] == "gelu_tanh" else {})


def _write_t5_pegasus(config: TransformerConfig, raw: dict[str, Any]) -> None:
    raw["hidden_act"] = [config.hidden_act, "linear"]


T5_DIALECT = Dialect(
    name="bert4keras T5",
    keys=(
        *SIZES,
        *same("hidden_act", num_decoder_layers=None, relative_attention_num_buckets=32),
        Key("attention_head_size", "attention_head_size", None, aliases=("attention_key_size",)),
    ),
    fixed={"layer_norm_eps": 1e-6, "pad_token_id": 0, "eos_token_id": 1, "decoder_start_token_id": 0},
    harmless=GOOGLE_HARMLESS,
    finish_read=_finish_t5,
)

# The same, where the file says what it is: as tfloader writes it. bert4keras reads it too.
T5_PEGASUS_DIALECT = replace(
    T5_DIALECT,
    name="T5-PEGASUS",
    constants={"model_type": T5_PEGASUS["model_type"]},
    finish_read=partial(_finish_t5, pegasus=True),
    finish_write=_write_t5_pegasus,
)
