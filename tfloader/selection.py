"""One way to name the variables and layers of a model, whatever it is for: freezing, LoRA, rates, decay, saliency.

    "Embedding-Token", "bias"   a name: the layer, with all that it holds, or the variables that have it; if none has,
                                all whose path has it as whole words: "Transformer-1" is block 1, "Norm" all norms
    "Transformer-[0-5]-*"       a glob: of a variable's path, or of the name or path of a layer that holds it
    "re:Norm|bias$"             a regular expression, searched in the path; a match never cuts a number in two

Case matters; `*` stands for "/" as well. bert4keras' optimizers take regular expressions without the prefix, and so do
those arguments here, unless what they find is not what the name or glob chooses: then they are refused.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tfloader.errors import TrainingError, listing
from tfloader.suggestions import did_you_mean

if TYPE_CHECKING:
    import keras

EXPRESSION = "re:"


@dataclass(frozen=True)
class Named:
    """What can be chosen: its path, and names that it and the layers that hold it go by."""

    path: str
    names: frozenset[str]

    @classmethod
    def variable(cls, path: str, holders: Iterable[str] = ()) -> Named:
        """A variable; the parts of its path and all that the path begins with are names of layers."""
        parts = path.split("/")
        layers = ("/".join(parts[:count]) for count in range(1, len(parts)))
        return cls(path, frozenset({path, *layers, *parts[:-1], *holders}))


def path(variable: Any) -> str:
    """The variable's path; TensorFlow's own variables have a name instead, "layer/kernel:0"."""
    return getattr(variable, "path", None) or variable.name.partition(":")[0]


def all_layers(model: keras.Model) -> list[keras.layers.Layer]:
    """The layers of a model at every depth, each once: those in composite layers and in models within it too."""
    import keras

    def below(layer: Any) -> None:
        held = layer.layers if isinstance(layer, keras.Model) else keras.tree.flatten(list(vars(layer).values()))
        for item in held:
            if isinstance(item, keras.layers.Layer) and id(item) not in found:
                found[id(item)] = item
                below(item)

    found: dict[int, Any] = {}
    below(model)
    return list(found.values())


def as_patterns(patterns: str | Iterable[str] | None) -> tuple[str, ...]:
    """One pattern, several or none as a tuple."""
    return (patterns,) if isinstance(patterns, str) else tuple(patterns or ())


def layer_named(model: keras.Model, pattern: str | keras.layers.Layer) -> keras.layers.Layer:
    """The one layer that a name, a glob or an expression chooses, at any depth; a layer itself is handed back.

    Raises:
        TrainingError: it chooses none (with the nearest names), or several.
    """
    if not isinstance(pattern, str):
        return pattern
    layers = all_layers(model)
    items = [Named(layer.path or layer.name, frozenset({layer.name, layer.path or layer.name})) for layer in layers]
    try:
        found = choose(pattern, items)
    except re.error as error:
        raise TrainingError(f"{pattern!r} is not a regular expression ({error}).") from None
    if len(found) != 1:
        paths = ", ".join(items[index].path for index in sorted(found))
        several = f"{len(found)} layers named {pattern!r}: {paths}. Name one by its path, or pass the layer itself."
        none = f"no layer named {pattern!r}{did_you_mean(pattern, dict.fromkeys(layer.name for layer in layers))}"
        raise TrainingError(f"The model {model.name!r} has {several if found else none}")
    return layers[found.pop()]


def select(
    model: keras.Model, patterns: str | Sequence[str], among: Collection[Any] | None = None, what: str = "weights"
) -> list[Any]:
    """The variables that patterns choose, in the model's order.

    Args:
        among: the variables to choose from; None: all weights.
        what: what `among` is, in errors.

    Raises:
        TrainingError: naming each pattern that chooses nothing, with names that are near.
    """
    variables = list(model.weights if among is None else among)
    holders: dict[int, set[str]] = {id(variable): set() for variable in variables}
    for layer in all_layers(model):
        for key in {id(variable) for variable in layer.weights} & holders.keys():
            holders[key] |= {layer.name, layer.path or layer.name}
    items = [Named.variable(path(variable), holders[id(variable)]) for variable in variables]
    chosen, problems = match(as_patterns(patterns), items)
    if problems:
        raise TrainingError(f"Patterns that fit no {what} of the model {model.name!r}:\n{listing(problems)}")
    return [variable for variable, fitting in zip(variables, chosen, strict=True) if fitting]


def matches(
    patterns: Iterable[str], variables: Sequence[Any], argument: str, optional: Collection[str] = ()
) -> list[list[str]]:
    """For each variable that an optimizer trains, the patterns of one of its arguments that choose it.

    Args:
        optional: patterns that may choose nothing.

    Raises:
        TrainingError: naming each pattern that chooses nothing, with names that are near, or reads in two ways.
    """
    items = [Named.variable(path(variable)) for variable in variables]
    chosen, problems = match(patterns, items, bare_expressions=True, optional=optional)
    if problems:
        raise TrainingError(
            f"{argument} does not fit the {len(items)} variables that the optimizer trains; they have paths such as "
            f"{items[0].path!r}, and frozen ones are not among them:\n{listing(problems)}"
        )
    return chosen


def match(
    patterns: Iterable[str], items: Sequence[Named], bare_expressions: bool = False, optional: Collection[str] = ()
) -> tuple[list[list[str]], list[str]]:
    """For each item the patterns that choose it; and what is wrong with patterns."""
    chosen: list[list[str]] = [[] for _ in items]
    problems = []
    for pattern in patterns:
        try:
            hits = choose(pattern, items)
            if bare_expressions and not pattern.startswith(EXPRESSION):
                hits = _same_or_refused(pattern, hits, items)
        except (re.error, _AmbiguousError) as error:
            kind = "reads in two ways" if isinstance(error, _AmbiguousError) else "is not a regular expression"
            problems.append(f"{pattern!r} {kind} ({error})")
            continue
        if not hits and pattern not in optional:
            names = dict.fromkeys(name for item in items for name in (*item.path.split("/"), *sorted(item.names)))
            problems.append(f"{pattern!r}{did_you_mean(pattern.removeprefix(EXPRESSION).strip('^$/*'), names)}")
        for index in hits:
            chosen[index].append(pattern)
    return chosen, problems


def choose(pattern: str, items: Sequence[Named]) -> set[int]:
    """The indices of the items that a pattern chooses; an empty one chooses none."""
    if pattern in ("", EXPRESSION):
        return set()
    if pattern.startswith(EXPRESSION):
        return _where(items, lambda item: search(pattern.removeprefix(EXPRESSION), item.path))
    if any(sign in pattern for sign in "*?["):
        fits = re.compile(fnmatch.translate(pattern)).match
        return _where(items, lambda item: any(map(fits, item.names)))
    named = _where(items, lambda item: pattern in item.names or item.path.endswith(f"/{pattern}"))
    return named or _where(items, lambda item: search(_words(pattern), item.path))


def search(expression: str, text: str) -> bool:
    """Whether an expression is found in the text, without cutting a number: "Transformer-1" is not "Transformer-12"."""
    inside_numbers = {match.start() + 1 for match in re.finditer(r"(?=\d\d)", text)}
    return any(inside_numbers.isdisjoint(match.span()) for match in re.finditer(expression, text))


def _where(items: Sequence[Named], condition: Any) -> set[int]:
    return {index for index, item in enumerate(items) if condition(item)}


def _words(name: str) -> str:
    return rf"\b{quoted(name)}\b"


def quoted(name: str) -> str:
    """A regular expression of the name, with its hyphens as they are."""
    return re.escape(name).replace(r"\-", "-")


class _AmbiguousError(Exception):
    """A pattern chooses one thing as a name or glob and another as an expression."""


def _same_or_refused(pattern: str, named: set[int], items: Sequence[Named]) -> set[int]:
    """What a pattern chooses that may be an expression without its prefix, as bert4keras has it."""
    try:
        found = choose(EXPRESSION + pattern, items)
    except re.error:
        if named:
            return named
        raise
    if named and found and named != found:
        exact = [rf"(^|/){quoted(pattern)}(/|$)", _words(pattern)]
        exact = [EXPRESSION + item for item in exact if choose(EXPRESSION + item, items) == named]
        other = items[min(found ^ named)].path
        raise _AmbiguousError(
            f"as bert4keras' regular expression it finds {len(found)} variables: write {EXPRESSION + pattern!r}; as a "
            f"name or glob it chooses {len(named)}"
            + (f": write {exact[0]!r}" if exact else "")
            + f"; they differ in {other!r}"
        )
    return found or named
