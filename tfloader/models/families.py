"""The families by name: those of the package, and those that users register."""

from __future__ import annotations

from typing import Any

from tfloader.border import public
from tfloader.errors import ConfigError
from tfloader.models.albert import ALBERT
from tfloader.models.bert import BERT
from tfloader.models.electra import ELECTRA, ElectraGenerator
from tfloader.models.gau_alpha import GAUAlpha
from tfloader.models.gpt import GPT
from tfloader.models.gpt2 import GPT2
from tfloader.models.gpt2_ml import GPT2_ML
from tfloader.models.nezha import NEZHA
from tfloader.models.roberta import RoBERTa
from tfloader.models.roformer import RoFormer
from tfloader.models.roformer_v2 import RoFormerV2
from tfloader.models.t5 import T5
from tfloader.models.transformer import Transformer
from tfloader.suggestions import did_you_mean

FAMILIES: dict[str, type[Transformer]] = {
    "bert": BERT,
    "albert": ALBERT,
    "electra": ELECTRA,
    "electra_generator": ElectraGenerator,
    "roberta": RoBERTa,
    "nezha": NEZHA,
    "gpt": GPT,
    "gpt2": GPT2,
    "gpt2_ml": GPT2_ML,
    "t5": T5,
    "roformer": RoFormer,
    "roformer_v2": RoFormerV2,
    "gau_alpha": GAUAlpha,
}


@public
def register_family(name: str, family: type[Transformer]) -> None:
    """Adds a family of your own, to be named by `model=name` and by the `family` of a registered release."""
    FAMILIES[name] = family


def families_meant(model: str | type[Transformer] | None) -> tuple[tuple[str, ...], dict[str, Any]]:
    """The families that a name or class may mean (none: any), and the options that go with the name.

    A class stands for its own family, or for the one that it derives from.

    Raises:
        ConfigError: there is no such name.
    """
    if model is None:
        return (), {}
    if not isinstance(model, str):
        known = (name for base in model.__mro__ for name, family in FAMILIES.items() if family is base)
        return tuple(known)[:1], {}
    # A family's further names are its own, not those of the classes that derive from it.
    names = {name: {name: {}, **vars(family).get("aliases", {})} for name, family in FAMILIES.items()}
    meant = {name: aliases[model] for name, aliases in names.items() if model in aliases}
    if not meant:
        known = dict.fromkeys(alias for aliases in names.values() for alias in aliases)
        raise ConfigError(
            f"Unknown model {model!r}{did_you_mean(model, known) or '.'} There are {', '.join(known)}. "
            "See register_family."
        )
    return tuple(meant), {name: value for options in meant.values() for name, value in options.items()}
