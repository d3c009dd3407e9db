"""A family that is not in tfloader, written as a user would: about forty lines, with its own release."""

from __future__ import annotations

import dataclasses
import warnings

import numpy as np
import pytest

import tfloader
from tests.releases import as_list, case, relative_error
from tfloader.models import builder
from tfloader.models.bert import BERT
from tfloader.naming import RELEASES, google_bert
from tfloader.naming.base import renamed, row

# ---- what the user writes: BERT with a gain on each feed-forward's output, published under "gained/..." names


class GainedBERT(BERT):
    """Each block multiplies the feed-forward's output by a learned number."""

    def feed_forward(self, name, x, **arguments):
        return self.layer(f"{name}-Gain", Gain)(super().feed_forward(name, x, **arguments))


import keras  # noqa: E402


@keras.saving.register_keras_serializable("tests")
class Gain(keras.layers.Layer):
    def __init__(self, **arguments):
        super().__init__(**arguments)
        self.supports_masking = True  # hands the Keras mask on to the layers behind it

    def build(self, input_shape):
        self.gain = self.add_weight(name="gain", shape=(), initializer="ones")

    def call(self, x):
        return x * keras.ops.cast(self.gain, x.dtype)


RELEASE = dataclasses.replace(
    google_bert.RELEASE,
    name="gained_bert",
    title="Gained BERT",
    family="gained_bert",
    signature="gained/embeddings/word_embeddings",
    naming=dataclasses.replace(
        google_bert.NAMING,
        rows=(
            *renamed(google_bert.NAMING.rows, {"bert/": "gained/"}),
            row("Transformer-{layer}-FeedForward-Gain/gain", "gained/encoder/layer_{layer}/gain"),
        ),
    ),
)

# ---- end of what the user writes


@pytest.fixture
def registered():
    releases, families = list(RELEASES), dict(builder.FAMILIES)
    tfloader.register_family("gained_bert", GainedBERT)
    tfloader.register_release(RELEASE)
    yield
    RELEASES[:] = releases
    builder.FAMILIES.clear()
    builder.FAMILIES.update(families)


def test_a_family_of_ones_own_loads_saves_and_computes(registered, tmp_path):
    release = case("bert_google")
    with tfloader.open_checkpoint(release.path) as checkpoint:
        tensors = {name.replace("bert/", "gained/"): checkpoint.read(name) for name in checkpoint}
    tensors |= {f"gained/encoder/layer_{index}/gain": np.float32(1) for index in range(3)}
    config = f"{release.path}/bert_config.json"
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # Keras warns of a layer that destroys the mask
        model = tfloader.load(tensors, config=config, **release.options)
    for found, expected in zip(as_list(model(release.input_arrays)), release.expected, strict=True):
        assert relative_error(found, expected) <= 5e-5

    tensors["gained/encoder/layer_1/gain"] = np.float32(0.5)
    model = tfloader.load(tensors, config=config, **release.options)
    assert relative_error(as_list(model(release.input_arrays))[1], release.expected[1]) > 1e-2

    tfloader.save(model, tmp_path, format="tensorflow")
    again = tfloader.load(tmp_path, **release.options)
    for found, expected in zip(as_list(again(release.input_arrays)), as_list(model(release.input_arrays)), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_a_missing_tensor_of_the_new_family_is_refused(registered):
    with tfloader.open_checkpoint(case("bert_google").path) as checkpoint:
        tensors = {name.replace("bert/", "gained/"): checkpoint.read(name) for name in checkpoint}
    with pytest.raises(tfloader.WeightsError, match="layer_2/gain"):
        tfloader.load(tensors, config=f"{case('bert_google').path}/bert_config.json")
