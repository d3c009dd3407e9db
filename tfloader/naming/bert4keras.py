"""Configs as bert4keras users wrote them by hand for families whose own config it could not read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tfloader.config import Dialect, Key
from tfloader.naming.google_bert import GOOGLE_HARMLESS, SIZES


def _finish_t5(fields: dict[str, Any], raw: Mapping[str, Any], tensors: Mapping[str, Any]) -> None:
    """A list of two activations means T5 1.1, which has an output layer of its own."""
    act = fields["hidden_act"]
    fields["gated_feed_forward"] = isinstance(act, list) and len(act) == 2 and act[1] == "linear"
    if fields["gated_feed_forward"]:
        act = act[0]
    # "gelu" is what the T5 release means by it; compat="bert4keras" makes it the exact one.
    fields["hidden_act"] = "gelu_tanh" if act == "gelu" else act
    tied = not fields["gated_feed_forward"]
    if tensors:
        tied = not {"decoder/logits/kernel", "lm_head.weight"} & set(tensors)
    fields["tie_word_embeddings"] = fields["scale_logits"] = tied
    if fields.get("num_decoder_layers") is None:
        fields["num_decoder_layers"] = fields.get("num_hidden_layers")


T5_DIALECT = Dialect(
    name="bert4keras T5",
    keys=(
        *SIZES,
        Key("hidden_act", "hidden_act"),
        Key("attention_head_size", "attention_head_size", None, aliases=("attention_key_size",)),
        Key("num_decoder_layers", "num_decoder_layers", None),
        Key("relative_attention_num_buckets", "relative_attention_num_buckets", 32),
    ),
    fixed={"layer_norm_eps": 1e-6, "pad_token_id": 0, "eos_token_id": 1, "decoder_start_token_id": 0},
    harmless=GOOGLE_HARMLESS,
    finish_read=_finish_t5,
)
