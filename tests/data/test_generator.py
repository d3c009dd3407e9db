"""DataGenerator: every item once an epoch in a reproducible order, however Keras is fed with it."""

from __future__ import annotations

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfloader import DataError, DataGenerator, sequence_padding

LENGTHS = [3, 3, 3, 3, 5, 2, 7, 1, 4, 4, 6]
ITEMS = list(enumerate(LENGTHS))  # (number, length)


def ids_of(number, length):
    return [number + 1] * length


class Collating(DataGenerator):
    """Batches of ids [batch, length] and labels [batch, 1]."""

    def collate(self, items):
        return [sequence_padding([ids_of(*item) for item in items])], np.array([[item[0]] for item in items])


class Iterating(DataGenerator):
    """The same as a user of bert4keras writes it."""

    def __iter__(self, random=False):
        batch_ids, batch_labels = [], []
        for is_end, item in self.sample(random):
            batch_ids.append(ids_of(*item))
            batch_labels.append([item[0]])
            if len(batch_ids) == self.batch_size or is_end:
                yield [sequence_padding(batch_ids)], np.array(batch_labels)
                batch_ids, batch_labels = [], []


class Stream:
    """Items that can be passed by again and again, but not counted."""

    def __iter__(self):
        return iter(ITEMS)


def numbers(batches):
    return [batch[1][:, 0].tolist() for batch in batches]


def flat(batches):
    return list(itertools.chain.from_iterable(numbers(batches)))


both = pytest.mark.parametrize("kind", [Collating, Iterating])


# Passes


@both
@pytest.mark.parametrize("data", [ITEMS, Stream()], ids=["list", "stream"])
def test_a_pass_has_the_order_of_the_data(kind, data):
    batches = numbers(kind(data, 4, length_of=lambda item: item[1]))
    assert batches == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10]]


@both
@pytest.mark.parametrize("data", [ITEMS, Stream()], ids=["list", "stream"])
@pytest.mark.parametrize("length_of", [None, lambda item: item[1]], ids=["any", "bucketed"])
def test_random_passes_have_every_item_once_in_new_orders_that_the_seed_decides(kind, data, length_of):
    def passes(seed):
        generator = kind(data, 4, length_of=length_of, seed=seed)
        return [flat(generator.__iter__(random=True)) for _ in range(4)]

    first = passes(1)
    assert all(sorted(order) == list(range(11)) for order in first)
    assert len(set(map(tuple, first))) == 4
    assert passes(1) == first
    assert passes(2) != first


@both
def test_batches_by_number_are_those_of_the_pass(kind):
    data = kind(ITEMS, 4)
    assert numbers(data[i] for i in range(len(data))) == numbers(data)
    np.testing.assert_array_equal(data[1][0][0], sequence_padding([ids_of(*item) for item in ITEMS[4:8]]))
    with pytest.raises(IndexError):
        data[3]


def test_a_random_epoch_by_number_is_the_random_pass():
    data = Collating(ITEMS, 4, seed=3)
    data.epoch = 5
    assert numbers(data.batch(i, epoch=5) for i in range(3)) == numbers(data.__iter__(random=True))


def test_the_last_item_of_a_sample_is_marked():
    assert [end for end, _ in Collating(ITEMS).sample()] == [False] * 10 + [True]
    assert list(Collating(iter(())).sample()) == []


# Batches of like lengths


def padding(batches):
    return sum(ids.size - (ids > 0).sum() for (ids,), _ in batches)


@pytest.mark.parametrize("is_stream", [False, True])
def test_batches_of_like_lengths_need_little_padding_and_come_in_random_order(is_stream):
    lengths = np.random.default_rng(0).integers(1, 100, 1003).tolist()
    items = list(enumerate(lengths))
    data = iter(items) if is_stream else items
    mixed = list(Collating(items, 10).__iter__(random=True))
    alike = list(Collating(data, 10, length_of=lambda item: item[1]).__iter__(random=True))
    assert sorted(flat(alike)) == list(range(1003))
    assert [len(labels) for _, labels in alike] == [10] * 100 + [3]
    assert padding(alike) < 0.05 * padding(mixed)
    widths = [ids.shape[1] for (ids,), _ in alike]
    assert abs(np.corrcoef(widths[:100], range(100))[0, 1]) < 0.3


def test_like_lengths_are_sought_within_the_buffer():
    items = [(i, i) for i in range(1, 41)]
    data = Collating(iter(items), 5, buffer_size=8, length_of=lambda item: item[1])
    batches = numbers(data.__iter__(random=True))
    assert sorted(itertools.chain.from_iterable(batches)) == list(range(1, 41))
    assert all(max(batch) - min(batch) < 25 for batch in batches)


# Streams


def test_an_item_of_a_stream_is_drawn_from_no_more_than_the_buffer():
    order = flat(Collating(((i, 1) for i in range(500)), 4, buffer_size=20).__iter__(random=True))
    assert sorted(order) == list(range(500))
    assert all(number < place + 20 for place, number in enumerate(order))
    assert np.mean(np.abs(np.array(order) - np.arange(500))) > 10


def test_a_stream_has_neither_length_nor_numbers():
    data = Collating(Stream())
    assert data.steps is None and data.num_batches is None
    with pytest.raises(TypeError):
        len(data)
    for ask in (lambda: data[0], lambda: data.repeat()):
        with pytest.raises(DataError, match=r"no numbers.*forfit"):
            ask()


def test_a_stream_that_is_used_up_is_an_error_at_the_second_pass():
    passes = Collating(iter(ITEMS), 4)._passes(random=False)
    assert len(list(itertools.islice(passes, 3))) == 3
    with pytest.raises(DataError, match=r"pass number 1 over the data gave nothing.*iterator"):
        next(passes)


# Into Keras


def counting_model():
    """A model whose weights count how often `fit` saw each item."""
    ids = keras.Input((None,), dtype="int32")
    one = keras.layers.Embedding(12, 1, embeddings_initializer="zeros", name="counts")(ids[:, :1])
    model = keras.Model(ids, one[:, 0])
    model.compile(keras.optimizers.SGD(1.0), loss=lambda y_true, y_pred: -keras.ops.sum(y_pred))
    return model


def counts(model):
    return model.get_layer("counts").get_weights()[0][1:, 0].tolist()


WAYS = {
    "data": lambda data: (data, {"epochs": 2}),
    "repeat": lambda data: (data.repeat(), {"epochs": 2, "steps_per_epoch": len(data)}),
    "forfit": lambda data: (data.forfit(), {"epochs": 2, "steps_per_epoch": len(data)}),
}


@both
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    "options", [{"shuffle": True}, {"workers": 2, "length_of": lambda item: item[1]}], ids=["shuffled", "by length"]
)
def test_fit_sees_every_item_once_an_epoch(kind, way, options):
    model = counting_model()
    data, arguments = WAYS[way](kind(ITEMS, 2, **options))
    model.fit(data, verbose=0, **arguments)
    assert counts(model) == [2] * 11


def test_fit_sees_every_item_once_with_worker_processes():
    model = counting_model()
    model.fit(Collating(ITEMS, 2, shuffle=True, workers=2, use_multiprocessing=True), verbose=0)
    assert counts(model) == [1] * 11


def test_fit_takes_a_stream():
    model = counting_model()
    model.fit(Iterating(Stream(), 4, buffer_size=3).forfit(), steps_per_epoch=3, epochs=3, verbose=0)
    assert counts(model) == [3] * 11


@pytest.mark.parametrize("way", WAYS)
def test_the_first_two_batches_may_be_of_one_length_and_others_not(way):
    """This fails when Keras calls its method otherwise: see tfloader/data/feeding.py."""
    items = [(0, 3), (1, 3), (2, 3), (3, 3), (4, 1), (5, 8)]
    data, arguments = WAYS[way](Collating(items, 2, workers=1))
    if way == "repeat":
        data.data._orders = {epoch: np.arange(6) for epoch in range(3)}
    elif way == "forfit":
        data = Collating(items, 2).forfit(random=False)
    model = counting_model()
    model.fit(data, shuffle=False, verbose=0, **arguments)
    model.evaluate(Collating(items, 2), verbose=0)
    assert counts(model)[:6] == [2] * 6


def test_sizes_of_one_stay_known_because_metrics_go_by_them():
    ids, labels = Collating(ITEMS, 4).forfit().element_spec
    assert ids[0].shape.as_list() == [None, None]
    assert labels.shape.as_list() == [None, 1]


def test_predictions_come_in_the_order_of_the_data():
    ids = keras.Input((None,))
    model = keras.Model(ids, keras.ops.max(ids, axis=1))
    expected = np.arange(1, 12)
    assert model.predict(Collating(ITEMS, 2, workers=2), verbose=0).tolist() == expected.tolist()
    data = Iterating(ITEMS, 2)
    assert model.predict(data.fortest(), steps=len(data), verbose=0).tolist() == expected.tolist()


@pytest.mark.parametrize("start", [0, 1, 5, 17])
def test_endless_batches_go_on_from_any_step(start):
    data = Collating(ITEMS, 4, length_of=lambda item: item[1], seed=4)
    whole, rest = data.repeat(), data.repeat(start)
    assert numbers(rest[i] for i in range(9)) == numbers(whole[start + i] for i in range(9))
    epochs = [flat(whole[3 * epoch + i] for i in range(3)) for epoch in range(3)]
    assert all(sorted(epoch) == list(range(11)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]


# Single examples, as bert4keras' to_dataset batches them


class Examples(DataGenerator):
    def __iter__(self, random=False):
        for _, (number, length) in self.sample(random):
            yield ids_of(number, length), [number]


@pytest.mark.parametrize(
    ("names", "keys"), [(None, (0, 1)), (["ids", "label"], ("ids", "label")), ([["ids"], ["label"]], None)]
)
def test_to_dataset_batches_single_examples(names, keys):
    class Nested(Examples):
        def __iter__(self, random=False):
            for ids, label in super().__iter__(random):
                yield ([ids], [label]) if keys is None else (ids, label)

    types, shapes = ("int32", "float32"), ([None], [1])
    if keys is None:
        types, shapes = (("int32",), ("float32",)), (([None],), ([1],))
    dataset = Nested(ITEMS, 4).to_dataset(types, shapes, names, padded_batch=True, random=False)
    batch = next(iter(dataset))
    ids, labels = (batch[0]["ids"], batch[1]["label"]) if keys is None else (batch[keys[0]], batch[keys[1]])
    np.testing.assert_array_equal(ids, sequence_padding([ids_of(*item) for item in ITEMS[:4]]))
    np.testing.assert_array_equal(labels, [[0], [1], [2], [3]])
    assert (ids.dtype, labels.dtype) == (tf.int32, tf.float32)


# Mistakes


def test_an_iteration_that_does_not_make_one_batch_of_a_batch_of_items_has_no_numbers():
    class Twice(Iterating):
        def __iter__(self, random=False):
            for batch in super().__iter__(random):
                yield batch
                yield batch

    with pytest.raises(DataError, match=r"Twice.__iter__ makes 2 batches of 4 items.*forfit"):
        Twice(ITEMS, 4)[0]


def test_a_subclass_without_either_method_is_told_what_it_needs():
    with pytest.raises(NotImplementedError, match=r"DataGenerator needs collate\(items\), or __iter__"):
        next(iter(DataGenerator(ITEMS)))


@pytest.mark.parametrize(("arguments", "named"), [(([],), "no items"), ((ITEMS, 0), "batch_size.*found 0")])
def test_nothing_to_batch_is_refused(arguments, named):
    with pytest.raises(DataError, match=named):
        Collating(*arguments)
