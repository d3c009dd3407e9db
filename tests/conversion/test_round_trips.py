"""From each fixture to the family's other format and back: every tensor's name, dtype and bytes, and the config."""

from __future__ import annotations

from pathlib import Path

import pytest

import tfloader
from tests.conftest import CHECKPOINTS
from tests.conversion.conftest import contents
from tests.releases import CASES
from tfloader.config import NOT_MATHEMATICS, differing_fields
from tfloader.conversion.source import Source
from tfloader.errors import ConversionError
from tfloader.naming import RELEASES

# (folder, the family where the tensors' names do not say it)
FOLDERS = sorted(
    {(Path(item.path).name, item.options.get("model", "")) for item in CASES}
    | {(name, "") for name in ("b4k_bert_lm", "b4k_bert_options", "b4k_bert_unilm")}
)
# What the family's other format cannot hold, and says so: fixture -> words of the error.
REFUSED = {
    "b4k_gpt": "the feed-forward is 4 x n_embd = 192 wide, here 80",
    "b4k_gpt2": "hparams.json cannot express intermediate_size 80",
    "b4k_gpt_segtable": "token_type_embeddings .* has no place in a Hugging Face OpenAI GPT",
    "b4k_nezha_gen": "In this format there are always segments; the model has none",
    "b4k_t5_pegasus": "cross_position_bias = True",
}
CAST = ("bert_google", "gpt2_openai", "gpt2_ml", "hf_bert_sharded", "hf_t5_v11", "mt5_mesh")
OTHER = {"huggingface": "tensorflow", "tensorflow": "huggingface", None: "huggingface"}


def there_and_back(name, model, folder, dtype=None):
    """Gives the fixture opened, and the paths of it in our writer's hand, in the other format, and back again."""
    model = model or None
    source = Source(str(CHECKPOINTS / name), model=model)
    own = source.release.writes or "huggingface"
    formats = {release.writes for release in RELEASES if release.family == source.config.family}
    other = OTHER[own] if OTHER[own] in formats and not source.config.head else own  # heads are Hugging Face's alone
    paths = [folder / step for step in ("first", "there", "back")]
    options = {"model": model, "tokenizer": False, "verify": False}
    tfloader.convert(CHECKPOINTS / name, paths[0], own, dtype=dtype, **options)
    tfloader.convert(paths[0], paths[1], other, **options)
    tfloader.convert(paths[1], paths[2], own, **options)
    return source, *paths


@pytest.mark.parametrize(("name", "model"), [item for item in FOLDERS if item[0] in REFUSED])
def test_what_the_other_format_cannot_hold_is_refused(name, model, tmp_path):
    with pytest.raises(ConversionError, match=REFUSED[name]):
        there_and_back(name, model, tmp_path)
    assert not (tmp_path / "back").exists()


@pytest.mark.slow
@pytest.mark.parametrize(("name", "model"), [item for item in FOLDERS if item[0] not in REFUSED])
def test_there_and_back_changes_no_byte_and_no_config_value(name, model, tmp_path):
    source, first, there, back = there_and_back(name, model, tmp_path)
    assert contents(first) == contents(back)
    opened = (Source(str(path), model=model or None, like=source) for path in (there, back))
    with source, next(opened) as other, next(opened) as again:
        if source.release.writes:
            canonical = source.release.naming.canonical
            written = {canonical(name): value for name, value in contents(first).items()}
            for theirs, own in ((item.row.theirs, item.name) for item in source.fit.sources):
                spec, values = source.checkpoint[own], source.checkpoint.read(own)
                assert written.pop(theirs) == (spec.dtype, spec.shape, values.tobytes()), own
            derived = {item.theirs for item in (*source.release.naming.duplicates, *source.release.naming.constants)}
            assert set(written) <= derived
            assert again.release == source.release
        assert set(source.variables) == set(other.variables) == set(again.variables)
        for found in (other, again):
            different = set(differing_fields(found.config, source.config))
            assert different <= NOT_MATHEMATICS - {"application"}


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("name", CAST)
def test_half_precision_survives_there_and_back(name, dtype, tmp_path):
    source, first, there, back = there_and_back(name, None, tmp_path, dtype)
    source.checkpoint.close()
    found = contents(first)
    assert {kind for kind, _, _ in found.values()} == {kind for kind, _, _ in contents(there).values()} == {dtype}
    assert found == contents(back)


@pytest.mark.parametrize("name", ["bert_google", "hf_gpt2_noprefix", "gpt2_ml", "hf_bert_h5", "mt5_mesh"])
def test_both_sides_of_a_conversion_are_run_and_compared(name, tmp_path):
    with Source(str(CHECKPOINTS / name)) as source:
        checks = tfloader.convert(CHECKPOINTS / name, tmp_path / "out", OTHER[source.release.writes])
    found = {check.name: check for check in checks}
    assert {check.status for check in checks} <= {"ok", "skipped"}
    assert found["tensors"].detail.endswith("equal bit for bit")
    assert found["outputs"].detail.startswith("largest difference 0 on random token ids")


def test_a_family_without_the_format_says_which_it_has(tmp_path):
    with pytest.raises(ConversionError, match="'roberta' models cannot be written as 'tensorflow'; there is huggingf"):
        tfloader.convert(CHECKPOINTS / "hf_roberta", tmp_path / "out", "tensorflow")
    assert not list(tmp_path.iterdir())
