"""A tagger's export gives the tags of the best path, whatever program runs it."""

from __future__ import annotations

import keras
import numpy as np
import pytest

import tfloader
from tests.conftest import CHECKPOINTS
from tfloader.exporting import export
from tfloader.exporting.formats import FORMATS

IDS = np.array([[2, 5, 6, 7, 9, 3], [2, 9, 8, 3, 0, 0]], "int32")


@pytest.mark.parametrize("to", FORMATS)
@pytest.mark.parametrize("kind", [tfloader.ConditionalRandomField, tfloader.MaximumEntropyMarkovModel])
def test_an_exported_decoder_gives_the_tags_of_decode(kind, to, tmp_path):
    if list(FORMATS[to].missing()):
        pytest.skip(f"the extra `{FORMATS[to].extra}` is not installed")
    encoder = tfloader.load(CHECKPOINTS / "hf_bert", num_hidden_layers=1)
    layer = kind(name="tagger")
    tagger = keras.Model(encoder.inputs, layer(keras.layers.Dense(3)(encoder.output)))
    layer.set_weights([np.random.default_rng(0).normal(size=(3, 3)) * 2])
    export(keras.Model(tagger.inputs, layer.decode(tagger.output)), tmp_path / "out", to=to, verify=False)
    run = FORMATS[to].open(str(tmp_path / "out"), "serving_default")
    for ids in (IDS, IDS[:1, :1], np.concatenate([IDS, IDS[:, 1:]], axis=1)):
        expected = layer.decode(tagger.predict_on_batch([ids, ids * 0]))
        np.testing.assert_array_equal(run(input_ids=ids, token_type_ids=ids * 0)["tagger_tags"], expected)
