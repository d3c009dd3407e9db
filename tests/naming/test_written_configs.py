"""What a dialect writes is read back unchanged; what its format cannot express is refused, never dropped."""

from __future__ import annotations

import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.naming.configs import BERT, GPT2, T5, config, release, t5_with
from tfloader.config import NOT_MATHEMATICS
from tfloader.errors import ConfigError
from tfloader.naming import gau_alpha, roformer, roformer_v2
from tfloader.naming.bert4keras import T5_PEGASUS, T5_PEGASUS_DIALECT
from tfloader.naming.google_bert import DIALECT as GOOGLE_BERT
from tfloader.naming.gpt import DIALECT as B4K_GPT
from tfloader.naming.gpt import GPT2_DIALECT as B4K_GPT2
from tfloader.naming.gpt import HF_DIALECT as HF_OPENAI_GPT
from tfloader.naming.gpt2 import DIALECT as OPENAI_GPT2
from tfloader.naming.gpt2 import HF_DIALECT as HF_GPT2
from tfloader.naming.gpt2_ml import DIALECT as GPT2_ML
from tfloader.naming.gpt2_ml import HF_RELEASE as HF_GPT2_ML_RELEASE
from tfloader.naming.hf_bert import DIALECT as HF_BERT
from tfloader.naming.hf_roberta import DIALECT as HF_ROBERTA
from tfloader.naming.hf_t5 import DIALECT as HF_T5
from tfloader.naming.hf_t5 import MT5_DIALECT as HF_MT5
from tfloader.naming.nezha import DIALECT as NEZHA_DIALECT
from tfloader.naming.nezha import HF_DIALECT as HF_NEZHA

HF_GPT2_ML = HF_GPT2_ML_RELEASE.dialects[0]

# The fields that every dialect of a family can express in any combination.
rates = st.floats(0, 0.5)
epsilons = st.sampled_from([1e-12, 1e-5, 1e-6, 1e-3, 0.0])
ids = st.none() | st.integers(0, 10**6)
sizes = {
    "vocab_size": st.integers(1, 10**6),
    "num_hidden_layers": st.integers(0, 100),
    "intermediate_size": st.integers(1, 10**5),
    "hidden_dropout_prob": rates,
    "initializer_range": rates,
}
widths = st.tuples(st.integers(1, 64), st.integers(1, 64)).map(
    lambda pair: {"num_attention_heads": pair[0], "hidden_size": pair[0] * pair[1]}
)
hf_acts = st.sampled_from(["gelu", "gelu_tanh", "relu", "silu", "tanh", "sigmoid", "linear"])
WIDTH = {"embedding_size": st.none() | st.integers(1, 99)}
APART = {"embedding_size": st.integers(4097, 9999)}  # no hidden_size is so large
HEAD = {"mlm_norm_eps": st.none() | epsilons}
EXPRESSIBLE = {
    # name: (dialect, family, fixed fields, strategies)
    "google_bert": (
        GOOGLE_BERT,
        "bert",
        BERT,
        sizes | {"hidden_act": hf_acts, "type_vocab_size": st.integers(1, 9), "attention_probs_dropout_prob": rates},
    ),
    "hf_bert": (
        HF_BERT,
        "bert",
        BERT | {"model_type": "bert"},
        sizes
        | {
            "hidden_act": hf_acts,
            "type_vocab_size": st.integers(0, 9),
            "attention_probs_dropout_prob": rates,
            "layer_norm_eps": epsilons,
            "pad_token_id": ids,
            "eos_token_id": ids,
            "application": st.sampled_from(["encoder", "lm", "unilm"]),
        },
    ),
    "google_albert": (
        release("google_albert").dialects[0],
        "albert",
        BERT,
        sizes | {"hidden_act": hf_acts, "inner_group_num": st.integers(1, 9)} | APART,
    ),
    "hf_albert": (
        release("hf_albert").dialects[0],
        "albert",
        BERT | {"model_type": "albert", "embedding_size": 5000},
        sizes
        | APART
        | {
            "hidden_act": hf_acts,
            "inner_group_num": st.integers(1, 9),
            "layer_norm_eps": epsilons,
            "pad_token_id": ids,
            "application": st.sampled_from(["encoder", "lm", "unilm"]),
        },
    ),
    "google_electra": (
        release("google_electra").dialects[0],
        "electra",
        BERT,
        sizes | APART | {"attention_probs_dropout_prob": rates},
    ),
    "hf_electra": (
        release("hf_electra").dialects[0],
        "electra",
        BERT | {"model_type": "electra"},
        sizes | APART | {"hidden_act": hf_acts, "layer_norm_eps": epsilons, "eos_token_id": ids},
    ),
    "hf_roberta": (
        HF_ROBERTA,
        "roberta",
        BERT | {"model_type": "roberta"},
        sizes
        | HEAD
        | {
            "type_vocab_size": st.integers(0, 9),
            "max_position_embeddings": st.integers(1, 99),
            "layer_norm_eps": epsilons,
            "pad_token_id": st.integers(0, 9),
            "eos_token_id": ids,
            "application": st.sampled_from(["encoder", "lm"]),
        },
    ),
    "nezha": (
        NEZHA_DIALECT,
        "nezha",
        {"pad_token_id": 0},
        sizes
        | HEAD
        | {
            "hidden_act": hf_acts,
            "type_vocab_size": st.integers(0, 9),
            "layer_norm_eps": epsilons,
            "relative_attention_max_distance": st.integers(1, 99),
        },
    ),
    "hf_nezha": (
        HF_NEZHA,
        "nezha",
        {"model_type": "nezha", "type_vocab_size": 2},
        sizes
        | HEAD
        | {
            "hidden_act": hf_acts,
            "layer_norm_eps": epsilons,
            "pad_token_id": ids,
            "eos_token_id": ids,
            "relative_attention_max_distance": st.integers(1, 99),
            "application": st.sampled_from(["encoder", "lm", "unilm"]),
        },
    ),
    "hf_gpt2": (
        HF_GPT2,
        "gpt2",
        GPT2 | {"model_type": "gpt2"},
        sizes
        | {
            "hidden_act": hf_acts,
            "layer_norm_eps": epsilons,
            "embedding_dropout_prob": rates,
            "attention_probs_dropout_prob": rates,
            "eos_token_id": ids,
            "bos_token_id": ids,
        },
    ),
    "openai_gpt": (
        HF_OPENAI_GPT,
        "gpt",
        GPT2 | {"model_type": "openai-gpt"},
        sizes
        | {
            "hidden_act": st.sampled_from(["gelu_tanh", "relu", "silu"]),
            "layer_norm_eps": epsilons,
            "embedding_dropout_prob": rates,
            "attention_probs_dropout_prob": rates,
            "eos_token_id": ids,
            "bos_token_id": ids,
            "shared_segment_embeddings": st.booleans(),
        },
    ),
    **{
        name: (
            dialect,
            family,
            BERT | {"model_type": family} | fixed,
            sizes
            | {
                "hidden_act": hf_acts,
                "type_vocab_size": st.integers(0, 9),
                "attention_probs_dropout_prob": rates,
                "layer_norm_eps": epsilons,
                "pad_token_id": ids,
            }
            | further,
        )
        for name, dialect, family, fixed, further in (
            ("roformer", roformer.DIALECT, "roformer", {}, WIDTH | HEAD),
            ("hf_roformer", roformer.HF_DIALECT, "roformer", {}, WIDTH | HEAD),
            ("roformer_v2", roformer_v2.DIALECT, "roformer_v2", {}, WIDTH),
            ("hf_roformer_v2", roformer_v2.HF_DIALECT, "roformer_v2", {}, WIDTH),
            ("gau_alpha", gau_alpha.DIALECT, "gau_alpha", {"attention_head_size": 6}, {}),
        )
    },
    "b4k_gpt": (
        B4K_GPT,
        "gpt",
        GPT2,
        sizes
        | {
            "hidden_act": st.sampled_from(["gelu", "gelu_tanh", "relu", "silu"]),
            "attention_probs_dropout_prob": rates,
            "type_vocab_size": st.integers(0, 9),
        },
    ),
    "b4k_gpt shared": (B4K_GPT, "gpt", GPT2 | {"shared_segment_embeddings": True}, sizes),
    "b4k_gpt2": (B4K_GPT2, "gpt2", GPT2, sizes | {"attention_probs_dropout_prob": rates}),
    "t5_pegasus": (
        T5_PEGASUS_DIALECT,
        "t5",
        T5 | T5_PEGASUS | {"hidden_act": "gelu", "gated_feed_forward": True, "tie_word_embeddings": False},
        sizes | {"attention_head_size": st.integers(1, 99), "num_decoder_layers": st.integers(0, 99)},
    ),
    "gpt2_ml": (GPT2_ML, "gpt2_ml", GPT2 | {"hidden_act": "gelu"}, sizes | {"attention_probs_dropout_prob": rates}),
    "hf_gpt2_ml": (
        HF_GPT2_ML,
        "gpt2_ml",
        GPT2 | {"model_type": "gpt2_ml"},
        sizes | {"hidden_act": hf_acts, "attention_probs_dropout_prob": rates},
    ),
    "hf_t5": (
        HF_T5,
        "t5",
        T5 | {"model_type": "t5"},
        sizes
        | {
            "hidden_act": hf_acts,
            "gated_feed_forward": st.booleans(),
            "attention_head_size": st.integers(1, 99),
            "num_decoder_layers": st.integers(0, 99),
            "layer_norm_eps": epsilons,
            "pad_token_id": ids,
            "eos_token_id": ids,
            "decoder_start_token_id": ids,
            "relative_attention_num_buckets": st.integers(1, 99),
            "relative_attention_max_distance": st.integers(1, 999),
            "tie_word_embeddings": st.booleans(),
            "scale_logits": st.booleans(),
        },
    ),
}


@pytest.mark.parametrize("name", EXPRESSIBLE)
@given(data=st.data())
def test_a_written_config_is_read_back_unchanged(name, data):
    dialect, family, fixed, strategies = EXPRESSIBLE[name]
    fields = fixed | data.draw(widths) | data.draw(st.fixed_dictionaries(strategies))
    if family == "t5":
        fields["attention_probs_dropout_prob"] = fields["hidden_dropout_prob"]
        del fields["initializer_range"]
    if dialect is HF_OPENAI_GPT:
        fields["intermediate_size"] = 4 * fields["hidden_size"]
    if fields.get("application") in ("lm", "unilm") and family == "bert":
        fields["type_vocab_size"] = 2
    before = config(family, **fields, uncut_vocab_size=data.draw(st.none() | st.integers(1, 999)))
    written = json.loads(json.dumps(dialect.write(before)))
    assert dialect.read(written, "x", family) == before


def test_openai_hparams_are_read_back_unchanged():
    before = config("gpt2", **GPT2)
    assert OPENAI_GPT2.write(before) == {"n_vocab": 20, "n_ctx": 16, "n_embd": 8, "n_head": 2, "n_layer": 1}
    assert OPENAI_GPT2.read(OPENAI_GPT2.write(before), "x", "gpt2") == before


INEXPRESSIBLE = {
    "Google BERT, epsilon 1e-5": (GOOGLE_BERT, config(**BERT, layer_norm_eps=1e-5), "layer_norm_eps = 1e-05"),
    "Google BERT, no segments": (GOOGLE_BERT, config(**BERT | {"type_vocab_size": 0}), "always segments"),
    "Google BERT, padding id 1": (GOOGLE_BERT, config(**BERT | {"pad_token_id": 1}), "pad_token_id = 1"),
    "Google BERT, factorised": (GOOGLE_BERT, config(**BERT, embedding_size=4), "embedding_size = 4"),
    "Google BERT, own head size": (GOOGLE_BERT, config(**BERT, attention_head_size=3), "attention_head_size = 3"),
    "Google BERT, gated": (GOOGLE_BERT, config(**BERT, gated_feed_forward=True), "gated_feed_forward = True"),
    "Google BERT, extras": (GOOGLE_BERT, config(**BERT, extras={"a": 1}), "extras"),
    "Google BERT, softmax": (GOOGLE_BERT, config(**BERT, hidden_act="softmax"), "hidden_act = 'softmax'"),
    "HF BERT, softmax": (HF_BERT, config(**BERT, hidden_act="softmax"), "hidden_act = 'softmax'"),
    "HF BERT, output of its own": (HF_BERT, config(**BERT, tie_word_embeddings=False), "tie_word_embeddings = False"),
    "HF BERT, no positions": (HF_BERT, config(type_vocab_size=2, pad_token_id=0), "max_position_embeddings"),
    "OpenAI, other width": (OPENAI_GPT2, config("gpt2", **GPT2 | {"intermediate_size": 31}), "intermediate_size 31"),
    "OpenAI, exact gelu": (OPENAI_GPT2, config("gpt2", **GPT2 | {"hidden_act": "gelu"}), "hidden_act = 'gelu'"),
    "OpenAI, epsilon": (OPENAI_GPT2, config("gpt2", **GPT2 | {"layer_norm_eps": 1e-6}), "layer_norm_eps"),
    "HF GPT, other width": (HF_OPENAI_GPT, config("gpt", **GPT2 | {"intermediate_size": 31}), "32 wide, here 31"),
    "HF GPT, exact gelu": (HF_OPENAI_GPT, config("gpt", **GPT2 | {"hidden_act": "gelu"}), "'gelu'"),
    "HF GPT, segments": (HF_OPENAI_GPT, config("gpt", **GPT2, type_vocab_size=3), "type_vocab_size = 3"),
    "RoFormer, own head size": (roformer.DIALECT, config(**BERT, attention_head_size=6), "attention_head_size = 6"),
    "RoFormerV2, epsilon of a head": (roformer_v2.DIALECT, config(**BERT, mlm_norm_eps=0.1), "mlm_norm_eps = 0.1"),
    "GAU-alpha, factorised": (
        gau_alpha.DIALECT,
        config(**BERT, embedding_size=5, attention_head_size=6),
        "embedding_size = 5",
    ),
    "GPT, bert4keras' epsilon": (B4K_GPT, config("gpt", **GPT2 | {"layer_norm_eps": 1e-12}), "layer_norm_eps = 1e-12"),
    "HF GPT-2, padding": (HF_GPT2, config("gpt2", **GPT2, pad_token_id=0), "pad_token_id = 0"),
    "GPT2_ML, approximate gelu": (GPT2_ML, config("gpt2_ml", **GPT2), "hidden_act = 'gelu_tanh'"),
    "T5, positions across": (HF_T5, t5_with(cross_position_bias=True), "cross_position_bias = True"),
    "T5, softmax": (HF_T5, t5_with(hidden_act="softmax"), "'softmax'"),
    "mT5, scaled": (HF_MT5, t5_with(), "scale_logits = True.*model_type='t5'"),
}


@pytest.mark.parametrize("name", INEXPRESSIBLE)
def test_what_a_format_cannot_express_is_refused_not_dropped(name):
    dialect, model, words = INEXPRESSIBLE[name]
    with pytest.raises(ConfigError, match=words):
        dialect.write(model)


@pytest.mark.parametrize("name", EXPRESSIBLE)
def test_no_mathematical_field_is_dropped_by_a_format(name):
    """Whichever one field is changed, writing either keeps it or refuses."""
    dialect, family, fixed, _ = EXPRESSIBLE[name]
    before = config(family, **fixed)
    for item in dataclasses.fields(before):
        value = getattr(before, item.name)
        if item.name in (*NOT_MATHEMATICS, "family"):
            continue
        others = {"hidden_act": "tanh", "extras": {"a": 1}, "block_norm_eps": 0.5, "mlm_norm_eps": 0.5}
        others |= {"head": "classification"}
        other = others.get(item.name)
        if other is None:
            other = (
                not value if isinstance(value, bool) else value / 2 if isinstance(value, float) else (value or 0) + 6
            )
        changed = before.replace(**{item.name: other})
        try:
            again = dialect.read(dialect.write(changed), "x", family)
        except ConfigError:
            continue
        assert getattr(again, item.name) == other, item.name


def test_a_head_size_that_is_the_default_one_is_no_loss():
    assert HF_BERT.write(config(**BERT, attention_head_size=4)) == HF_BERT.write(config(**BERT))
