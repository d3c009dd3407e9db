"""A checkpoint that was saved after keep_tokens and compound_tokens says so, and is not cut the same way again."""

from __future__ import annotations

import json

import numpy as np
import pytest

import tfloader
from tests.conftest import CHECKPOINTS
from tfloader.errors import ConfigError, ConversionError

BERT = CHECKPOINTS / "bert_google"
SIZE = 211
KEEP = [0, 100, 101, 102, *range(1, 100), *range(103, 151)]
CUTS = {
    "tokens kept in a new order": {"keep_tokens": KEEP},
    "new tokens": {"compound_tokens": [[5, 6], [7, 8]]},
    "as many tokens as before": {"keep_tokens": KEEP, "compound_tokens": [[n] for n in range(SIZE - len(KEEP))]},
}


def table(model):
    return np.asarray(model.get_layer("Embedding-Token").embeddings)


@pytest.fixture(scope="module", params=CUTS)
def cut(request):
    return CUTS[request.param], tfloader.load(BERT, num_hidden_layers=1, **CUTS[request.param])


@pytest.mark.parametrize("format", ["huggingface", "tensorflow"])
def test_a_saved_cut_is_noted_and_refused_again(cut, format, tmp_path):
    options, model = cut
    tfloader.save(model, tmp_path, format=format)
    for name in options:
        with pytest.raises(ConfigError, match=f"saved after such a cut, of {SIZE} tokens"):
            tfloader.load(tmp_path, **{name: options[name]})
    again = tfloader.load(tmp_path)
    np.testing.assert_array_equal(table(again), table(model))
    assert again.transformer.config.uncut_vocab_size == SIZE

    further = tfloader.load(tmp_path, keep_tokens=[3, 0, 9], uncut_vocab_size=None)
    np.testing.assert_array_equal(table(further), table(model)[[3, 0, 9]])


def test_the_config_of_before_the_cut_does_not_hide_it(tmp_path):
    """As in scripts for bert4keras, which name the config and the weights by themselves."""
    options = CUTS["as many tokens as before"]
    tfloader.save(tfloader.load(BERT, **options), tmp_path, format="tensorflow")
    with pytest.raises(ConfigError, match="saved after such a cut"):
        tfloader.load(tmp_path, config=BERT / "bert_config.json", **options)
    with pytest.raises(ConfigError, match="saved after such a cut"):
        tfloader.build_transformer_model(BERT / "bert_config.json", tmp_path / "bert_model.ckpt", **options)
    model = tfloader.build_transformer_model(BERT / "bert_config.json", **options)
    with pytest.raises(ConfigError, match="saved after such a cut"):
        model.transformer.load_weights_from_checkpoint(tmp_path)


def test_a_converted_cut_is_noted_and_refused_again(tmp_path):
    keep = [*range(120)]
    tfloader.convert(BERT, tmp_path / "cut", to="huggingface", keep_tokens=keep, tokenizer=False)
    assert json.loads((tmp_path / "cut" / "config.json").read_text())["tfloader"] == {"uncut_vocab_size": SIZE}
    with pytest.raises((ConfigError, ConversionError), match="saved after such a cut"):
        tfloader.convert(tmp_path / "cut", tmp_path / "again", to="tensorflow", keep_tokens=keep)
    tfloader.convert(tmp_path / "cut", tmp_path / "back", to="tensorflow")
    with pytest.raises(ConfigError, match="saved after such a cut"):
        tfloader.load(tmp_path / "back", keep_tokens=keep)


def test_special_tokens_move_with_their_rows(tmp_path):
    keep = [7, 0, 101, 102]
    config = tfloader.load(BERT, num_hidden_layers=1, keep_tokens=keep).transformer.config
    assert config.pad_token_id == keep.index(0)
    given = tfloader.load(BERT, num_hidden_layers=1, keep_tokens=keep, pad_token_id=3).transformer.config
    assert given.pad_token_id == 3  # an id of the smaller vocabulary


def test_special_tokens_that_are_not_kept_are_refused_with_the_keyword_to_give():
    with pytest.raises(ConfigError, match=r"leaves out ids that the config names: pad_token_id = 0\. Keep them, or"):
        tfloader.load(BERT, keep_tokens=[5, 6, 7])
    tfloader.load(BERT, num_hidden_layers=1, keep_tokens=[5, 6, 7], pad_token_id=None)


def test_roberta_whose_positions_begin_after_its_padding_keeps_that_in_its_place(tmp_path):
    roberta = CHECKPOINTS / "hf_roberta"
    assert tfloader.load(roberta, keep_tokens=[0, 1, 2, 9]).transformer.config.pad_token_id == 1
    for use in (tfloader.load, lambda path, **options: tfloader.convert(path, tmp_path / "out", **options)):
        with pytest.raises(ConfigError, match="keep_tokens moves pad_token_id = 1, which this family must have"):
            use(roberta, keep_tokens=[1, 0, 2, 9])
