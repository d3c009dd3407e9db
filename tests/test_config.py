"""The config itself: impossible values are refused by name, all at once."""

from __future__ import annotations

import re

import pytest

from tests.naming.configs import config
from tfloader.config import LIMITS
from tfloader.errors import ConfigError

INVALID = {
    # field: (value, what the message must say of it)
    "vocab_size": (10**12, "must lie between 1 and 10000000, found 1000000000000"),
    "hidden_size": (-8, "must lie between 1"),
    "num_hidden_layers": (10**6, "must lie between 0 and 1000"),
    "num_attention_heads": (True, "must be an integer, found True"),
    "intermediate_size": ("32", "must be an integer, found '32'"),
    "max_position_embeddings": (512.0, "must be an integer, found 512.0"),
    "type_vocab_size": (None, "must be an integer, found None"),
    "embedding_size": (0, "must lie between 1"),
    "attention_head_size": ([4], r"must be an integer, found \[4\]"),
    "layer_norm_eps": ("1e-12", "must be a number, found '1e-12'"),
    "hidden_dropout_prob": (1.5, r"must lie in \[0, 1\), found 1.5"),
    "initializer_range": (float("nan"), r"must lie in \[0, 1\), found nan"),
    "attention_probs_dropout_prob": (-0.1, r"must lie in \[0, 1\)"),
    "hidden_act": ("quick_gelu", "'quick_gelu' is not implemented; there are gelu, gelu_tanh, relu"),
    "application": ("decoder", "must be one of encoder, lm, unilm"),
    "gated_feed_forward": (1, "must be true or false, found 1"),
    "model_type": (3, "must be a string"),
    "pad_token_id": ("0", "must be an integer"),
    "extras": (5, "must be a mapping"),
}


@pytest.mark.parametrize("name", INVALID)
def test_an_invalid_value_is_refused_by_name(name):
    value, words = INVALID[name]
    with pytest.raises(ConfigError, match=f"{name}.*{words}"):
        config(**{name: value})


def test_all_invalid_values_are_reported_at_once():
    with pytest.raises(ConfigError) as caught:
        config(**{name: value for name, (value, _) in INVALID.items()})
    for name, (_, words) in INVALID.items():
        assert re.search(f"{name}.*{words}", str(caught.value)), name


@pytest.mark.parametrize("name", sorted(LIMITS))
def test_every_size_has_a_bound_that_holds(name):
    for value in (LIMITS[name] + 1, -1):
        with pytest.raises(ConfigError, match=f"{name} must lie between"):
            config(**{name: value})


def test_sizes_that_are_each_possible_but_together_absurd_are_refused():
    with pytest.raises(ConfigError, match=r"about 1e\+14 weights"):
        config(num_hidden_layers=1_000, hidden_size=100_000, num_attention_heads=1, intermediate_size=400_000)


def test_heads_must_divide_the_hidden_size_unless_their_size_is_given():
    with pytest.raises(
        ConfigError, match=r"hidden_size 8 is not a multiple of num_attention_heads 3.*attention_head_size"
    ):
        config(num_attention_heads=3)
    assert config(num_attention_heads=3, attention_head_size=5).head_size == 5


def test_huge_values_are_cut_in_messages():
    nested = None
    for _ in range(500):
        nested = [nested]
    for value in ("x" * 10**6, [1] * 10**6, 10**5000, nested):
        with pytest.raises(ConfigError) as caught:
            config(vocab_size=value)
        assert len(str(caught.value)) < 500


def test_replace_checks_again():
    with pytest.raises(ConfigError, match="num_attention_heads"):
        config().replace(num_attention_heads=3)
