"""The list of public releases. Adding a release adds a module with its table and a line here."""

from __future__ import annotations

from tfloader.naming import (
    b4k_gpt,
    gau_alpha,
    google_albert,
    google_bert,
    google_electra,
    google_nezha,
    gpt2_ml,
    hf_albert,
    hf_bert,
    hf_electra,
    hf_gpt2,
    hf_nezha,
    hf_openai_gpt,
    hf_roberta,
    hf_t5,
    openai_gpt2,
    roformer,
    roformer_v2,
    t5_mesh,
)
from tfloader.naming.release import Release, TextFormat

RELEASES: list[Release] = [
    google_bert.RELEASE,
    hf_bert.RELEASE,
    hf_bert.H5_RELEASE,
    google_albert.RELEASE,
    hf_albert.RELEASE,
    google_electra.RELEASE,
    google_electra.GENERATOR_RELEASE,
    hf_electra.RELEASE,
    hf_electra.GENERATOR_RELEASE,
    hf_roberta.RELEASE,
    google_nezha.RELEASE,
    google_nezha.GEN_RELEASE,
    hf_nezha.RELEASE,
    roformer.RELEASE,
    roformer.HF_RELEASE,
    roformer_v2.RELEASE,
    roformer_v2.HF_RELEASE,
    gau_alpha.RELEASE,
    gau_alpha.HF_RELEASE,
    b4k_gpt.RELEASE,
    hf_openai_gpt.RELEASE,
    openai_gpt2.RELEASE,
    b4k_gpt.GPT2_RELEASE,
    hf_gpt2.RELEASE,
    hf_gpt2.H5_RELEASE,
    gpt2_ml.RELEASE,
    gpt2_ml.HF_RELEASE,
    t5_mesh.RELEASE,
    t5_mesh.MT5_RELEASE,
    hf_t5.RELEASE,
    hf_t5.H5_RELEASE,
]


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
