"""The list of public releases. Adding a release adds a module with its table and a line here."""

from __future__ import annotations

from tfloader.border import public
from tfloader.naming import (
    albert,
    electra,
    gau_alpha,
    google_bert,
    gpt,
    gpt2,
    gpt2_ml,
    hf_bert,
    hf_roberta,
    hf_t5,
    keras2,
    nezha,
    roformer,
    roformer_v2,
    t5_mesh,
)
from tfloader.naming.release import Release, TextFormat

# Where several would do, the first one is taken: the one in which a family's models are written in a format.
RELEASES: list[Release] = [
    google_bert.RELEASE,
    hf_bert.RELEASE,
    hf_bert.H5_RELEASE,
    albert.RELEASE,
    albert.HF_RELEASE,
    electra.RELEASE,
    electra.GENERATOR_RELEASE,
    electra.HF_RELEASE,
    electra.HF_GENERATOR_RELEASE,
    hf_roberta.RELEASE,
    nezha.RELEASE,
    nezha.GEN_RELEASE,
    nezha.HF_RELEASE,
    roformer.RELEASE,
    roformer.HF_RELEASE,
    roformer_v2.RELEASE,
    roformer_v2.HF_RELEASE,
    gau_alpha.RELEASE,
    gau_alpha.HF_RELEASE,
    gpt.RELEASE,
    gpt.HF_RELEASE,
    gpt2.RELEASE,
    gpt.GPT2_RELEASE,
    gpt2.HF_RELEASE,
    gpt2.HF_H5_RELEASE,
    gpt2_ml.RELEASE,
    gpt2_ml.HF_RELEASE,
    t5_mesh.RELEASE,
    t5_mesh.MT5_RELEASE,
    hf_t5.RELEASE,
    hf_t5.H5_RELEASE,
    *keras2.RELEASES,
]


@public
def register_release(release: Release) -> None:
    """Adds a release, so that `load` recognises it and `save` can write it; the same name replaces the old one."""
    RELEASES[:] = [known for known in RELEASES if known.name != release.name] + [release]


def text_format(name: str | None) -> TextFormat:
    """Which tokens stand around the texts of a family, model type or tokenizer class; the usual ones if unknown."""
    if name is not None:
        for release in RELEASES:
            types = (dialect.constants.get("model_type") for dialect in release.dialects)
            if name in (release.family, *release.model_types, *release.text_format.also, *types):
                return release.text_format
    return TextFormat()


def expresses(family: str, field: str) -> bool:
    """Whether a config file of a family can say a config field."""
    dialects = (dialect for release in RELEASES if release.family == family for dialect in release.dialects)
    return any(key.ours == field for dialect in dialects for key in dialect.keys)
