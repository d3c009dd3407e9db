"""Second copies of kernels change no output, and never outlive the weights that they were made of."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfloader
from tests.conftest import CHECKPOINTS
from tfloader import layers as tfl
from tfloader.generation import kernels
from tfloader.generation.kernels import KernelCopies, is_other

PROMPTS = [[5, 9, 2, 7], [11, 3, 8, 6]]


def generated(generator, rows=1):
    return generator.generate_ids(PROMPTS[:rows], max_new_tokens=9, eos_token_id=None, return_scores=True)


@functools.lru_cache(maxsize=1)
def of_one_layer(folder, dtype):
    """A model, and its generator without copies."""
    decoder = {"num_decoder_layers": 1} if "t5" in folder else {}
    model = tfloader.load(CHECKPOINTS / folder, dtype=dtype, num_hidden_layers=1, **decoder)
    return model, tfloader.TextGenerator(model, spare_memory=0)


@pytest.mark.slow
@pytest.mark.parametrize("rows", [1, 2])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "mixed_bfloat16"])
@pytest.mark.parametrize("folder", ["hf_gpt2", "hf_t5_v10", "hf_t5_v11", "gpt2_ml"])
def test_steps_with_copies_give_what_they_give_without(folder, dtype, rows):
    model, without = of_one_layer(folder, dtype)
    beside = tfloader.TextGenerator(model)
    expected, found = generated(without, rows), generated(beside, rows)
    transposed = rows == 1 and dtype != "float32"
    assert not any(copies.made for copies in without.decoder._copies.values())
    assert not beside.decoder._copies[not transposed].made
    blocks = model.transformer.config.num_hidden_layers
    assert len(beside.decoder._copies[transposed].made) >= blocks * (4 if transposed else 1)
    assert found.sequences == expected.sequences
    for row, expected_row in zip(found.token_scores, expected.token_scores, strict=True):
        np.testing.assert_allclose(row, expected_row, atol=1e-5 if dtype == "float32" else 5e-2)


def dense(size=6, units=4, dtype="float32", **arguments):
    layer = keras.layers.Dense(units, bias_initializer="random_normal", dtype=dtype, **arguments)
    layer.build((None, size))
    return layer


@pytest.mark.parametrize(("dtype", "count"), [("float32", 3), ("bfloat16", 1), ("bfloat16", 3)])
@pytest.mark.parametrize("use_bias", [True, False])
def test_a_copy_gives_what_the_layers_give_side_by_side(dtype, count, use_bias):
    layers = [dense(dtype=dtype, use_bias=use_bias) for _ in range(count)]
    found = made_of([layers], dtype).of(*layers).product(x := tf.cast(tf.random.normal((5, 6), seed=1), dtype))
    expected = tf.concat([layer(x) for layer in layers], axis=-1)
    np.testing.assert_allclose(
        *(tf.cast(part, tf.float32) for part in (found, expected)), atol=1e-6 if dtype == "float32" else 2e-2
    )


def made_of(groups, dtype="float32"):
    made = KernelCopies([], dtype, 1, transposed=dtype == "bfloat16")
    for layers in groups:
        made.note(*layers)
    made.refresh()
    return made


def by_training(layer):
    model = keras.Sequential([layer])
    model.compile(keras.optimizers.SGD(1.0), "mse")
    model.fit(np.ones((4, 6)), np.full((4, 4), 9.0), verbose=0)


@tf.function
def in_a_graph(variable):
    variable.assign_add(tf.ones_like(variable))


CHANGES = {
    "assign": lambda layer: layer.kernel.assign(layer.kernel + 1),
    "assign in a graph": lambda layer: in_a_graph(layer.kernel.value),
    "assign_sub": lambda layer: layer.kernel.value.assign_sub(tf.ones_like(layer.kernel.value)),
    "rows": lambda layer: layer.kernel.value.scatter_update(
        tf.IndexedSlices(tf.fill((1, 4), tf.cast(9, "bfloat16")), [3])
    ),
    "a slice": lambda layer: layer.kernel.value[2:3].assign(tf.fill((1, 4), tf.cast(9, "bfloat16"))),
    "set_weights": lambda layer: layer.set_weights([weight * 2 for weight in layer.get_weights()]),
    "the bias alone": lambda layer: layer.bias.assign(layer.bias + 1),
    "training": by_training,
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_copy_follows_every_way_to_change_a_weight(change):
    layer = dense(dtype="bfloat16")
    made = made_of([[layer]], "bfloat16")
    x = tf.ones((2, 6), tf.bfloat16)
    before = made.of(layer).product(x)
    change(layer)
    made.refresh()
    after = made.of(layer).product(x)
    assert not np.array_equal(before, after)
    np.testing.assert_allclose(tf.cast(after, tf.float32), tf.cast(layer(x), tf.float32), rtol=2e-2, atol=2e-2)


def test_a_copy_is_made_again_only_where_its_weights_changed(monkeypatch):
    layers = dense(), dense(), dense()
    made = made_of([layers])
    copy = made.of(*layers)
    again = []
    monkeypatch.setattr(kernels.KernelCopy, "_parts", lambda self, values: again.append(self) or [])
    monkeypatch.setattr(copy, "variables", [])
    made.refresh()
    assert not again
    layers[1].bias.assign(np.ones(4))
    made.refresh()
    made.refresh()
    assert again == [copy]


def test_a_renewal_that_was_interrupted_is_done_by_the_next(monkeypatch):
    layer = dense()
    made = made_of([[layer, dense()]])
    (copy,) = made.made.values()
    layer.kernel.assign(np.ones((6, 4)))

    def interrupted(self, values):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(kernels.KernelCopy, "_parts", interrupted)
        made.refresh()
    made.refresh()
    x = tf.random.normal((2, 6))
    np.testing.assert_allclose(copy.product(x)[:, :4], layer(x), atol=1e-5)


def test_two_tensors_are_one_where_they_share_their_place():
    value = tf.random.normal((3, 4))
    assert not is_other(value, tf.identity(value))
    assert is_other(value, value + 0)


def test_the_same_generator_sees_weights_change_between_calls():
    model = tfloader.load(CHECKPOINTS / "hf_gpt2", dtype="bfloat16")
    generator = tfloader.TextGenerator(model)
    before = generated(generator)
    attention = model.get_layer("Transformer-0-MultiHeadSelfAttention")
    attention.query.kernel.assign(attention.query.kernel * 3)
    model.get_layer("Transformer-1-FeedForward").output_dense.kernel.assign_add(
        tf.ones_like(model.get_layer("Transformer-1-FeedForward").output_dense.kernel.value)
    )
    after, fresh = generated(generator), generated(tfloader.TextGenerator(model))
    assert after.sequences == fresh.sequences
    np.testing.assert_array_equal(after.scores, fresh.scores)
    assert not np.array_equal(after.scores, before.scores)


def test_layers_without_a_kernel_of_their_own_get_no_copy():
    """With LoRA the kernel is a sum made at each use; a quantised one is no number to multiply by."""
    plain, lora, quantised = dense(dtype="bfloat16"), dense(dtype="bfloat16"), dense(dtype="bfloat16")
    lora.enable_lora(2)
    quantised.quantize("int8")
    made = made_of([[plain], [lora], [quantised], [plain, lora]], "bfloat16")
    assert made.of(plain)
    assert made.of(lora) is made.of(quantised) is made.of(plain, lora) is None


def test_a_model_larger_than_the_spare_memory_gets_no_copies():
    kernel = dense(dtype="bfloat16").kernel
    assert KernelCopies([kernel], "bfloat16", 48).wanted
    assert not KernelCopies([kernel], "bfloat16", 47).wanted


def test_only_small_kernels_are_put_side_by_side(monkeypatch):
    monkeypatch.setattr(kernels, "SMALL_KERNEL", 6 * 4 * 4)
    large, small = [dense(), dense()], [dense(units=3), dense(units=3)]
    made = made_of([large, small, alone := [dense(units=3)]])
    assert [made.of(*layers) is None for layers in (large, small, alone)] == [True, False, True]


def test_what_is_read_side_by_side_is_not_copied_alone():
    layers = dense(dtype="bfloat16"), dense(dtype="bfloat16"), dense(dtype="bfloat16")
    made = made_of([layers[:1], layers[:2], layers[2:]], "bfloat16")
    assert made.of(*layers[:2])
    assert made.of(layers[2])
    assert made.of(layers[0]) is None


def test_a_tied_table_gets_a_copy_with_a_bias_of_zeros():
    table = tfl.TokenEmbedding(9, 6, dtype="bfloat16")
    table.build(None)
    copy = made_of([[table]], "bfloat16").of(table)
    x = tf.cast(tf.random.normal((1, 6), seed=1), tf.bfloat16)
    np.testing.assert_array_equal(copy.variables[1], np.zeros(9))
    np.testing.assert_allclose(*(tf.cast(y, tf.float32) for y in (copy.product(x), table(x, reverse=True))), atol=2e-3)


def test_only_what_a_step_reads_is_copied():
    """Of T5 neither the encoder nor the keys and values of the source."""
    model = tfloader.load(CHECKPOINTS / "hf_t5_v11", dtype="bfloat16")
    generator = tfloader.TextGenerator(model)
    generated(generator)
    copied = {id(layer) for copy in generator.decoder._copies[True].made.values() for layer in copy.layers}
    layers = model.transformer.layers
    attentions = {name: layer for name, layer in layers.items() if isinstance(layer, tfl.MultiHeadAttention)}
    assert any("Cross" in name for name in attentions)
    for name, layer in attentions.items():
        found = [id(part) in copied for part in (layer.query, layer.key, layer.value, layer.output_dense)]
        reads, remembers = not name.startswith("Encoder"), "Cross" in name
        assert found == [reads, reads and not remembers, reads and not remembers, reads]


def test_one_row_and_many_rows_are_the_two_buckets_of_bfloat16():
    generator = tfloader.TextGenerator(tfloader.load(CHECKPOINTS / "hf_gpt2", dtype="bfloat16"))
    traces = []
    for prompts in ([[5]], [[5, 6, 7]], [[5], [6]], [[5], [6, 7], [8]], [[9]]):
        generator.generate_ids(prompts, max_new_tokens=3, eos_token_id=None)
        traces.append(generator.decoder.traces)
    assert traces == [2, 2, 3, 3, 3]
