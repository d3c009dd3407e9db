"""Whether two checkpoints are the same model: behind `tfloader verify A B`, and at the end of a conversion."""

from __future__ import annotations

import gc
import os
from collections.abc import Collection, Iterator, Sequence
from typing import Any

import numpy as np

from tfloader.border import public
from tfloader.checks import Check, Skipped, outcome, outputs_on_random_ids
from tfloader.config import NOT_MATHEMATICS, differing_fields
from tfloader.conversion import companions
from tfloader.conversion.source import Source
from tfloader.errors import TokenizerError, WeightsError, listing

TOLERANCE = 1e-5  # of the largest output, where both hold the same dtypes
BLOCK = 4 * 1024**2  # elements
TEXTS = (
    "The quick brown fox isn't 12.5 years old; naïve café?  ",
    "今天天气不错，适合在北京大学散步。Ｈｅｌｌｏ 123！",
    "Übung macht\tden Meister\n[MASK] <extra_id_0> <|endoftext|> 🙂 \u200d𠮷",
)


@public
def compare(
    first: str | os.PathLike[str],
    second: str | os.PathLike[str],
    keep_tokens: Sequence[int] | None = None,
    tokenizer: Any = None,
    model: str | None = None,
    ignore: str | Collection[str] = (),
) -> Iterator[Check]:
    """Compares two checkpoints in our terms: config, tensors, tokenizers, outputs; gives each outcome as it is known.

    Tensors of the same dtype must be equal bit for bit; of different dtypes, the wider ones after rounding.

    Args:
        first, second: as `load`'s path.
        keep_tokens: the second has only these tokens of the first, in this order.
        tokenizer: the open tokenizer that the second should have, where it is not the first's; False: none.
        model: the family, where the tensors' names fit several.
        ignore: patterns of tensors of either that may stay unread, such as "classifier.*".

    Raises:
        TfloaderError: one of them cannot be read at all.
    """
    one, other = os.fspath(first), os.fspath(second)
    with Source(one, keep_tokens, model, ignore) as a, Source(other, None, model, ignore, like=a) as b:
        yield from compared(a, b, tokenizer)


def compared(a: Source, b: Source, tokenizer: Any) -> Iterator[Check]:
    """Each outcome of `compare`, of what is open already."""
    yield Check("releases", "ok", f"{a.release.title}, {b.release.title}")
    yield outcome("config", _configs, a, b)[0]
    yield outcome("tensors", _tensors, a, b)[0]
    yield outcome("tokenizer", _tokenizers, a, b, tokenizer)[0]
    yield outcome("outputs", _outputs, a, b)[0]


def _configs(a: Source, b: Source) -> tuple[None, str]:
    lines = {
        name: f"{name}: {getattr(a.config, name)!r} and {getattr(b.config, name)!r}"
        for name in differing_fields(a.config, b.config)
        if name != "model_type"
    }
    if any(name == "application" or name not in NOT_MATHEMATICS for name in lines):
        raise WeightsError(f"the configs mean different models:\n{listing(lines.values())}")
    return None, f"the same model; only {'; '.join(lines.values())}" if lines else "the same"


def _tensors(a: Source, b: Source) -> tuple[None, str]:
    problems = [f"{source.path}: {problem}" for source in (a, b) for problem in source.problems()]
    if problems:
        raise WeightsError(f"{len(problems)} tensors are not those of the model:\n{listing(problems)}")
    problems += [f"{path} is only in {a.path}" for path in a.variables if path not in b.variables]
    problems += [f"{path} is only in {b.path}" for path in b.variables if path not in a.variables]
    largest, where, rounded = 0.0, "", set()
    shared = [path for path in a.variables if path in b.variables]
    for path in shared:
        one, other = a.variables[path], b.variables[path]
        if one.shape != other.shape:
            problems.append(f"{path} has the shapes {one.shape} and {other.shape}")
            continue
        equal, difference = difference_of(a.variables.read(path), b.variables.read(path))
        if not equal:
            problems.append(f"{path} differs by up to {difference:.3g}")
        if one.dtype != other.dtype:
            rounded.add(f"{one.dtype} and {other.dtype}")
        if difference > largest:
            largest, where = difference, path
    if problems:
        raise WeightsError(f"{len(problems)} differences:\n{listing(problems)}")
    if not rounded:
        return None, f"{len(shared)} variables, equal bit for bit"
    found = f"largest difference {largest:.3g}, in {where}" if where else "no difference"
    return None, f"{len(shared)} variables, equal but for rounding ({', '.join(sorted(rounded))}); {found}"


def difference_of(first: np.ndarray, second: np.ndarray) -> tuple[bool, float]:
    """Whether two arrays are equal, the wider one rounded to the other's dtype; and their largest difference.

    The same bits are no difference, NaN included; NaN beside a number is an infinite one.
    """
    equal, largest = True, 0.0
    rows = max(1, BLOCK // max(1, first[:1].size)) if first.ndim else 1
    blocks = [slice(start, start + rows) for start in range(0, len(first), rows)] if first.ndim else [()]
    for block in blocks:
        x, y = np.ascontiguousarray(first[block]), np.ascontiguousarray(second[block])
        if x.dtype == y.dtype and x.tobytes() == y.tobytes():
            continue
        with np.errstate(over="ignore", invalid="ignore"):
            narrow, wide = (x, y) if x.dtype.itemsize < y.dtype.itemsize else (y, x)
            equal = equal and (narrow.dtype != wide.dtype and narrow.tobytes() == wide.astype(narrow.dtype).tobytes())
            gap = np.abs(x.astype("float32") - y.astype("float32"))
        same = (np.isnan(x) & np.isnan(y)) | (x == y)
        largest = max(largest, float(np.where(same, 0, np.where(np.isnan(gap), np.inf, gap)).max(initial=0)))
    return equal, largest


def _tokenizers(a: Source, b: Source, given: Any) -> tuple[None, str]:
    expected = companions.tokenizer_of(a, None) if given is None else given
    found = companions.tokenizer_of(b, None)
    if not expected and not found:
        raise Skipped("there is none")
    if not expected or not found:
        raise TokenizerError(f"only the {'first' if found is None else 'second'} has one")
    problems = [
        f"{name}: {getattr(expected, name)!r} and {getattr(found, name)!r}"
        for name in ("vocab_size", "special_tokens", "padding_side")
        if getattr(expected, name) != getattr(found, name)
    ]
    names = [_name(expected, index) for index in range(expected.vocab_size)]
    if expected.vocab_size == found.vocab_size:
        pairs = enumerate(zip(names, (_name(found, index) for index in range(found.vocab_size)), strict=True))
        problems += [f"id {index}: {one!r} and {other!r}" for index, (one, other) in pairs if one != other]
    some = " ".join(name for name in names[:: 1 + len(names) // 100] if name)
    for text in (*TEXTS, some, some.swapcase()):
        one, other = expected.encode(text)[0], found.encode(text)[0]
        if one != other:
            problems.append(f"{text[:40]!r} becomes {one[:12]} ... and {other[:12]} ...")
    if problems:
        raise TokenizerError(f"the tokenizers differ:\n{listing(problems)}")
    return None, f"{found.vocab_size} tokens: the same, and so are the ids of texts"


def _name(tokenizer: Any, index: int) -> str | None:
    try:
        return tokenizer.id_to_token(index)
    except TokenizerError:
        return None  # a gap


def _outputs(a: Source, b: Source) -> tuple[None, str]:
    one, other = ([*map(np.asarray, _run(item, b))] for item in (a, b))
    if [item.shape for item in one] != [item.shape for item in other]:
        raise WeightsError(f"the outputs have the shapes {[x.shape for x in one]} and {[x.shape for x in other]}")
    if not all(np.isfinite(item).all() for item in (*one, *other)):
        raise WeightsError("random token ids give NaN or infinite numbers")
    scale = max(float(np.abs(item).max(initial=0)) for item in one) or 1.0
    largest = max(difference_of(x, y)[1] for x, y in zip(one, other, strict=True))
    found = f"largest difference {largest:.3g} on random token ids, of outputs up to {scale:.3g}"
    same_dtypes = all(a.variables[path].dtype == b.variables[path].dtype for path in a.variables if path in b.variables)
    if same_dtypes and largest > TOLERANCE * scale:
        raise WeightsError(found)
    return None, found


def _run(source: Source, ids_of: Source) -> list[np.ndarray]:
    from tfloader.models.builder import load

    outputs = outputs_on_random_ids(load(source.path, **source.load_options), ids_of.config)
    gc.collect()  # the model, before the next is loaded
    return outputs
