"""An option that is unknown, impossible, or would have no effect is refused."""

from __future__ import annotations

import pytest

import tfloader
from tests.refusals import BERT, refused
from tests.releases import case
from tfloader.errors import ConfigError, WeightsError

OPTIONS = {
    # name: (options, error, words)
    "an unknown option": ({"with_poool": True}, ConfigError, ["'with_poool'", "did you mean 'with_pool'"]),
    "several unknown ones": ({"with_poool": 1, "frob": 2}, ConfigError, ["'with_poool'", "'frob'"]),
    "an application that is none": ({"application": "decoder"}, ConfigError, ["application", "encoder, lm, unilm"]),
    "another model": ({"model": "gpt2"}, ConfigError, ["model='gpt2'", "Hugging Face BERT", "model='bert'"]),
    "a model of another framework": ({"model": "llama"}, ConfigError, ["Unknown model 'llama'", "gpt2, gpt2_ml, t5"]),
    "an unknown compat": ({"compat": "keras"}, ConfigError, ["compat", "'bert4keras'"]),
    "a token out of range": (
        {"keep_tokens": [0, 211]},
        WeightsError,
        ["id 211", "211 tokens", "leave keep_tokens out"],
    ),
    "a negative token": ({"keep_tokens": [0, -1]}, WeightsError, ["id -1"]),
    "a token twice": ({"keep_tokens": [1, 2, 1]}, ConfigError, ["twice"]),
    "no tokens": ({"keep_tokens": []}, ConfigError, ["keep_tokens"]),
    "tokens that are words": ({"keep_tokens": ["a"]}, ConfigError, ["keep_tokens", "'a'"]),
    "fractions of tokens": ({"keep_tokens": [0.5]}, ConfigError, ["keep_tokens"]),
    "a compound out of range": ({"compound_tokens": [[1, 211]]}, ConfigError, ["compound_tokens", "0 to 210"]),
    "a compound of dropped tokens": (
        {"keep_tokens": [0, 6, 7], "compound_tokens": [[3]]},
        ConfigError,
        ["compound_tokens", "0 to 2", "after keep_tokens"],
    ),
    "a compound of nothing": ({"compound_tokens": [[]]}, ConfigError, ["compound_tokens"]),
    "weights that do not match": ({"compound_tokens": [([1, 2], [1.0])]}, ConfigError, ["one weight for each id"]),
    "heads that do not divide": ({"num_attention_heads": 5}, ConfigError, ["num_attention_heads"]),
    "an activation that is none": ({"hidden_act": "frob"}, ConfigError, ["'frob'", "gelu_tanh"]),
}


@pytest.mark.parametrize("name", OPTIONS)
def test_an_impossible_option_is_refused(name):
    options, error, words = OPTIONS[name]
    refused(error, words, tfloader.load, BERT, **options)


@pytest.mark.parametrize("name, application", [("hf_gpt2", "encoder"), ("gpt2_ml", "unilm"), ("hf_t5_v10", "lm")])
def test_an_application_that_a_family_lacks_is_refused(name, application):
    refused(
        ConfigError, [f"application={application!r}", "it has"], tfloader.load, case(name).path, application=application
    )


def test_a_release_cannot_be_written_in_a_format_that_it_lacks(tmp_path):
    model = tfloader.load(case("hf_gpt2").path, num_hidden_layers=1)
    refused(ConfigError, ["'gpt2' models cannot be written as 'onnx'"], tfloader.save, model, tmp_path / "x", "onnx")
    assert not (tmp_path / "x").exists()
