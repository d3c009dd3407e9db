"""T5 as Google published it (Mesh TensorFlow): a TensorFlow checkpoint and operative_config.gin.

T5 1.0 and 1.1 call their norms `layer_norm` and `final_layer_norm`, mT5 calls all of them `rms_norm`. The gin file
does not know the vocabulary's size; the embedding is padded to a multiple of 128 rows.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from tfloader.config import shown
from tfloader.errors import ConfigError, listing
from tfloader.naming.base import Identity, Naming, Transpose
from tfloader.naming.bert4keras import T5_DIALECT as BERT4KERAS_DIALECT
from tfloader.naming.bert4keras import T5_PEGASUS_DIALECT
from tfloader.naming.dialect import Dialect, Key
from tfloader.naming.hf_t5 import DIALECT, MT5_DIALECT
from tfloader.naming.hf_t5 import NAMING as HF_NAMING
from tfloader.naming.release import TENSORFLOW, TF_OPTIMIZER_SLOTS, Release, TextFormat


def _naming(norm: str, final_norm: str) -> Naming:
    """Hugging Face's table under Mesh TensorFlow's names, with kernels [in, out] and positions [heads, buckets]."""
    spelling = (
        (r"^shared\.weight$", "shared/embedding"),
        (r"^lm_head\.weight$", "decoder/logits/kernel"),
        (r"\.block\.0\.layer\.0\.SelfAttention\.(\w+)\.weight$", r"/block_000/layer_000/SelfAttention/\1"),
        (r"\.block\.\{(\w+)\}\.layer\.(\d)\.", r"/block_{\1:03d}/layer_00\2/"),
        (r"/layer_norm\.weight$", f"/{norm}/scale"),
        (r"\.final_layer_norm\.weight$", f"/{final_norm}/scale"),
        (r"Attention\.(\w)\.weight$", r"Attention/\1"),
        (r"DenseReluDense\.(\w+)\.weight$", r"DenseReluDense/\1/kernel"),
    )
    rows = []
    for item in HF_NAMING.rows:
        theirs = item.theirs
        for pattern, new in spelling:
            theirs = re.sub(pattern, new, theirs)
        op = Transpose() if "Relative-Position" in item.ours[0] else Identity()
        rows.append(replace(item, theirs=theirs, op=op))
    return Naming(tuple(rows), ignorable=TF_OPTIMIZER_SLOTS)


# Parameters of the classes that make up the model; all others in a gin file are about training and data.
OF_THE_MODEL = re.compile(
    r"(SelfAttention|EncDecAttention|DenseReluDense|LayerStack|make_layer_stack|Unitransformer|Bitransformer|"
    r"make_bitransformer|VocabEmbedding|sublayer_rms_norm|unit_scaling_convention|get_vocab_embedding_cls|"
    r"enc_dec_attention|enc_dec_attention_bias)\.|run\.model_type"
)
HARMLESS = (
    r".*\.(dropout_rate|attention_kwargs|keep_query_heads_dims|recompute_grads|label_smoothing|loss_denominator|loss_fn|"
    r"loss_on_targets_only|max_length|token_dropout_rate|vocab_divisor|z_loss|name|encoder_name|decoder_name)",
)
SUBLAYERS = ["sublayer_rms_norm", "sublayer_call_layer", "sublayer_dropout", "sublayer_residual"]

# What both stacks must say, with the values that we implement; None first where the class itself defaults to it.
SAME_IN_BOTH_STACKS = {
    "SelfAttention.attention_func": (None,),
    "SelfAttention.combine_dims": (True,),
    "SelfAttention.fold_scaling_into_initializer": (True,),
    "SelfAttention.num_memory_heads": (0,),
    "SelfAttention.relative_attention_type": ("bias_shared",),
    "SelfAttention.shared_kv": (False,),
    "DenseReluDense.use_bias": (False,),
    "LayerStack.sublayers_final": (["sublayer_rms_norm", "sublayer_dropout"],),
    "LayerStack.sublayers_initial": (["sublayer_dropout"],),
    "LayerStack.sublayers_per_layer": (SUBLAYERS,),
    "Unitransformer.ensemble": (None,),
    "Unitransformer.input_full_attention": (False,),
    "Unitransformer.positional_embedding": (False,),
    "Unitransformer.sinusoid_positional_embedding": (False,),
}
ONLY = {
    **{f"{stack}/{name}": values for name, values in SAME_IN_BOTH_STACKS.items() for stack in ("encoder", "decoder")},
    "encoder/make_layer_stack.block_scope": (True,),
    "decoder/make_layer_stack.block_scope": (True,),
    "encoder/make_layer_stack.layers": (["SelfAttention", "DenseReluDense"],),
    "decoder/make_layer_stack.layers": (["SelfAttention", "EncDecAttention", "DenseReluDense"],),
    "decoder/EncDecAttention.relative_attention_type": (None,),
    "decoder/EncDecAttention.num_memory_heads": (0,),
    "decoder/EncDecAttention.shared_kv": (False,),
    "Bitransformer.shared_embedding": (True,),
    "run.model_type": ("bitransformer",),
    "unit_scaling_convention.value": (False,),
    "VocabEmbedding.scale_variable_like_classifier_weights": (False,),
}
# Mesh TensorFlow's gelu is the tanh approximation.
ACTIVATIONS = {"relu": "relu", "gelu": "gelu_tanh", "swish": "silu", "tanh": "tanh", "sigmoid": "sigmoid"}
# (our field, parameter): the encoder's value is taken, the decoder's must be the same.
SIZES = (
    ("hidden_size", "Unitransformer.d_model"),
    ("attention_head_size", "SelfAttention.key_value_size"),
    ("num_attention_heads", "SelfAttention.num_heads"),
    ("intermediate_size", "DenseReluDense.hidden_size"),
    ("hidden_act", "DenseReluDense.activation"),
    ("relative_attention_num_buckets", "SelfAttention.relative_attention_num_buckets"),
)


def model_bindings(bindings: Mapping[str, Any]) -> dict[str, Any]:
    """The bindings of a gin file that concern the model; one without a stack's scope counts for both stacks."""
    result: dict[str, Any] = {"model_type": "gin"}
    for name, value in bindings.items():
        scope, _, parameter = name.rpartition("/")
        parameter = ".".join(parameter.split(".")[-2:])  # gin allows the module's name before the class
        if OF_THE_MODEL.match(parameter):
            in_stacks = parameter in SAME_IN_BOTH_STACKS or parameter in dict(SIZES).values()
            scopes = ("encoder/", "decoder/") if in_stacks and not scope else (f"{scope}/" if scope else "",)
            for full in (f"{item}{parameter}" for item in scopes):
                result[full] = bindings.get(full, value)
    return result


def _finish_read(fields: dict[str, Any], raw: Mapping[str, Any], tensors: Mapping[str, tuple[int, ...]]) -> None:
    same = [*(p for _, p in SIZES), "LayerStack.norm_epsilon"]
    differing = [p for p in same if raw.get(f"decoder/{p}", raw.get(f"encoder/{p}")) != raw.get(f"encoder/{p}")]
    if differing:
        raise ConfigError(f"encoder and decoder differ, which is not implemented:\n{listing(differing)}")
    kind = fields["hidden_act"]
    fields["gated_feed_forward"] = isinstance(kind, list)
    if isinstance(kind, list) and not (len(kind) == 2 and kind[1] == "linear"):
        raise ConfigError(f"activation = {shown(kind)} is not implemented; supported: [name, 'linear'].")
    name = kind[0] if isinstance(kind, list) else kind
    if not isinstance(name, str) or name not in ACTIVATIONS:
        supported = ", ".join(map(repr, ACTIVATIONS))
        raise ConfigError(f"activation = {shown(name)} is not implemented; supported: {supported}.")
    fields["hidden_act"] = ACTIVATIONS[name]
    tied = raw.get("decoder/Unitransformer.shared_embedding_and_softmax_weights", False)
    fields["tie_word_embeddings"] = fields["scale_logits"] = tied
    fields["layer_norm_eps"] = raw.get("encoder/LayerStack.norm_epsilon") or raw.get("sublayer_rms_norm.epsilon", 1e-6)
    dropout = raw.get("encoder/SelfAttention.dropout_rate", 0.0)
    fields["hidden_dropout_prob"] = fields["attention_probs_dropout_prob"] = dropout
    if table := tensors.get("shared/embedding") or tensors.get("Embedding-Token/embeddings"):
        fields["vocab_size"] = table[0]
    elif "vocab_size" not in fields:
        raise ConfigError("the gin file does not say vocab_size: give the checkpoint too, or vocab_size=.")


GIN_DIALECT = Dialect(
    name="T5 gin",
    keys=(
        *(Key(ours, f"encoder/{parameter}") for ours, parameter in SIZES),
        Key("num_hidden_layers", "encoder/make_layer_stack.num_layers"),
        Key("num_decoder_layers", "decoder/make_layer_stack.num_layers"),
    ),
    fixed={"pad_token_id": 0, "eos_token_id": 1, "decoder_start_token_id": 0, "model_type": "t5"},
    only=ONLY,
    harmless=(
        *HARMLESS,
        *(f"decoder/{parameter}" for _, parameter in SIZES),
        r"(encoder|decoder)/LayerStack\.norm_epsilon|sublayer_rms_norm\.epsilon|model_type",
        r"(encoder|decoder)/Unitransformer\.shared_embedding_and_softmax_weights",
    ),
    constants={"model_type": "gin"},
    finish_read=_finish_read,
)

RELEASE = Release(
    name="t5_mesh",
    title="Google T5 (Mesh TensorFlow checkpoint)",
    family="t5",
    **TENSORFLOW,
    signature="encoder/final_layer_norm/scale",
    naming=_naming("layer_norm", "final_layer_norm"),
    config_files=("operative_config.gin", "*.gin", "config.json"),
    dialects=(DIALECT, MT5_DIALECT, GIN_DIALECT, BERT4KERAS_DIALECT),
    text_format=TextFormat(None, "eos"),
)

# The gin file does not say which of the two it is; the norms' names do.
MT5_RELEASE = replace(
    RELEASE,
    name="mt5_mesh",
    title="Google mT5 (Mesh TensorFlow checkpoint)",
    signature="encoder/rms_norm/scale",
    naming=_naming("rms_norm", "rms_norm"),
    dialects=(
        DIALECT,
        MT5_DIALECT,
        replace(GIN_DIALECT, fixed={**GIN_DIALECT.fixed, "model_type": "mt5"}),
        BERT4KERAS_DIALECT,
        T5_PEGASUS_DIALECT,
    ),
    model_types=("mt5",),
)
