"""Choosing variables by name: regular expressions that are searched in a variable's path, "Layer-Name/.../kernel"."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

from tfloader.errors import TrainingError, listing
from tfloader.suggestions import did_you_mean

# Scales and offsets of normalisations, and biases: what weight decay leaves alone by convention (Devlin et al., 2018).
NORMS_AND_BIASES = (r"(^|/)(gamma|beta|scale|bias)$",)


def as_patterns(patterns: str | Iterable[str] | None) -> tuple[str, ...]:
    return (patterns,) if isinstance(patterns, str) else tuple(patterns or ())


def path(variable: Any) -> str:
    """The variable's path; TensorFlow's own variables have a name instead, "layer/kernel:0"."""
    return getattr(variable, "path", None) or variable.name.partition(":")[0]


def search(pattern: str, text: str) -> bool:
    """Whether the pattern is found in the text, without cutting a number: "Transformer-1" is not "Transformer-12"."""
    return any(
        not (_inside_number(text, match.start()) or _inside_number(text, match.end()))
        for match in re.finditer(pattern, text)
    )


def _inside_number(text: str, position: int) -> bool:
    return 0 < position < len(text) and text[position - 1].isdigit() and text[position].isdigit()


def matches(patterns: Iterable[str], variables: Sequence[Any], argument: str) -> list[list[str]]:
    """For each variable the patterns that its path matches.

    Raises:
        TrainingError: naming each pattern that is no regular expression or matches nothing, with names that are near.
            The default NORMS_AND_BIASES may match nothing.
    """
    paths = [path(variable) for variable in variables]
    problems, found = [], [[] for _ in paths]
    for pattern in patterns:
        try:
            hits = [search(pattern, item) for item in paths]
        except re.error as error:
            hint = f"; write {'.*' + pattern[1:]!r}?" if pattern.startswith("*") else ""
            problems.append(f"{pattern!r} is not a regular expression ({error}{hint})")
            continue
        if not any(hits) and pattern not in NORMS_AND_BIASES:
            problems.append(f"{pattern!r} matches no variable{did_you_mean(pattern.strip('^$/'), _parts(paths))}")
        for own, hit in zip(found, hits, strict=True):
            own.extend([pattern] * hit)
    if problems:
        raise TrainingError(
            f"{argument} does not fit the {len(paths)} variables that the optimizer trains; they have paths such as "
            f"{paths[0]!r}, and frozen ones are not among them:\n{listing(problems)}"
        )
    return found


def _parts(paths: Sequence[str]) -> Iterable[str]:
    return dict.fromkeys(part for item in paths for part in (*item.split("/"), item))
