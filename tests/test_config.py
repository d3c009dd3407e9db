"""Configs: every public dialect is read to the same words, written back whole, and refused where it means more."""

from __future__ import annotations

import dataclasses
import json
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tfloader
from tests.conftest import CHECKPOINTS, FIXTURES
from tests.releases import CASES, NEEDS_TORCH
from tfloader.config import ACTIVATION_NAMES, LIMITS, NOT_MATHEMATICS, TransformerConfig
from tfloader.errors import ConfigError
from tfloader.naming import RELEASES, find_config, gau_alpha, read_config, read_raw_config, roformer, roformer_v2
from tfloader.naming.b4k_gpt import DIALECT as B4K_GPT
from tfloader.naming.b4k_gpt import GPT2_DIALECT as B4K_GPT2
from tfloader.naming.bert4keras import T5_PEGASUS, T5_PEGASUS_DIALECT
from tfloader.naming.google_bert import DIALECT as GOOGLE_BERT
from tfloader.naming.google_nezha import DIALECT as NEZHA_DIALECT
from tfloader.naming.gpt2_ml import DIALECT as GPT2_ML
from tfloader.naming.gpt2_ml import HF_RELEASE as HF_GPT2_ML_RELEASE
from tfloader.naming.hf_bert import DIALECT as HF_BERT
from tfloader.naming.hf_gpt2 import DIALECT as HF_GPT2
from tfloader.naming.hf_nezha import DIALECT as HF_NEZHA
from tfloader.naming.hf_openai_gpt import DIALECT as HF_OPENAI_GPT
from tfloader.naming.hf_roberta import DIALECT as HF_ROBERTA
from tfloader.naming.hf_t5 import DIALECT as HF_T5
from tfloader.naming.hf_t5 import MT5_DIALECT as HF_MT5
from tfloader.naming.openai_gpt2 import DIALECT as OPENAI_GPT2

HF_GPT2_ML = HF_GPT2_ML_RELEASE.dialects[0]
TINY = {"vocab_size": 20, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}


def config(family="bert", **fields):
    return TransformerConfig(family=family, **(TINY | fields))


def release(name):
    return next(item for item in RELEASES if item.name == name)


# ---- the dataclass

INVALID = {
    # field: (value, what the message must say of it)
    "vocab_size": (10**12, "must lie between 1 and 10000000, found 1000000000000"),
    "hidden_size": (-8, "must lie between 1"),
    "num_hidden_layers": (10**6, "must lie between 0 and 1000"),
    "num_attention_heads": (True, "must be an integer, found True"),
    "intermediate_size": ("32", "must be an integer, found '32'"),
    "max_position_embeddings": (512.0, "must be an integer, found 512.0"),
    "type_vocab_size": (None, "must be an integer, found None"),
    "embedding_size": (0, "must lie between 1"),
    "attention_head_size": ([4], r"must be an integer, found \[4\]"),
    "layer_norm_eps": ("1e-12", "must be a number, found '1e-12'"),
    "hidden_dropout_prob": (1.5, r"must lie in \[0, 1\), found 1.5"),
    "initializer_range": (float("nan"), r"must lie in \[0, 1\), found nan"),
    "attention_probs_dropout_prob": (-0.1, r"must lie in \[0, 1\)"),
    "hidden_act": ("quick_gelu", "'quick_gelu' is not implemented; there are gelu, gelu_tanh, relu"),
    "application": ("decoder", "must be one of encoder, lm, unilm"),
    "gated_feed_forward": (1, "must be true or false, found 1"),
    "model_type": (3, "must be a string"),
    "pad_token_id": ("0", "must be an integer"),
    "extras": (5, "must be a mapping"),
}


@pytest.mark.parametrize("name", INVALID)
def test_an_invalid_value_is_refused_by_name(name):
    value, words = INVALID[name]
    with pytest.raises(ConfigError, match=f"{name}.*{words}"):
        config(**{name: value})


def test_all_invalid_values_are_reported_at_once():
    with pytest.raises(ConfigError) as caught:
        config(**{name: value for name, (value, _) in INVALID.items()})
    for name, (_, words) in INVALID.items():
        assert re.search(f"{name}.*{words}", str(caught.value)), name


@pytest.mark.parametrize("name", sorted(LIMITS))
def test_every_size_has_a_bound_that_holds(name):
    for value in (LIMITS[name] + 1, -1):
        with pytest.raises(ConfigError, match=f"{name} must lie between"):
            config(**{name: value})


def test_sizes_that_are_each_possible_but_together_absurd_are_refused():
    with pytest.raises(ConfigError, match=r"about 1e\+14 weights"):
        config(num_hidden_layers=1_000, hidden_size=100_000, num_attention_heads=1, intermediate_size=400_000)


def test_heads_must_divide_the_hidden_size_unless_their_size_is_given():
    with pytest.raises(
        ConfigError, match=r"hidden_size 8 is not a multiple of num_attention_heads 3.*attention_head_size"
    ):
        config(num_attention_heads=3)
    assert config(num_attention_heads=3, attention_head_size=5).head_size == 5


def test_huge_values_are_cut_in_messages():
    nested = None
    for _ in range(500):
        nested = [nested]
    for value in ("x" * 10**6, [1] * 10**6, 10**5000, nested):
        with pytest.raises(ConfigError) as caught:
            config(vocab_size=value)
        assert len(str(caught.value)) < 500


def test_replace_checks_again():
    with pytest.raises(ConfigError, match="num_attention_heads"):
        config().replace(num_attention_heads=3)


# ---- what each release's own file means


def bert(vocab, hidden, layers, heads, inner, act, **fields):
    return TransformerConfig(
        "bert",
        vocab,
        hidden,
        layers,
        heads,
        inner,
        act,
        max_position_embeddings=37,
        type_vocab_size=2,
        layer_norm_eps=1e-12,
        pad_token_id=0,
        **fields,
    )


def gpt2(vocab, hidden, layers, heads, act="gelu_tanh", family="gpt2", inner=None, **fields):
    return TransformerConfig(
        family,
        vocab,
        hidden,
        layers,
        heads,
        inner or 4 * hidden,
        act,
        max_position_embeddings=37,
        layer_norm_eps=1e-5,
        application="lm",
        **fields,
    )


def t5(vocab, hidden, layers, heads, inner, head_size, gated, model_type="t5", dropout=0.1):
    return TransformerConfig(
        "t5",
        vocab,
        hidden,
        layers,
        heads,
        inner,
        "gelu_tanh" if gated else "relu",
        gated_feed_forward=gated,
        attention_head_size=head_size,
        num_decoder_layers=layers,
        layer_norm_eps=1e-6,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
        pad_token_id=0,
        eos_token_id=1,
        decoder_start_token_id=0,
        tie_word_embeddings=not gated,
        scale_logits=not gated,
        model_type=model_type,
    )


def ends(token):
    return {"bos_token_id": token, "eos_token_id": token, "embedding_dropout_prob": 0.1, "model_type": "gpt2"}


NEZHA = {"family": "nezha", "max_position_embeddings": None}
ALBERT = {"family": "albert", "embedding_size": 20, "hidden_dropout_prob": 0, "attention_probs_dropout_prob": 0}
ELECTRA = bert(211, 48, 3, 4, 80, "gelu", model_type="electra").replace(family="electra", embedding_size=24)
GENERATOR = bert(211, 32, 3, 2, 56, "gelu", model_type="electra").replace(family="electra_generator", embedding_size=24)
ROFORMER = bert(211, 48, 3, 4, 80, "gelu", model_type="roformer").replace(family="roformer", layer_norm_eps=1e-7)
V2 = {"family": "roformer_v2", "model_type": "roformer_v2"}
EXPECTED = {
    "albert_google": bert(211, 48, 3, 4, 80, "gelu_tanh").replace(**ALBERT),
    "hf_albert": bert(211, 48, 3, 4, 80, "gelu_tanh", model_type="albert").replace(**ALBERT, eos_token_id=3),
    "electra_google": ELECTRA,
    "electra_google_generator": GENERATOR,
    "b4k_electra": ELECTRA.replace(embedding_size=20, model_type=None),
    "hf_electra": ELECTRA,
    "hf_electra_gen": GENERATOR,
    "bert_google": bert(211, 48, 3, 4, 80, "gelu_tanh"),
    "hf_bert": bert(211, 48, 3, 4, 80, "gelu", model_type="bert"),
    "hf_bert_bin_old": bert(203, 44, 2, 4, 72, "gelu", model_type="bert"),
    "hf_bert_h5": bert(211, 48, 3, 4, 80, "gelu", model_type="bert"),
    "hf_bert_sharded": bert(197, 40, 2, 5, 68, "gelu", model_type="bert"),
    "hf_bert_noprefix": bert(191, 42, 2, 6, 74, "gelu", model_type="bert"),
    "hf_roberta": bert(211, 48, 3, 4, 80, "gelu", model_type="roberta").replace(
        family="roberta", type_vocab_size=1, layer_norm_eps=1e-5, pad_token_id=1, eos_token_id=2
    ),
    "b4k_simbert": bert(211, 48, 3, 4, 80, "gelu_tanh"),
    "b4k_nezha": bert(211, 48, 3, 4, 80, "gelu_tanh", relative_attention_max_distance=64).replace(**NEZHA),
    "hf_nezha": bert(211, 48, 3, 4, 80, "gelu", relative_attention_max_distance=5).replace(**NEZHA, model_type="nezha"),
    "b4k_nezha_gen": bert(211, 48, 3, 4, 80, "gelu", application="lm").replace(
        type_vocab_size=0, model_type="nezha_gen"
    ),
    "b4k_roformer": ROFORMER.replace(mlm_norm_eps=1e-12),
    "b4k_roformer_factorized": ROFORMER.replace(mlm_norm_eps=1e-12, embedding_size=20),
    "hf_roformer": ROFORMER.replace(layer_norm_eps=1e-12, embedding_size=48),
    "b4k_roformer_v2": ROFORMER.replace(hidden_act="relu", **V2),
    "b4k_roformer_v2_factorized": ROFORMER.replace(embedding_size=20, **V2),
    "gau_alpha": bert(83, 24, 3, 1, 40, "silu", attention_head_size=8, model_type="gau_alpha").replace(
        family="gau_alpha", max_position_embeddings=512, layer_norm_eps=1e-7
    ),
    "b4k_gpt": gpt2(211, 48, 3, 4, family="gpt", inner=80, shared_segment_embeddings=True),
    "b4k_gpt_segtable": gpt2(211, 48, 3, 4, family="gpt", inner=80, type_vocab_size=3),
    "hf_openai_gpt": gpt2(151, 32, 2, 4, family="gpt", embedding_dropout_prob=0.1, model_type="openai-gpt").replace(
        max_position_embeddings=31
    ),
    "b4k_gpt2": gpt2(211, 48, 3, 4, inner=80),
    "gpt2_openai": gpt2(297, 48, 3, 4),
    "hf_gpt2": gpt2(297, 48, 3, 4, **ends(296)),
    "hf_gpt2_noprefix": gpt2(269, 40, 2, 5, **ends(268)),
    "hf_gpt2_h5": gpt2(211, 48, 3, 4, **ends(210)),
    "gpt2_ml": gpt2(211, 48, 3, 4, "gelu", "gpt2_ml", inner=80, initializer_range=0.014142135623731),
    "t5_mesh_v10": t5(256, 48, 3, 4, 80, 10, gated=False, dropout=0.0),
    "t5_mesh_v11": t5(256, 44, 2, 5, 72, 11, gated=True, dropout=0.0),
    "mt5_mesh": t5(256, 46, 2, 6, 68, 7, gated=True, model_type="mt5", dropout=0.0),
    "b4k_t5_pegasus": t5(211, 44, 2, 5, 72, 12, gated=True).replace(**T5_PEGASUS, hidden_act="gelu"),
    "hf_t5_v10": t5(211, 48, 3, 4, 80, 10, gated=False),
    "hf_t5_v11": t5(211, 44, 2, 5, 72, 11, gated=True),
    "hf_t5_h5": t5(211, 44, 2, 5, 72, 11, gated=True),
}


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_config_of_each_release_is_read_to_our_words(case):
    if case.name in NEEDS_TORCH:
        pytest.importorskip("torch", reason="pytorch_model.bin is read through torch, which is not installed")
    assert tfloader.load_config(case.path, case.options.get("model")) == EXPECTED[case.name]


@pytest.mark.parametrize("name", ["t5_mesh_v10", "t5_mesh_v11", "mt5_mesh"])
def test_gin_and_json_of_the_same_model_mean_the_same(name):
    raw = json.loads((CHECKPOINTS / name / "config.json").read_text())
    expected = EXPECTED[name].replace(hidden_dropout_prob=0.1, attention_probs_dropout_prob=0.1)
    assert read_config(release("mt5_mesh" if name == "mt5_mesh" else "t5_mesh"), raw) == expected


def test_a_published_gin_file_is_read():
    tensors = {"shared/embedding": (32128, 32)}
    found = read_config(release("mt5_mesh"), FIXTURES / "configs" / "tiny_t5_mesh.gin", tensors)
    assert found == t5(32128, 32, 2, 2, 64, 64, gated=True, model_type="mt5", dropout=0.0)


def test_gelu_means_what_the_code_of_its_release_computes():
    raw = TINY | {"hidden_act": "gelu", "max_position_embeddings": 16}
    found = {name: read_config(release(name), raw).hidden_act for name in ("google_bert", "hf_bert", "gpt2_ml")}
    hparams = {"n_vocab": 20, "n_ctx": 16, "n_embd": 8, "n_head": 2, "n_layer": 1}
    found["openai_gpt2"] = read_config(release("openai_gpt2"), hparams).hidden_act
    assert found == {"google_bert": "gelu_tanh", "hf_bert": "gelu", "gpt2_ml": "gelu", "openai_gpt2": "gelu_tanh"}


HF_ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_python": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "relu": "relu",
    "swish": "silu",
    "silu": "silu",
    "tanh": "tanh",
}


@pytest.mark.parametrize("theirs", HF_ACTIVATIONS)
def test_hugging_face_names_of_activations_are_read(theirs):
    ours = HF_ACTIVATIONS[theirs]
    assert HF_BERT.read(HF_BERT.write(config(**BERT)) | {"hidden_act": theirs}, "x", "bert").hidden_act == ours
    raw = HF_GPT2.write(config("gpt2", **GPT2)) | {"activation_function": theirs}
    assert HF_GPT2.read(raw, "x", "gpt2").hidden_act == ours
    raw = HF_T5.write(config("t5", **T5)) | {"feed_forward_proj": theirs}
    assert (HF_T5.read(raw, "x", "t5").hidden_act, HF_T5.read(raw, "x", "t5").gated_feed_forward) == (ours, False)
    found = HF_T5.read(raw | {"feed_forward_proj": f"gated-{theirs}"}, "x", "t5")
    # T5 1.1's own "gated-gelu" is the approximation.
    assert (found.hidden_act, found.gated_feed_forward) == ("gelu_tanh" if theirs == "gelu" else ours, True)


# ---- writing

BERT = {"max_position_embeddings": 16, "type_vocab_size": 2, "pad_token_id": 0}
GPT2 = {
    "max_position_embeddings": 16,
    "application": "lm",
    "layer_norm_eps": 1e-5,
    "hidden_act": "gelu_tanh",
}
T5 = {
    "num_decoder_layers": 2,
    "attention_head_size": 3,
    "hidden_act": "relu",
    "pad_token_id": 0,
    "tie_word_embeddings": True,
    "scale_logits": True,
    "layer_norm_eps": 1e-6,
}
NO_PADDING = {"pad_token_id": None}
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
@settings(max_examples=40, deadline=None)
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
    before = config(family, **fields)
    written = json.loads(json.dumps(dialect.write(before)))
    assert dialect.read(written, "x", family) == before


def test_openai_hparams_are_read_back_unchanged():
    before = config("gpt2", **GPT2)
    assert OPENAI_GPT2.write(before) == {"n_vocab": 20, "n_ctx": 16, "n_embd": 8, "n_head": 2, "n_layer": 1}
    assert OPENAI_GPT2.read(OPENAI_GPT2.write(before), "x", "gpt2") == before


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_release_writes_each_value_of_its_own_file_again(case):
    """write(read(x)): every key of x that says something stands there again with the same value."""
    own = release(case.release)
    found = find_config(case.path, own)
    # gin files are only read; config.json is written in their place, and stands beside them
    raw = read_raw_config(str(CHECKPOINTS / case.name / "config.json") if found.endswith(".gin") else found)
    dialect = own.dialect_for(raw, "x")
    written = dialect.write(dialect.read(raw, "x", own.family))
    translated = {key.theirs: key.default for key in dialect.keys} | dict.fromkeys(dialect.only)
    for name in set(raw) & set(translated):
        if name in written:
            assert written[name] == raw[name], name
        else:  # left out, and means the same by silence
            assert raw[name] == dialect.only[name][0], name


def t5_with(**fields):
    return config("t5", **(T5 | fields))


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


def test_logits_scaled_but_not_tied_or_the_other_way_round_are_noted_for_transformers_5():
    for tied, scaled in ((True, False), (False, True)):
        raw = HF_T5.write(t5_with(tie_word_embeddings=tied, scale_logits=scaled))
        assert raw["scale_decoder_outputs"] is scaled
    assert "scale_decoder_outputs" not in HF_T5.write(t5_with())


# ---- tied and scaled: transformers 4 and 5

NEW_T5 = {"tie_word_embeddings": True, "transformers_version": "5.23.0"}
TIED = {
    # name: (model_type, what the file says, whether lm_head is stored, (tied, scaled))
    "T5 1.0 of transformers 4": ("t5", {}, False, (True, True)),
    "T5 1.0 that stores its copy": ("t5", {}, True, (True, True)),
    "T5 1.1 of transformers 4": ("t5", {"tie_word_embeddings": False}, True, (False, False)),
    "T5 1.0 of transformers 5": ("t5", NEW_T5 | {"scale_decoder_outputs": True}, False, (True, True)),
    "T5 1.1 of transformers 5": ("t5", NEW_T5 | {"scale_decoder_outputs": False}, True, (False, False)),
    "T5 1.1 trained in transformers 5": ("t5", NEW_T5 | {"scale_decoder_outputs": False}, False, (True, False)),
    "mT5 of transformers 4": ("mt5", {"tie_word_embeddings": False}, True, (False, False)),
    "mT5 of transformers 4, silent": ("mt5", {}, True, (False, False)),
    "mT5 of transformers 5": ("mt5", NEW_T5, True, (False, False)),
    "mT5 trained in transformers 5": ("mt5", NEW_T5, False, (True, False)),
    "mT5 of transformers 10": ("mt5", NEW_T5 | {"transformers_version": "10.0"}, False, (True, False)),
    "mT5 tied in transformers 4": (
        "mt5",
        {"tie_word_embeddings": True, "transformers_version": "4.57.3"},
        False,
        (True, True),
    ),
}


@pytest.mark.parametrize("name", TIED)
def test_tied_and_scaled_logits_follow_the_version_that_wrote_the_file(name):
    model_type, said, stored, expected = TIED[name]
    raw = {
        "model_type": model_type,
        "vocab_size": 20,
        "d_model": 8,
        "d_kv": 4,
        "d_ff": 32,
        "num_layers": 1,
        "num_heads": 2,
    }
    tensors = {"shared.weight": (20, 8)} | ({"lm_head.weight": (20, 8)} if stored else {})
    found = read_config(release("hf_t5"), raw | said, tensors)
    assert (found.tie_word_embeddings, found.scale_logits) == expected


# ---- refused

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


def test_ignored_config_keys_reach_the_reader(tmp_path):
    raw = json.loads((CHECKPOINTS / "hf_bert" / "config.json").read_text()) | {"frobnicate": 1}
    path = CHECKPOINTS / "hf_bert" / "model.safetensors"
    with pytest.raises(ConfigError, match="ignore_config_keys"):
        tfloader.load(path, config=raw)
    tfloader.load(path, config=raw, ignore_config_keys=["frobnicate"], num_hidden_layers=1)


def test_a_hostile_number_of_keys_is_refused_quickly():
    with pytest.raises(ConfigError, match="keys"):
        HF_BERT.read(HF_BERT_RAW | {f"key_{i}": i for i in range(200_000)}, "x", "bert")


def test_keys_that_are_no_strings_are_refused():
    with pytest.raises(ConfigError, match="must be strings, found 3"):
        HF_BERT.read(HF_BERT_RAW | {3: 4}, "x", "bert")


# ---- public files: their keys as users have them

HF_4 = {
    "_name_or_path": "/home/someone/model",
    "architectures": ["Model"],
    "torch_dtype": "float32",
    "transformers_version": "4.6.0.dev0",
    "use_cache": True,
}
HF_5 = {
    "architectures": ["Model"],
    "dtype": "float32",
    "transformers_version": "5.23.0",
    "use_cache": True,
    "output_hidden_states": False,
    "return_dict": True,
    "chunk_size_feed_forward": 0,
    "is_encoder_decoder": False,
    "id2label": {"0": "LABEL_0", "1": "LABEL_1"},
    "label2id": {"LABEL_0": 0, "LABEL_1": 1},
    "problem_type": None,
    "_name_or_path": "",
    "output_attentions": False,
}
# What transformers 4 writes when it leaves out nothing (PretrainedConfig.to_dict).
HF_4_ALL = HF_5 | {
    "transformers_version": "4.41.2",
    "add_cross_attention": False,
    "bad_words_ids": None,
    "begin_suppress_tokens": None,
    "cross_attention_hidden_size": None,
    "decoder_start_token_id": None,
    "diversity_penalty": 0.0,
    "do_sample": False,
    "early_stopping": False,
    "encoder_no_repeat_ngram_size": 0,
    "exponential_decay_length_penalty": None,
    "finetuning_task": None,
    "forced_bos_token_id": None,
    "forced_eos_token_id": None,
    "is_decoder": False,
    "length_penalty": 1.0,
    "max_length": 20,
    "min_length": 0,
    "no_repeat_ngram_size": 0,
    "num_beam_groups": 1,
    "num_beams": 1,
    "num_return_sequences": 1,
    "output_scores": False,
    "prefix": None,
    "pruned_heads": {},
    "remove_invalid_values": False,
    "repetition_penalty": 1.0,
    "return_dict_in_generate": False,
    "sep_token_id": None,
    "suppress_tokens": None,
    "task_specific_params": None,
    "temperature": 1.0,
    "tf_legacy_loss": False,
    "tie_encoder_decoder": False,
    "tie_word_embeddings": True,
    "tokenizer_class": None,
    "top_k": 50,
    "top_p": 1.0,
    "torchscript": False,
    "typical_p": 1.0,
    "use_bfloat16": False,
}
POOLER = {
    "directionality": "bidi",
    "pooler_fc_size": 768,
    "pooler_num_attention_heads": 12,
    "pooler_num_fc_layers": 3,
    "pooler_size_per_head": 128,
    "pooler_type": "first_token_transform",
}
BERT_BASE = {
    "model_type": "bert",
    "attention_probs_dropout_prob": 0.1,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.1,
    "hidden_size": 768,
    "initializer_range": 0.02,
    "intermediate_size": 3072,
    "layer_norm_eps": 1e-12,
    "max_position_embeddings": 512,
    "num_attention_heads": 12,
    "num_hidden_layers": 12,
    "pad_token_id": 0,
    "type_vocab_size": 2,
    "vocab_size": 21128,
}
GOOGLE_BASE = {
    name: value for name, value in BERT_BASE.items() if name not in ("model_type", "layer_norm_eps", "pad_token_id")
}
GPT2_BASE = {
    "model_type": "gpt2",
    "activation_function": "gelu_new",
    "attn_pdrop": 0.1,
    "bos_token_id": 50256,
    "embd_pdrop": 0.1,
    "eos_token_id": 50256,
    "initializer_range": 0.02,
    "layer_norm_epsilon": 1e-05,
    "n_ctx": 1024,
    "n_embd": 768,
    "n_head": 12,
    "n_layer": 12,
    "n_positions": 1024,
    "resid_pdrop": 0.1,
    "summary_activation": None,
    "summary_first_dropout": 0.1,
    "summary_proj_to_labels": True,
    "summary_type": "cls_index",
    "summary_use_proj": True,
    "task_specific_params": {"text-generation": {"do_sample": True, "max_length": 50}},
    "vocab_size": 50257,
}
GPT2_NEW = {
    "n_inner": None,
    "pad_token_id": None,
    "reorder_and_upcast_attn": False,
    "scale_attn_by_inverse_layer_idx": False,
    "scale_attn_weights": True,
    "add_cross_attention": False,
    "tie_word_embeddings": True,
}
T5_SMALL = {
    "model_type": "t5",
    "d_ff": 2048,
    "d_kv": 64,
    "d_model": 512,
    "decoder_start_token_id": 0,
    "dropout_rate": 0.1,
    "eos_token_id": 1,
    "initializer_factor": 1.0,
    "is_encoder_decoder": True,
    "layer_norm_epsilon": 1e-06,
    "n_positions": 512,
    "num_heads": 8,
    "num_layers": 6,
    "output_past": True,
    "pad_token_id": 0,
    "relative_attention_num_buckets": 32,
    "vocab_size": 32128,
}
T5_TASKS = {
    "task_specific_params": {
        "summarization": {"early_stopping": True, "max_length": 200, "num_beams": 4, "prefix": "summarize: "},
        "translation_en_to_de": {"max_length": 300, "prefix": "translate English to German: "},
    }
}
T5_11 = {"feed_forward_proj": "gated-gelu", "num_decoder_layers": 6, "tie_word_embeddings": False}
T5_NEW = {
    "num_decoder_layers": 6,
    "relative_attention_max_distance": 128,
    "classifier_dropout": 0.0,
    "is_decoder": False,
    "feed_forward_proj": "relu",
    "dense_act_fn": "relu",
    "is_gated_act": False,
    "is_encoder_decoder": True,
    "tie_word_embeddings": True,
}
GATED_NEW = {"feed_forward_proj": "gated-gelu", "dense_act_fn": "gelu_new", "is_gated_act": True}
HERE = {"lm_head.weight": (32128, 512), "shared.weight": (32128, 512)}
PUBLIC = {
    # name: (release, the file, tensors, fields that tell it apart)
    "google: uncased_L-12_H-768_A-12": (
        "google_bert",
        GOOGLE_BASE,
        {"hidden_act": "gelu_tanh", "layer_norm_eps": 1e-12},
    ),
    "google: chinese_L-12_H-768_A-12": ("google_bert", GOOGLE_BASE | POOLER, {"pad_token_id": 0, "vocab_size": 21128}),
    "bert-base-uncased": (
        "hf_bert",
        BERT_BASE | HF_4 | {"gradient_checkpointing": False, "position_embedding_type": "absolute"},
        {"hidden_act": "gelu"},
    ),
    "bert-base-chinese": ("hf_bert", BERT_BASE | HF_4 | POOLER, {"vocab_size": 21128, "max_position_embeddings": 512}),
    "chinese-roberta-wwm-ext": (
        "hf_bert",
        BERT_BASE | HF_4 | POOLER | {"bos_token_id": 0, "eos_token_id": 2, "output_past": True},
        {"pad_token_id": 0, "application": "encoder"},
    ),
    "bert of transformers 5": (
        "hf_bert",
        HF_5
        | BERT_BASE
        | {
            "classifier_dropout": None,
            "is_decoder": False,
            "add_cross_attention": False,
            "bos_token_id": None,
            "eos_token_id": None,
            "tie_word_embeddings": True,
        },
        {"hidden_size": 768},
    ),
    "bert of transformers 4 with every key": ("hf_bert", HF_4_ALL | BERT_BASE, {"hidden_size": 768}),
    "a fine-tuned bert": (
        "hf_bert",
        BERT_BASE
        | HF_4
        | {
            "id2label": {"0": "neg"},
            "label2id": {"neg": 0},
            "problem_type": "single_label_classification",
            "_num_labels": 1,
            "finetuning_task": "sst2",
        },
        {"hidden_size": 768},
    ),
    "gpt2": (
        "hf_gpt2",
        GPT2_BASE | {"architectures": ["GPT2LMHeadModel"]},
        {"intermediate_size": 3072, "pad_token_id": None},
    ),
    "gpt2-medium, distilgpt2": (
        "hf_gpt2",
        GPT2_BASE | {"n_special": 0, "predict_special_tokens": True, "_num_labels": 1},
        {"hidden_act": "gelu_tanh"},
    ),
    "gpt2-xl": (
        "hf_gpt2",
        GPT2_BASE | {"n_embd": 1600, "n_head": 25, "n_layer": 48, "output_past": True},
        {"intermediate_size": 6400, "layer_norm_eps": 1e-5},
    ),
    "uer/gpt2-chinese-cluecorpussmall": (
        "hf_gpt2",
        GPT2_BASE
        | {
            "gradient_checkpointing": False,
            "n_inner": None,
            "output_past": True,
            "tokenizer_class": "BertTokenizer",
            "vocab_size": 21128,
        },
        {"vocab_size": 21128, "pad_token_id": None},
    ),
    "gpt2 of transformers 5": ("hf_gpt2", HF_5 | GPT2_BASE | GPT2_NEW, {"intermediate_size": 3072}),
    "gpt2 of transformers 4 with every key": ("hf_gpt2", HF_4_ALL | GPT2_BASE | GPT2_NEW, {"intermediate_size": 3072}),
    "t5-small": (
        "hf_t5",
        T5_SMALL | T5_TASKS,
        {"hidden_act": "relu", "tie_word_embeddings": True, "scale_logits": True},
    ),
    "t5-v1_1-base": (
        "hf_t5",
        T5_SMALL | T5_11,
        {"hidden_act": "gelu_tanh", "gated_feed_forward": True, "tie_word_embeddings": False},
    ),
    "flan-t5-base": (
        "hf_t5",
        T5_SMALL | HF_4 | T5_11 | {"relative_attention_max_distance": 128},
        {"gated_feed_forward": True, "scale_logits": False},
    ),
    "mt5-small": (
        "hf_t5",
        T5_SMALL | HF_4 | T5_11 | {"model_type": "mt5", "tokenizer_class": "T5Tokenizer"},
        {"tie_word_embeddings": False, "scale_logits": False},
    ),
    "t5 of transformers 5": (
        "hf_t5",
        HF_5 | T5_SMALL | T5_NEW | {"scale_decoder_outputs": True},
        {"scale_logits": True},
    ),
    "t5 1.1 of transformers 5": (
        "hf_t5",
        HF_5 | T5_SMALL | T5_NEW | GATED_NEW | {"scale_decoder_outputs": False},
        {"hidden_act": "gelu_tanh", "scale_logits": False, "tie_word_embeddings": False},
    ),
    "mt5 of transformers 5": (
        "hf_t5",
        HF_5 | T5_SMALL | T5_NEW | GATED_NEW | {"model_type": "mt5", "bos_token_id": None},
        {"scale_logits": False, "tie_word_embeddings": False},
    ),
    "t5 of transformers 4 with every key": (
        "hf_t5",
        HF_4_ALL | T5_SMALL | T5_NEW | {"transformers_version": "4.41.2"},
        {"scale_logits": True},
    ),
    "gpt2-ml, mega.json": (
        "gpt2_ml",
        {
            "vocab_size": 8021,
            "hidden_size": 1536,
            "attention_probs_dropout_prob": 0.1,
            "hidden_dropout_prob": 0.1,
            "hidden_act": "gelu",
            "initializer_range": 0.014142135623731,
            "intermediate_size": 6144,
            "max_position_embeddings": 1024,
            "num_attention_heads": 24,
            "num_hidden_layers": 48,
        },
        {"hidden_act": "gelu", "layer_norm_eps": 1e-5, "application": "lm"},
    ),
    "openai, 124M": (
        "openai_gpt2",
        {"n_vocab": 50257, "n_ctx": 1024, "n_embd": 768, "n_head": 12, "n_layer": 12},
        {"intermediate_size": 3072, "pad_token_id": None},
    ),
}


@pytest.mark.parametrize("name", PUBLIC)
def test_config_files_that_users_have_are_read(name):
    own, raw, fields = PUBLIC[name]
    stored = HERE if own == "hf_t5" and not fields.get("tie_word_embeddings", True) else None
    found = (
        release(own).dialect_for(raw, name).read(json.loads(json.dumps(raw)), name, release(own).family, tensors=stored)
    )
    assert {field: getattr(found, field) for field in fields} == fields


def test_t5_configs_as_bert4keras_users_wrote_them_are_read():
    raw = json.loads((FIXTURES / "compat_bert4keras" / "t5_mesh_v11.bert4keras_config.json").read_text())
    found = read_config(release("t5_mesh"), raw, {"shared/embedding": (256, 44), "decoder/logits/kernel": (44, 256)})
    assert (found.hidden_act, found.gated_feed_forward, found.head_size) == ("gelu_tanh", True, 11)
    assert (found.tie_word_embeddings, found.scale_logits, found.num_decoder_layers) == (False, False, 2)
    with pytest.raises(ConfigError, match="attention_head_size and attention_key_size mean the same but differ"):
        read_config(release("t5_mesh"), raw | {"attention_key_size": 12}, {})


def test_every_activation_is_written_and_read_by_hugging_face_bert_but_softmax():
    for name in set(ACTIVATION_NAMES) - {"softmax"}:
        assert HF_BERT.read(HF_BERT.write(config(**BERT, hidden_act=name)), "x", "bert").hidden_act == name
