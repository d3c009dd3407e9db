"""T5 and mT5 of transformers 4 and 5: which logits are tied, and which are scaled."""

from __future__ import annotations

import pytest

from tests.naming.configs import release, t5_with
from tfloader.naming import read_config
from tfloader.naming.hf_t5 import DIALECT as HF_T5


def test_logits_scaled_but_not_tied_or_the_other_way_round_are_noted_for_transformers_5():
    for tied, scaled in ((True, False), (False, True)):
        raw = HF_T5.write(t5_with(tie_word_embeddings=tied, scale_logits=scaled))
        assert raw["scale_decoder_outputs"] is scaled
    assert "scale_decoder_outputs" not in HF_T5.write(t5_with())


NEW_T5 = {"tie_word_embeddings": True, "transformers_version": "5.23.0"}
TIED = {
    # name: (model_type, what the file says, whether lm_head is stored, (tied, scaled))
    "T5 1.0 of transformers 4": ("t5", {}, False, (True, True)),
    "T5 1.0 that stores its copy": ("t5", {}, True, (True, True)),
    "T5 1.1 of transformers 4": ("t5", {"tie_word_embeddings": False}, True, (False, False)),
    "T5 1.0 of transformers 5": ("t5", NEW_T5 | {"scale_decoder_outputs": True}, False, (True, True)),
    "T5 1.1 of transformers 5": ("t5", NEW_T5 | {"scale_decoder_outputs": False}, True, (False, False)),
    "T5 1.1 trained in transformers 5": ("t5", NEW_T5 | {"scale_decoder_outputs": False}, False, (True, False)),
    "mT5 of transformers 4": ("mt5", {"tie_word_embeddings": False}, True, (False, False)),
    "mT5 of transformers 4, silent": ("mt5", {}, True, (False, False)),
    "mT5 of transformers 5": ("mt5", NEW_T5, True, (False, False)),
    "mT5 trained in transformers 5": ("mt5", NEW_T5, False, (True, False)),
    "mT5 of transformers 10": ("mt5", NEW_T5 | {"transformers_version": "10.0"}, False, (True, False)),
    "mT5 tied in transformers 4": (
        "mt5",
        {"tie_word_embeddings": True, "transformers_version": "4.57.3"},
        False,
        (True, True),
    ),
}


@pytest.mark.parametrize("name", TIED)
def test_tied_and_scaled_logits_follow_the_version_that_wrote_the_file(name):
    model_type, said, stored, expected = TIED[name]
    raw = {
        "model_type": model_type,
        "vocab_size": 20,
        "d_model": 8,
        "d_kv": 4,
        "d_ff": 32,
        "num_layers": 1,
        "num_heads": 2,
    }
    tensors = {"shared.weight": (20, 8)} | ({"lm_head.weight": (20, 8)} if stored else {})
    found = read_config(release("hf_t5"), raw | said, tensors)
    assert (found.tie_word_embeddings, found.scale_logits) == expected
