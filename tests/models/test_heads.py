"""Families declare their optional parts, and everything else follows from that."""

from __future__ import annotations

import pytest

from tests.releases import CASES
from tfloader.config import TransformerConfig
from tfloader.models.builder import FAMILIES
from tfloader.naming import RELEASES

SIZES = {"vocab_size": 9, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 9}
BY_CONFIG = {"segments"}  # parts that the config's sizes decide, not an option


def made(family, parts):
    config = TransformerConfig(
        family,
        max_position_embeddings=8,
        type_vocab_size=2,
        pad_token_id=0,
        application=FAMILIES[family].applications[0],
        head=next(iter(FAMILIES[family].task_heads), None),
        **SIZES,
    )
    return FAMILIES[family](config, **FAMILIES[family].options_for(parts))


@pytest.mark.parametrize("release", RELEASES, ids=lambda release: release.name)
def test_every_part_of_a_table_is_declared_by_its_family(release):
    declared = {head.part for head in FAMILIES[release.family].heads} | BY_CONFIG
    declared |= {"head"} if FAMILIES[release.family].task_heads else set()
    assert {row.part for row in release.naming.rows if row.part} <= declared


@pytest.mark.parametrize("family", FAMILIES)
def test_options_for_parts_make_these_parts_and_no_others(family):
    heads = {head.part for head in FAMILIES[family].heads} | ({"head"} if FAMILIES[family].task_heads else set())
    for part in heads if family != "t5" else ():
        found = made(family, {part})
        implied = {"pooler"} if part == "nsp" else set()
        assert heads - found.left_out == {part} | implied


@pytest.mark.parametrize(
    ("parts", "left_out"),
    [
        ({"encoder", "decoder", "lm"}, set()),
        ({"encoder", "decoder"}, {"lm"}),
        ({"encoder"}, {"decoder", "lm"}),
        ({"encoder", "lm"}, {"decoder", "lm"}),
        ({"decoder", "lm"}, {"encoder"}),
    ],
)
def test_t5_s_halves_are_parts_and_its_output_layer_goes_with_the_decoder(parts, left_out):
    assert made("t5", parts).left_out == left_out


@pytest.mark.parametrize("release", CASES, ids=str)
def test_the_release_tests_ask_for_heads_that_are_declared(release):
    known = next(item for item in RELEASES if item.name == release.release)
    declared = {head.option for head in FAMILIES[known.family].heads}
    assert {name for name in release.options if name.startswith("with_")} <= declared
