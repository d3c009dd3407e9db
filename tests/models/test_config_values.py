"""Config values come from the file or from keywords: what it lacks, misspells or says wrongly, a keyword says."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

import tfloader
from tests.conftest import CHECKPOINTS
from tfloader.errors import ConfigError

BERT, HF_BERT = CHECKPOINTS / "bert_google", CHECKPOINTS / "hf_bert"
CONFIG = json.loads((BERT / "bert_config.json").read_text())
WHOLE = {
    **{name: CONFIG[name] for name in ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads")},
    **{"intermediate_size": CONFIG["intermediate_size"], "hidden_act": "gelu_tanh", "segment_vocab_size": 2},
    "max_position": CONFIG["max_position_embeddings"],
}


def same(a, b):
    return a.transformer.config == b.transformer.config and all(
        np.array_equal(*pair) for pair in zip(a.get_weights(), b.get_weights(), strict=True)
    )


@pytest.fixture(scope="module")
def bert():
    return tfloader.load(BERT)


@pytest.mark.parametrize(
    ("said", "keyword"),
    [
        *(({name: None}, {name: WHOLE[name]}) for name in WHOLE if name in CONFIG),
        ({"hidden_act": "gelu_python"}, {"hidden_act": "gelu_tanh"}),
        ({"num_attention_heads": 7}, {"num_attention_heads": CONFIG["num_attention_heads"]}),
        ({"vocab_size": "many"}, {"vocab_size": CONFIG["vocab_size"]}),
        ({"max_position": 9}, {"max_position_embeddings": CONFIG["max_position_embeddings"]}),
    ],
    ids=str,
)
def test_a_keyword_says_what_the_file_lacks_or_says_wrongly(said, keyword, bert):
    config = {name: value for name, value in (CONFIG | said).items() if value is not None}
    with pytest.raises(ConfigError):
        tfloader.load(BERT, config=config)
    assert same(tfloader.load(BERT, config=config, **keyword), bert)


def test_a_missing_position_count_of_hugging_face_is_given():
    config = json.loads((HF_BERT / "config.json").read_text())
    positions = config.pop("max_position_embeddings")
    with pytest.raises(ConfigError, match=r"'max_position_embeddings' is missing \(or give max_position_embeddings="):
        tfloader.load(HF_BERT, config=config)
    assert same(tfloader.load(HF_BERT, config=config, max_position_embeddings=positions), tfloader.load(HF_BERT))


def test_fewer_layers_by_keyword_are_fewer_also_where_the_file_does_not_say_how_many(bert):
    config = {name: value for name, value in CONFIG.items() if name != "num_hidden_layers"}
    assert tfloader.load(BERT, num_hidden_layers=1).transformer.config.num_hidden_layers == 1
    with pytest.raises(tfloader.WeightsError, match=r"layer_1.*has no use"):  # a mistake, as far as anyone can know
        tfloader.load(BERT, config=config, num_hidden_layers=1)


def test_a_whole_config_is_keywords_as_in_bert4keras(bert, tmp_path):
    """With a checkpoint that has no config beside it, and without one."""
    for file in BERT.glob("bert_model.ckpt*"):
        shutil.copy(file, tmp_path)
    assert same(tfloader.build_transformer_model(None, tmp_path / "bert_model.ckpt", **WHOLE), bert)
    built = tfloader.build_transformer_model(**WHOLE)
    assert built.transformer.config == bert.transformer.config
    with pytest.raises(ConfigError, match=r"hidden_act.*is missing"):
        tfloader.build_transformer_model(**{name: value for name, value in WHOLE.items() if name != "hidden_act"})


def test_a_whole_file_as_keywords_means_what_the_file_does(bert):
    """Its words, of which Google's "gelu" is not ours, and its keys that change nothing."""
    chinese = CONFIG | {"directionality": "bidi", "pooler_fc_size": 768, "pooler_type": "first_token_transform"}
    assert CONFIG["hidden_act"] == "gelu" and bert.transformer.config.hidden_act == "gelu_tanh"
    assert same(tfloader.build_transformer_model(None, BERT / "bert_model.ckpt", **chinese), bert)
    assert tfloader.build_transformer_model(**chinese).transformer.config == bert.transformer.config
    shorter = tfloader.build_transformer_model(None, BERT / "bert_model.ckpt", **chinese | {"num_hidden_layers": 1})
    assert same(shorter, tfloader.load(BERT, num_hidden_layers=1))
    hf = json.loads((HF_BERT / "config.json").read_text())
    assert same(tfloader.load(HF_BERT, **hf), tfloader.load(HF_BERT))
    for wrong, told in (
        ({"with_mlmm": True}, r"no such option:\n  - 'with_mlmm'; did you mean 'with_mlm'"),
        ({"position_embedding_type": "relative_key"}, "position_embedding_type = 'relative_key' is not implemented"),
        ({"vocab_size": hf["vocab_size"] - 1}, "word_embeddings.weight has shape"),
    ):
        with pytest.raises(tfloader.TfloaderError, match=told):
            tfloader.load(HF_BERT, **hf | wrong)
    with pytest.raises(ConfigError, match="no such option:\n  - 'pooler_type'"):
        tfloader.load(BERT, pooler_type="first_token_transform")


def test_more_inputs_than_positions_are_refused():
    positions = CONFIG["max_position_embeddings"]
    with pytest.raises(ConfigError, match=f"sequence_length={positions + 1}.*{positions} positions.*hierarchical"):
        tfloader.load(BERT, sequence_length=positions + 1)
    for options in ({"hierarchical_position": True}, {"custom_position_ids": True}):
        model = tfloader.load(BERT, sequence_length=positions + 1, **options)
        assert model.input_shape[0] == (None, positions + 1)
    assert tfloader.load(BERT, sequence_length=positions).input_shape[0] == (None, positions)
