"""A key or value that changes the mathematics, or that nobody knows, is refused by name."""

from __future__ import annotations

import re

import pytest

from tests.conftest import CHECKPOINTS
from tests.naming.configs import BERT, GPT2, T5, config, release
from tfloader.errors import ConfigError
from tfloader.naming import read_config, read_raw_config
from tfloader.naming.google_bert import DIALECT as GOOGLE_BERT
from tfloader.naming.gpt2 import HF_DIALECT as HF_GPT2
from tfloader.naming.gpt2_ml import DIALECT as GPT2_ML
from tfloader.naming.hf_bert import DIALECT as HF_BERT
from tfloader.naming.hf_t5 import DIALECT as HF_T5

HF_BERT_RAW = HF_BERT.write(config(**BERT))
GOOGLE_RAW = GOOGLE_BERT.write(config(**BERT))
GPT2_RAW = HF_GPT2.write(config("gpt2", **GPT2))
T5_RAW = HF_T5.write(config("t5", **T5))
GIN = read_raw_config(str(CHECKPOINTS / "t5_mesh_v10" / "operative_config.gin"))
E, D = "encoder/", "decoder/"
FOREIGN = {
    # name: (release, a config that is fine, what is changed, words of the message)
    "relative positions": (
        "hf_bert",
        HF_BERT_RAW,
        {"position_embedding_type": "relative_key"},
        "supported: 'absolute'",
    ),
    "cross attention": (
        "hf_bert",
        HF_BERT_RAW,
        {"is_decoder": True, "add_cross_attention": True},
        "add_cross_attention = True.*supported: False",
    ),
    "quick_gelu": (
        "hf_bert",
        HF_BERT_RAW,
        {"hidden_act": "quick_gelu"},
        "hidden_act = 'quick_gelu'.*supported: 'gelu'",
    ),
    "our own name in their file": ("hf_bert", HF_BERT_RAW, {"hidden_act": "gelu_tanh"}, "hidden_act = 'gelu_tanh'"),
    "an activation that is a list": ("hf_bert", HF_BERT_RAW, {"hidden_act": ["gelu"]}, r"hidden_act = \['gelu'\]"),
    "quantised": (
        "hf_bert",
        HF_BERT_RAW,
        {"quantization_config": {"bits": 4}},
        "quantization_config = .*supported: None",
    ),
    "pruned heads": ("hf_bert", HF_BERT_RAW, {"pruned_heads": {"1": [0]}}, "pruned_heads = .*supported: {}"),
    "own output layer": (
        "hf_bert",
        HF_BERT_RAW,
        {"tie_word_embeddings": False},
        "tie_word_embeddings = False.*supported: True",
    ),
    "one direction": ("hf_bert", HF_BERT_RAW, {"directionality": "left"}, "directionality = 'left'.*supported: 'bidi'"),
    "one direction, Google": ("google_bert", GOOGLE_RAW, {"directionality": "left"}, "supported: 'bidi'"),
    "an encoder with a decoder": ("hf_bert", HF_BERT_RAW, {"is_encoder_decoder": True}, "is_encoder_decoder"),
    "norm before": ("google_bert", GOOGLE_RAW, {"ln_type": "preln"}, "ln_type = 'preln'.*supported: 'postln'"),
    "NEZHA": ("google_bert", GOOGLE_RAW, {"use_relative_position": True}, "unknown key 'use_relative_position'"),
    "ALBERT": ("google_bert", GOOGLE_RAW, {"embedding_size": 4}, "unknown key 'embedding_size'"),
    "Google's unknown activation": ("google_bert", GOOGLE_RAW, {"hidden_act": "mish"}, "hidden_act = 'mish'"),
    "adapters": ("hf_bert", HF_BERT_RAW, {"adapters": {}}, "unknown key 'adapters'"),
    "scaled by layer": ("hf_gpt2", GPT2_RAW, {"scale_attn_by_inverse_layer_idx": True}, "supported: False"),
    "unscaled scores": ("hf_gpt2", GPT2_RAW, {"scale_attn_weights": False}, "scale_attn_weights = False"),
    "GPT-2's own output layer": ("hf_gpt2", GPT2_RAW, {"tie_word_embeddings": False}, "tie_word_embeddings"),
    "GPT-2 with cross attention": ("hf_gpt2", GPT2_RAW, {"add_cross_attention": True}, "add_cross_attention"),
    "added special tokens": ("hf_gpt2", GPT2_RAW, {"n_special": 3}, "n_special = 3"),
    "two names for one size": (
        "hf_gpt2",
        GPT2_RAW,
        {"hidden_size": 16},
        "n_embd and hidden_size mean the same but differ",
    ),
    "T5: two names for one size": ("hf_t5", T5_RAW, {"num_hidden_layers": 16}, "num_layers and num_hidden_layers mean"),
    "gated-xyz": (
        "hf_t5",
        T5_RAW,
        {"feed_forward_proj": "gated-xyz"},
        "feed_forward_proj = 'gated-xyz'.*supported: .*gelu",
    ),
    "gated twice": ("hf_t5", T5_RAW, {"feed_forward_proj": "gated-gated-relu"}, "gated-gated-relu"),
    "no string": ("hf_t5", T5_RAW, {"feed_forward_proj": 3}, "feed_forward_proj = 3"),
    "T5 says gelu twice, differently": (
        "hf_t5",
        T5_RAW,
        {"feed_forward_proj": "gated-gelu", "dense_act_fn": "gelu"},
        "dense_act_fn = 'gelu' contradicts",
    ),
    "gated, but not": (
        "hf_t5",
        T5_RAW,
        {"feed_forward_proj": "gated-gelu", "is_gated_act": False},
        "is_gated_act = False contradicts",
    ),
    "T5 as one decoder": ("hf_t5", T5_RAW, {"is_decoder": True}, "is_decoder = True"),
    "GPT2_ML with another activation": (
        "gpt2_ml",
        GPT2_ML.write(config("gpt2_ml", **GPT2 | {"hidden_act": "gelu"})),
        {"hidden_act": "relu"},
        "supported: 'gelu'",
    ),
    "mesh: absolute positions": (
        "t5_mesh",
        GIN,
        {f"{E}Unitransformer.positional_embedding": True},
        "encoder/Unitransformer.positional_embedding = True.*supported: False",
    ),
    "mesh: memory heads": (
        "t5_mesh",
        GIN,
        {f"{D}SelfAttention.num_memory_heads": 4},
        "num_memory_heads = 4.*supported: 0",
    ),
    "mesh: positions across": (
        "t5_mesh",
        GIN,
        {f"{D}EncDecAttention.relative_attention_type": "bias_shared"},
        "EncDecAttention.relative_attention_type = 'bias_shared'.*supported: None",
    ),
    "mesh: shared keys and values": ("t5_mesh", GIN, {f"{E}SelfAttention.shared_kv": True}, "shared_kv = True"),
    "mesh: biases": ("t5_mesh", GIN, {f"{E}DenseReluDense.use_bias": True}, "use_bias = True"),
    "mesh: other sizes in the decoder": (
        "t5_mesh",
        GIN,
        {f"{D}DenseReluDense.hidden_size": 81},
        r"encoder and decoder differ(.|\n)*DenseReluDense.hidden_size",
    ),
    "mesh: another epsilon in the decoder": (
        "t5_mesh",
        GIN,
        {f"{D}LayerStack.norm_epsilon": 1e-5},
        r"differ(.|\n)*norm_epsilon",
    ),
    "mesh: an activation that we lack": (
        "t5_mesh",
        GIN,
        {f"{E}DenseReluDense.activation": "selu", f"{D}DenseReluDense.activation": "selu"},
        "activation = 'selu'.*supported",
    ),
    "mesh: gated in another way": (
        "t5_mesh",
        GIN,
        {f"{s}DenseReluDense.activation": ["gelu", "tanh"] for s in (E, D)},
        r"activation = \['gelu', 'tanh'\]",
    ),
    "mesh: nested activation": (
        "t5_mesh",
        GIN,
        {f"{s}DenseReluDense.activation": [["gelu"], "linear"] for s in (E, D)},
        "activation",
    ),
    "mesh: experts": (
        "t5_mesh",
        GIN,
        {f"{E}make_layer_stack.layers": ["SelfAttention", "MoE1D"]},
        "make_layer_stack.layers",
    ),
    "mesh: a decoder only": ("t5_mesh", GIN, {"run.model_type": "lm"}, "run.model_type = 'lm'"),
    "mesh: an unknown parameter": ("t5_mesh", GIN, {f"{E}SelfAttention.z": 1}, "unknown key 'encoder/SelfAttention.z'"),
    "mesh: logits of doubtful origin": (
        "t5_mesh",
        GIN,
        {f"{D}Unitransformer.shared_embedding_and_softmax_weights": "yes"},
        "tie_word_embeddings must be true or false",
    ),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_a_value_that_changes_the_mathematics_is_refused_by_name(name):
    own, raw, changes, words = FOREIGN[name]
    tensors = {"shared/embedding": (256, 48)} if own == "t5_mesh" else None
    read_config(release(own), raw, tensors)
    with pytest.raises(ConfigError, match=words):
        read_config(release(own), raw | changes, tensors)


@pytest.mark.parametrize("own, raw", [("hf_bert", HF_BERT_RAW), ("hf_gpt2", GPT2_RAW), ("hf_t5", T5_RAW)])
@pytest.mark.parametrize(
    "model_type",
    ["roberta", "albert", "electra", "nezha", "ernie", "xlm-roberta", "gptj", "umt5", "longt5", ["bert"], 3],
)
def test_another_familys_model_type_is_refused_although_the_tensors_look_alike(own, raw, model_type):
    with pytest.raises(ConfigError, match="model_type is .*" + re.escape(repr(model_type))):
        read_config(release(own), raw | {"model_type": model_type})


@pytest.mark.parametrize("typo, meant", [("hidden_siz", "hidden_size"), ("layer_norm_epsilon", "layer_norm_eps")])
def test_an_unknown_key_is_refused_with_the_nearest_known_one(typo, meant):
    with pytest.raises(ConfigError, match=f"unknown key {typo!r} .*did you mean {meant!r}"):
        HF_BERT.read(HF_BERT_RAW | {typo: 8}, "x", "bert")


def test_all_problems_of_a_file_are_reported_at_once():
    raw = HF_BERT_RAW | {"position_embedding_type": "rope", "frobnicate": 1, "hidden_act": "mish"}
    del raw["vocab_size"]
    with pytest.raises(ConfigError) as caught:
        HF_BERT.read(raw, "some.json", "bert")
    for words in ("some.json", "position_embedding_type", "frobnicate", "mish", "'vocab_size' is missing"):
        assert words in str(caught.value)


def test_keys_that_the_user_vouches_for_are_ignored():
    raw = HF_BERT_RAW | {"frobnicate": 1, "pruned_heads": None}
    assert HF_BERT.read(raw, "x", "bert", ignore=["frobnicate", "pruned_heads"]) == HF_BERT.read(
        HF_BERT_RAW, "x", "bert"
    )
    with pytest.raises(ConfigError, match="frobnicate"):
        HF_BERT.read(raw, "x", "bert", ignore=["pruned_heads"])
    with pytest.raises(ConfigError, match="pruned_heads"):
        HF_BERT.read(raw, "x", "bert", ignore="frobnicate")


def test_a_hostile_number_of_keys_is_refused_quickly():
    with pytest.raises(ConfigError, match="keys"):
        HF_BERT.read(HF_BERT_RAW | {f"key_{i}": i for i in range(200_000)}, "x", "bert")


def test_keys_that_are_no_strings_are_refused():
    with pytest.raises(ConfigError, match="must be strings, found 3"):
        HF_BERT.read(HF_BERT_RAW | {3: 4}, "x", "bert")
