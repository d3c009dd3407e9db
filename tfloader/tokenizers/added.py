"""Added tokens: they stand in a text whole, whatever the vocabulary's rules say, as Hugging Face's do."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple

from tfloader.errors import TokenizerError, listing
from tfloader.files import read_json, show
from tfloader.tokenizers.settings import ROLES, Settings, specials, typed

OPTIONS = ("lstrip", "rstrip", "single_word", "normalized", "special")


class Declared(NamedTuple):
    """The added tokens of a folder.

    Attributes:
        tokens: content -> tokenizers.AddedToken, those with an id last and in its order.
        bare: those that stand there without options, so that tokenizer.json may have some for them.
        ids: the ids that the folder states, each with its token.
    """

    tokens: dict[str, Any]
    bare: set[str]
    ids: list[tuple[Any, str]]


def declared(folder: str, names: Collection[str], config: Settings) -> Declared:
    """What the small files of a folder declare, with the options that transformers gives it."""
    found = Declared({}, set(), [])

    def declare(where: str, token: Any, id: Any = None, **usual: bool) -> None:
        has_options = isinstance(token, Mapping)
        made = added_token({**usual, **(token if has_options else {"content": token})}, f"{folder}: {where}")
        if made.content not in found.tokens and not has_options:
            found.bare.add(made.content)
        found.tokens.setdefault(made.content, made)
        if id is not None:
            found.ids.append((id, made.content))

    for id, token in (typed(config, "added_tokens_decoder", dict, None) or {}).items():
        declare("added_tokens_decoder", token, int(id) if id.isdecimal() and len(id) < 12 else id)
    for key in ("additional_special_tokens", "extra_special_tokens"):
        value = config.get(key)
        for token in value.values() if isinstance(value, Mapping) else typed(config, key, list, None) or []:
            declare(key, token, special=True)
    if "added_tokens.json" in names:
        roles = specials(config).values()
        for token, id in read_json(os.path.join(folder, "added_tokens.json"), TokenizerError).items():
            declare("added_tokens.json", token, id, special=token in roles)
    for key in (f"{role}_token" for role in ROLES):
        if isinstance(config.get(key), Mapping):
            declare(key, config[key], special=True)
    places = {content: id for id, content in found.ids if isinstance(id, int)}
    return found._replace(tokens=dict(sorted(found.tokens.items(), key=lambda item: places.get(item[0], -1))))


def added_token(token: Any, where: str = "added_tokens") -> Any:
    """A tokenizers.AddedToken, of a string or of an object of a JSON file, or as it is."""
    from tokenizers import AddedToken

    if isinstance(token, str):
        token = {"content": token, "normalized": False}
    if isinstance(token, Mapping):
        options = {key: value for key, value in token.items() if key not in ("__type", "content", "id")}
        content = token.get("content")
        if not (isinstance(content, str) and content and options.keys() <= {*OPTIONS}) or not all(
            isinstance(value, bool) for value in options.values()
        ):
            raise TokenizerError(
                f"{where}: expected tokens, as strings or as objects with a content and {', '.join(OPTIONS)} "
                f"as true or false; found {token!r:.80}."
            )
        return AddedToken(content, **options)
    if isinstance(token, AddedToken):
        return token
    raise TokenizerError(f"{where}: expected strings or tokenizers.AddedToken, found {type(token).__name__}.")


def check_beyond(where: str, declared: Declared, beyond: Mapping[str, int], vocab_size: Any) -> None:
    """Refuses tokens beyond a vocabulary if nothing states their ids, or if the model has no rows for them.

    Args:
        beyond: the tokens, each with its id.
        vocab_size: of the folder's model, None where the folder does not say.
    """
    stated = {content for _, content in declared.ids}
    if missing := [show(content) for content in beyond if content not in stated]:
        raise TokenizerError(
            f"{where}: tokens were added that are not among the {min(beyond.values())} of the vocabulary, and no id is "
            f"stated for them:\n{listing(missing)}\n"
            "Put them into the vocabulary file, or give the path of tokenizer.json if there is one."
        )
    most = vocab_size if isinstance(vocab_size, int) else math.inf
    if high := [f"{show(content)}: {id}" for content, id in beyond.items() if id >= most]:
        raise TokenizerError(
            f"{where}: tokens were added beyond the vocabulary, but the model of config.json has vocab_size {most}, so "
            f"no rows for the ids:\n{listing(high)}\nTake the model that was trained with them, or remove them."
        )


def check_ids(where: str, stated: Collection[tuple[Any, str]], find: Callable[[str], int | None]) -> None:
    """Refuses added tokens that do not have the ids that a file states."""
    wrong = [f"{show(token)}: {id!r:.20}, but found {find(token)}" for id, token in stated if find(token) != id]
    if wrong:
        raise TokenizerError(
            f"{where}: added tokens do not have the ids that are stated for them:\n{listing(wrong)}\n"
            "Correct the file that is wrong: the model's embedding was trained with one of the two."
        )
