"""Each release's own config file is read to our words, and written again with the same values."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

import tfloader
from tests.conftest import CHECKPOINTS, FIXTURES
from tests.naming.configs import BERT, GPT2, T5, TINY, config, release
from tests.releases import CASES, HEAD_CASES
from tfloader.config import ACTIVATION_NAMES, TransformerConfig
from tfloader.naming import find_config, read_config, read_raw_config
from tfloader.naming.bert4keras import T5_PEGASUS
from tfloader.naming.gpt2 import HF_DIALECT as HF_GPT2
from tfloader.naming.hf_bert import DIALECT as HF_BERT
from tfloader.naming.hf_t5 import DIALECT as HF_T5


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

TAGS = dict(enumerate(["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]))
NAMES = dict(enumerate(["negative", "neutral", "positive"]))
SMALL = bert(60, 16, 2, 2, 24, "gelu").replace(max_position_embeddings=20)
ONE_ALBERT = ALBERT | {"embedding_size": 6, "eos_token_id": 3, "hidden_act": "gelu_tanh"}
ENDS = ends(58) | {"pad_token_id": 59, "max_position_embeddings": 20}
# Family -> its config, and what its classifier's says of labels.
WITH_HEADS = {
    "bert": (SMALL, {"id2label": NAMES, "problem_type": "single_label_classification"}),
    "roberta": (
        SMALL.replace(family="roberta", type_vocab_size=1, pad_token_id=1, eos_token_id=2),
        {"id2label": NAMES},
    ),
    "albert": (
        SMALL.replace(**ONE_ALBERT, classifier_dropout_prob=0.2),
        {"id2label": {0: "LABEL_0"}, "problem_type": "regression"},
    ),
    "electra": (
        SMALL.replace(family="electra", embedding_size=6, hidden_act="relu", classifier_dropout_prob=0.25),
        {"id2label": {**NAMES, 3: "mixed"}, "problem_type": "multi_label_classification"},
    ),
    "roformer": (SMALL.replace(family="roformer", embedding_size=6, hidden_act="relu"), {"id2label": NAMES}),
    "nezha": (
        SMALL.replace(**NEZHA, relative_attention_max_distance=64, eos_token_id=3, classifier_dropout_prob=0.1),
        {"id2label": {0: "LABEL_0", 1: "LABEL_1"}},
    ),
    "gpt2": (
        gpt2(60, 16, 2, 2).replace(**ENDS),
        {"id2label": NAMES, "problem_type": "single_label_classification"},
    ),
    "gpt": (gpt2(60, 16, 2, 2, family="gpt").replace(**ENDS), {"id2label": NAMES}),
}
OTHER_LABELS = {"token": {"id2label": TAGS}, "qa": {}, "mc": {}}
for item in HEAD_CASES:
    name, kind = item.name.split("_")[1:]
    config_, labels = WITH_HEADS[name]
    model_type = "openai-gpt" if name == "gpt" else name
    EXPECTED[item.name] = config_.replace(
        model_type=model_type, head=item.options["head"], **(labels if kind == "cls" else OTHER_LABELS[kind])
    )


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_config_of_each_release_is_read_to_our_words(case):
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


def test_every_activation_is_written_and_read_by_hugging_face_bert_but_softmax():
    for name in set(ACTIVATION_NAMES) - {"softmax"}:
        assert HF_BERT.read(HF_BERT.write(config(**BERT, hidden_act=name)), "x", "bert").hidden_act == name


def test_reading_a_config_imports_no_framework():
    code = (
        "import sys; from tfloader.naming import RELEASES, read_config\n"
        "read_config(next(r for r in RELEASES if r.name == 'hf_bert'), sys.argv[1])\n"
        "print([name for name in ('keras', 'tensorflow', 'torch') if name in sys.modules])"
    )
    command = [sys.executable, "-c", code, str(CHECKPOINTS / "hf_bert" / "config.json")]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip() == "[]"
