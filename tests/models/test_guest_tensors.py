"""Families from outside: their own heads, variables and sublayers are judged as ours are, by every command."""

from __future__ import annotations

import dataclasses
import json

import keras
import numpy as np
import pytest

import tfloader
from tests.conftest import CHECKPOINTS
from tests.releases import case
from tfloader.checkpoints import write_tensorflow
from tfloader.inspection import info, verify
from tfloader.models import builder
from tfloader.models.bert import BERT
from tfloader.models.heads import Head
from tfloader.naming import RELEASES, google_bert, read_raw_config
from tfloader.naming.base import renamed, row

FIXTURE = str(CHECKPOINTS / "bert_google")
CONFIG = read_raw_config(f"{FIXTURE}/bert_config.json")
WIDTH = CONFIG["hidden_size"]


@keras.saving.register_keras_serializable("tests")
class Adapter(keras.layers.Layer):
    """A dense layer under any attribute, beside the identity."""

    def __init__(self, attribute, initializer="zeros", **options):
        super().__init__(**options)
        self.attribute, self.initializer = attribute, initializer
        self.supports_masking = True

    def build(self, shape):
        dense = keras.layers.Dense(shape[-1], kernel_initializer=self.initializer, name=self.attribute)
        dense.build(shape)
        setattr(self, self.attribute, dense)

    def call(self, x):
        return x + getattr(self, self.attribute)(x)

    def get_config(self):
        return {**super().get_config(), "attribute": self.attribute, "initializer": self.initializer}


class Undeclared(BERT):
    def __init__(self, config, *, with_tagger=False, **options):
        super().__init__(config, **options)
        self.with_tagger = with_tagger

    def head(self, x):
        return self.dense("Tagger-Dense", 5)(x) if self.with_tagger else super().head(x)


class Tagger(Undeclared):
    heads = (*BERT.heads, Head("tagger", "with_tagger", True, False))


class Adapted(BERT):
    def feed_forward(self, name, x, **arguments):
        adapter = self.layer(f"{name}-Adapter", Adapter, attribute="hidden_dense", initializer=self.initializer)
        return adapter(super().feed_forward(name, x, **arguments))


def release_of(*rows):
    rows = (*renamed(google_bert.NAMING.rows, {"bert/": "guest/", "cls/": None, "bert/pooler/": None}), *rows)
    return dataclasses.replace(
        google_bert.RELEASE,
        name="guest",
        title="Guest",
        family="guest",
        signature="guest/embeddings/word_embeddings",
        lacks=(),
        naming=dataclasses.replace(google_bert.NAMING, rows=rows),
    )


HEAD = tuple(row(f"Tagger-Dense/{name}", f"guest/tagger/{name}", part="tagger") for name in ("kernel", "bias"))
ADAPTERS = tuple(
    row(f"Transformer-{{layer}}-FeedForward-Adapter/hidden_dense/{name}", f"guest/adapter_{{layer}}/{name}")
    for name in ("kernel", "bias")
)


@pytest.fixture
def register():
    releases, families = list(RELEASES), dict(builder.FAMILIES)

    def add(family, *rows):
        tfloader.register_family("guest", family)
        tfloader.register_release(release_of(*rows))

    yield add
    RELEASES[:] = releases
    builder.FAMILIES.clear()
    builder.FAMILIES.update(families)


def tensors_of(**more):
    with tfloader.open_checkpoint(FIXTURE) as checkpoint:
        own = {
            name.replace("bert/", "guest/"): checkpoint.read(name)
            for name in checkpoint
            if name.startswith("bert/") and "/pooler/" not in name and not google_bert.NAMING.is_ignorable(name)
        }
    return own | more


def random(*shape):
    return np.random.default_rng(len(shape)).normal(size=shape).astype("float32")


def tagged():
    return tensors_of(**{"guest/tagger/kernel": random(WIDTH, 5), "guest/tagger/bias": random(5)})


def statuses(path):
    return {check.name: check for check in verify(path)}


# ---- an optional head


@pytest.fixture
def tagger(register, tmp_path):
    register(Tagger, *HEAD)
    tfloader.save(tfloader.load(tagged(), config=CONFIG, with_tagger=True), tmp_path / "tagger", format="tensorflow")
    return tmp_path / "tagger"


def test_a_head_of_one_s_own_is_found_verified_and_converted(tagger, tmp_path):
    assert info(tagger)["parts"] == ["segments", "tagger"]
    checks = statuses(tagger)
    assert all(check.status in ("ok", "skipped") for check in checks.values())
    assert "with segments, tagger, each" in checks["model"].detail
    arrays = case("bert_google").input_arrays[:2]
    expected = np.asarray(tfloader.load(tagger, with_tagger=True)(arrays))
    assert expected.shape[-1] == 5
    tfloader.convert(tagger, tmp_path / "tf", to="tensorflow")
    np.testing.assert_array_equal(np.asarray(tfloader.load(tmp_path / "tf", with_tagger=True)(arrays)), expected)
    tfloader.convert(tagger, tmp_path / "keras", to="keras")
    archive = keras.saving.load_model(tmp_path / "keras/model.keras", compile=False)
    np.testing.assert_array_equal(np.asarray(archive(arrays)), expected)


def test_without_its_option_the_head_may_stay_unread(tagger):
    assert not [item for item in tfloader.load(tagger).weights if "Tagger" in item.path]


def test_a_part_that_no_head_declares_is_refused_by_all_and_not_said_to_be_made(tagger, register, tmp_path):
    register(Undeclared, *HEAD)
    words = r"guest/tagger/kernel \(48, 5\) has no use: it is of the part 'tagger', which the family does not declare"
    with pytest.raises(tfloader.WeightsError, match=words):
        tfloader.load(tagger)
    checks = statuses(tagger)
    assert checks["model"].status == "FAILED" and "the part 'tagger'" in checks["model"].detail
    for to in ("tensorflow", "keras"):
        with pytest.raises(tfloader.ConversionError, match=words):
            tfloader.convert(tagger, tmp_path / to, to=to, verify=False)
        assert not (tmp_path / to).exists()


# ---- variables of its own


def adapted(width=WIDTH):
    kernels = {f"guest/adapter_{i}/kernel": random(width, width) for i in range(3)}
    return tensors_of(**kernels, **{f"guest/adapter_{i}/bias": random(WIDTH) for i in range(3)})


def write(folder, tensors):
    folder.mkdir()
    specs = tfloader.open_checkpoint(tensors)
    items = [(name, spec, lambda name=name: tensors[name]) for name, spec in specs.items()]
    write_tensorflow(str(folder / "guest_model.ckpt"), items)
    (folder / "bert_config.json").write_text(json.dumps(CONFIG))
    return folder


def test_variables_of_one_s_own_are_verified_and_converted(register, tmp_path):
    register(Adapted, *ADAPTERS)
    source = write(tmp_path / "source", adapted())
    assert all(check.status in ("ok", "skipped") for check in verify(source))
    tfloader.convert(source, tmp_path / "out", to="tensorflow")
    variable = "Transformer-1-FeedForward-Adapter/hidden_dense/kernel"
    found = tfloader.load(tmp_path / "out").transformer.variable(variable)
    np.testing.assert_array_equal(np.asarray(found), adapted()["guest/adapter_1/kernel"])


def test_a_wrong_shape_of_one_s_own_variable_is_refused_by_all(register, tmp_path):
    register(Adapted, *ADAPTERS)
    source = write(tmp_path / "source", adapted(WIDTH - 1))
    words = rf"adapter_0/kernel has shape \({WIDTH - 1}, {WIDTH - 1}\), the config means \({WIDTH}, {WIDTH}\)"
    with pytest.raises(tfloader.WeightsError, match=words):
        tfloader.load(source)
    assert statuses(source)["model"].status == "FAILED"
    with pytest.raises(tfloader.ConversionError, match=words):
        tfloader.convert(source, tmp_path / "out", to="tensorflow", verify=False)


# ---- no exemption by name


@pytest.mark.parametrize("attribute", ["adapter_dense", "hidden_dense", "gamma_dense", "beta_dense", "scale_dense"])
def test_a_sublayer_that_no_row_fills_is_refused_whatever_its_name(attribute):
    class Named(BERT):
        def feed_forward(self, name, x, **arguments):
            adapter = self.layer(f"{name}-Adapter", Adapter, attribute=attribute, initializer=self.initializer)
            return adapter(super().feed_forward(name, x, **arguments))

    with pytest.raises(tfloader.WeightsError, match=f"{attribute}/kernel is not in the table of Google BERT"):
        tfloader.load(FIXTURE, model=Named)
    condition = keras.Input((3,))
    with pytest.raises(tfloader.WeightsError, match=f"{attribute}/kernel is not in the table of Google BERT"):
        tfloader.load(FIXTURE, model=Named, layer_norm_cond=condition, additional_input_layers=condition)


def test_conditional_norms_start_as_the_checkpoint_s():
    condition = keras.Input((3,))
    options = {"layer_norm_cond": condition, "layer_norm_cond_hidden_size": 4, "additional_input_layers": condition}
    model = tfloader.load(FIXTURE, **options)
    arrays = case("bert_google").input_arrays[:2]
    found = model([*arrays, random(len(arrays[0]), 3)])
    np.testing.assert_allclose(found, tfloader.load(FIXTURE)(arrays), atol=1e-5)
