"""Items from whatever holds them."""

import numpy as np
import pytest

from tfloader.errors import DataError
from tfloader.tasks.items import as_items, fields


class Table:
    """As much of a pandas table as is asked for."""

    columns = ("text", "label")

    def to_dict(self, orient):
        assert orient == "records"
        return [{"text": "好", "label": 1}]


def test_lists_iterators_and_tables_give_their_items():
    assert as_items([("好", 1)]) == [("好", 1)]
    assert as_items(iter(["a", "b"])) == ["a", "b"]
    assert as_items(Table()) == [{"text": "好", "label": 1}]


def test_a_data_set_of_tensorflow_gives_texts_and_numbers():
    import tensorflow as tf

    pairs = tf.data.Dataset.from_tensor_slices((["好", "b"], [1, 0]))
    assert as_items(pairs) == [("好", 1), ("b", 0)]
    rows = tf.data.Dataset.from_tensor_slices({"text": ["好"], "label": np.array([0.5])})
    assert as_items(rows) == [{"text": "好", "label": 0.5}]


@pytest.mark.parametrize("data", ["a text", b"bytes", 3, None, {"text": "one item"}])
def test_what_is_no_collection_is_refused(data):
    with pytest.raises(DataError, match="Expected a list"):
        as_items(data)


def test_no_items_are_refused():
    with pytest.raises(DataError, match="no items"):
        as_items([])


def test_fields_come_by_name_or_by_place():
    assert fields({"b": 2, "a": 1, "c": 3}, ("a", "b"), 0) == [1, 2]
    assert fields((1, 2), ("a", "b", "c"), 1) == [1, 2, None]
    assert fields("alone", ("a", "b"), 1) == ["alone", None]
    with pytest.raises(DataError, match="no 'b' among the columns 'a'"):
        fields({"a": 1}, ("a", "b"), 0)
    with pytest.raises(DataError, match=r"1 parts, expected \(a, b\)"):
        fields((1,), ("a", "b"), 0)
