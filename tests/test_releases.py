"""Every release: exact outputs, every variable matters, and nothing changes on the way through."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

import tfloader
from tests.releases import CASES, HEAD_CASES, as_list, case, compiled, relative_error, saved_tensors
from tfloader.checkpoints import open_checkpoint
from tfloader.errors import ConfigError, WeightsError
from tfloader.naming import RELEASES, find_config, read_raw_config
from tfloader.naming.base import counts
from tfloader.weights import fitted

# Relative to the largest magnitude; measured: at most 2e-6, and 2e-5 for T5 1.0, whose hidden values reach 57.
TOLERANCE = 5e-5


@pytest.fixture(params=CASES, ids=str, scope="module")
def loaded(request):
    """(case, model with all its heads), built once for the tests of this module."""
    return request.param, tfloader.load(request.param.path, **request.param.options)


def outputs(model, arrays):
    return as_list(model([np.asarray(array) for array in arrays]))


def test_checkpoint_is_recognised_as_its_release(loaded):
    release, model = loaded
    assert model.transformer.release.name == release.release


def test_outputs_equal_those_of_the_original_implementation(loaded):
    release, model = loaded
    for found, expected in zip(outputs(model, release.input_arrays), release.expected, strict=True):
        assert relative_error(found, expected) <= TOLERANCE


# Of the b4k fixtures only this one holds the original's: see tests/models/test_bert4keras_numbers.py for the others.
GREEDY = [item for item in CASES if "greedy" in "".join(item.arrays)]
CONTINUED = [item for item in GREEDY if item.name == "b4k_gpt2" or not item.name.startswith("b4k_")]


@pytest.mark.parametrize("release", CONTINUED, ids=str)
def test_greedy_continuations_are_identical_token_by_token(release):
    model = tfloader.load(release.path)
    if "greedy" in release.arrays:
        check_encoder_decoder(model, release)
    else:
        for prompt, expected in ((f"prompt_{i}", f"greedy_{i}") for i in range(2)):
            tokens, wanted = release.arrays[prompt], release.arrays[expected]
            while tokens.shape[1] < wanted.shape[1]:
                following = np.argmax(compiled(model)(tokens)[:, -1], axis=-1)
                tokens = np.concatenate([tokens, following[:, None].astype("int32")], axis=1)
            np.testing.assert_array_equal(tokens, wanted)


def check_encoder_decoder(model, release):
    wanted = release.arrays["greedy"]
    tokens = np.zeros((len(wanted), 1), "int32")
    context = model.transformer.encoder(release.arrays["input_ids"])
    del context  # the joint model is what is checked: it hides the padding of the source
    while tokens.shape[1] < wanted.shape[1]:
        following = np.argmax(compiled(model)(release.arrays["input_ids"], tokens)[:, -1], axis=-1)
        tokens = np.concatenate([tokens, following[:, None].astype("int32")], axis=1)
    ended = np.cumsum(wanted == 1, axis=1) - (wanted == 1) > 0  # what follows the end token is padding
    np.testing.assert_array_equal(np.where(ended, 0, tokens), wanted)


def test_each_variable_changes_the_outputs_when_swapped_or_transposed(loaded):
    """The mutations that a wrong row in a naming table would be: shapes alone cannot see them."""
    import tensorflow as tf

    release, model = loaded
    transformer = model.transformer
    forward = tf.function(lambda arrays: as_list(model(arrays)))
    inputs = [tf.constant(array) for array in release.input_arrays]
    rows = transformer.release.naming.expand(counts(transformer.config))
    paths = [path for row in rows for path in row.ours if transformer.variable(path) is not None]
    unseen = []
    for path in paths:
        # A constant added to all scores of a query: softmax takes it out, so no output can see it.
        if path.endswith("/key/bias"):
            continue
        variable = transformer.variable(path)
        original = variable.numpy()
        for mutation, mutant in mutants(transformer, path, paths, original):
            variable.assign(mutant)
            found = forward(inputs)
            errors = [relative_error(a, b) for a, b in zip(found, release.expected, strict=True)]
            if max(errors) <= TOLERANCE:
                unseen.append(f"{path}: {mutation}")
            variable.assign(original)
    assert not unseen


def mutants(transformer, path, paths, original):
    if original.ndim == 2 and original.shape[0] == original.shape[1]:
        yield "transposed", original.T
    alike = [other for other in paths if other != path and transformer.variable(other).shape == original.shape]
    if alike:
        other = alike[(paths.index(path)) % len(alike)]
        yield f"replaced by {other}", transformer.variable(other).numpy()
    else:
        yield "reversed", np.flip(original).copy() if original.size > 1 else -original


def test_each_row_left_out_of_the_table_makes_the_load_fail(loaded):
    release, model = loaded
    transformer = model.transformer
    checkpoint = open_checkpoint(release.path)
    naming = transformer.release.naming
    fitted(transformer, checkpoint, transformer.release).refuse(checkpoint)
    built = [row for row in naming.rows if all(_exists(transformer, row))]
    assert built
    for row in built:
        rest = tuple(item for item in naming.rows if item is not row)
        without = dataclasses.replace(transformer.release, naming=dataclasses.replace(naming, rows=rest))
        with pytest.raises(WeightsError, match="without a source"):
            fitted(transformer, checkpoint, without).refuse(checkpoint)


def _exists(transformer, row):
    first = next(row.expand(counts(transformer.config)))
    return [transformer.variable(path) is not None for path in first.ours]


def test_key_biases_come_from_tensors_named_so(loaded):
    """The one kind of variable that no output can see must be right by its name."""
    _, model = loaded
    rows = model.transformer.release.naming.rows
    for row in rows:
        if len(row.ours) == 1 and row.ours[0].endswith("/key/bias"):
            assert "key" in row.theirs and "bias" in row.theirs
        if len(row.ours) == 3:
            assert [path.split("/")[1] for path in row.ours] == ["query", "key", "value"]


# ---- round trips


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_a_saved_checkpoint_has_the_same_tensors_byte_for_byte(loaded, dtype, tmp_path):
    """save(load(f)) == f in the release's own format, from files of each dtype."""
    release, model = loaded
    own = model.transformer.release
    if own.writes is None:
        pytest.skip(f"{own.title} is only read")
    source = open_checkpoint(release.path)
    tensors = {name: source.read(name).astype(_numpy(dtype)) for name in source if source[name].dtype == "float32"}
    config = config_of(release)
    first = tfloader.load(tensors, config=config, dtype=dtype, **release.options)
    tfloader.save(first, tmp_path, format=own.writes)
    written = open_checkpoint(tmp_path)
    kept = {own.naming.canonical(name): array for name, array in tensors.items() if not own.naming.is_ignorable(name)}
    found = {own.naming.canonical(name): written.read(name) for name in written}
    repeated = {copy.theirs for copy in (*own.naming.duplicates, *own.naming.constants)}
    assert set(found) - repeated == set(kept) - repeated
    for name, array in found.items():
        if name in kept:
            assert array.dtype == kept[name].dtype and array.tobytes() == kept[name].tobytes(), name
    again = tfloader.load(tmp_path, dtype=dtype, **release.options)
    for name, array in saved_tensors(first.transformer, own).items():
        assert array.tobytes() == tensors_once(again, own)[name].tobytes(), name


def _numpy(dtype):
    import ml_dtypes

    return ml_dtypes.bfloat16 if dtype == "bfloat16" else np.dtype(dtype)


def tensors_once(model, release):
    if not hasattr(model, "_tensors"):
        model._tensors = saved_tensors(model.transformer, release)
    return model._tensors


def config_of(release):
    """The config file's content as a dictionary, with what the release's loader takes from the tensors."""
    known = next(item for item in RELEASES if item.name == release.release)
    return read_raw_config(find_config(release.path, known))


# Nobody published these in the other format, or it has no place for what they compute.
ONE_FORMAT = {
    ("hf_roberta", "tensorflow"),
    ("b4k_gpt", "huggingface"),
    ("b4k_gpt_segtable", "huggingface"),
    ("b4k_t5_pegasus", "huggingface"),
    *((item.name, "tensorflow") for item in HEAD_CASES),
}


@pytest.mark.parametrize("format", ["huggingface", "tensorflow"])
def test_each_release_survives_both_formats_unchanged(loaded, format, tmp_path):
    """load(save(m)) == m, whichever release it came from and whichever format it goes to."""
    release, model = loaded
    if (release.name, format) in ONE_FORMAT:
        with pytest.raises(ConfigError, match="cannot"):
            tfloader.save(model, tmp_path, format=format)
        return
    tfloader.save(model, tmp_path, format=format)
    again = tfloader.load(tmp_path, **release.options)
    assert again.transformer.config.replace(model_type=None) == _as_saved(model, again)
    own = again.transformer.release
    before, after = saved_tensors(model.transformer, own), saved_tensors(again.transformer, own)
    assert before.keys() == after.keys()
    for name in before:
        assert before[name].tobytes() == after[name].tobytes(), name
    for found, expected in zip(outputs(again, release.input_arrays), release.expected, strict=True):
        assert relative_error(found, expected) <= TOLERANCE


def _as_saved(model, again):
    """The first config, with the training settings and special ids that a format may have no place for."""
    from tfloader.config import NOT_MATHEMATICS

    config = again.transformer.config
    return model.transformer.config.replace(
        **{name: getattr(config, name) for name in NOT_MATHEMATICS if name != "model_type"}, model_type=None
    )


def test_stored_copies_of_tied_weights_must_be_equal():
    hf = case("hf_bert")
    checkpoint = open_checkpoint(hf.path)
    tensors = {name: checkpoint.read(name) for name in checkpoint}
    tensors["cls.predictions.decoder.weight"] = tensors["bert.embeddings.word_embeddings.weight"].copy()
    tfloader.load(tensors, config=config_of(hf))
    tensors["cls.predictions.decoder.weight"][3, 4] += 1
    with pytest.raises(WeightsError, match="should repeat"):
        tfloader.load(tensors, config=config_of(hf))
