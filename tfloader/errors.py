"""The exceptions that users of tfloader meet.

Every message names the file or argument, what was found, what was expected, and what to do next.
Where several things can be wrong at once, they are collected and reported together.
"""

from __future__ import annotations

from collections.abc import Iterable


class TfloaderError(Exception):
    """Base class of every error that tfloader raises on purpose."""

    def __str__(self) -> str:
        # Names from files may hold halves of characters, which no terminal prints.
        return super().__str__().encode("utf-8", "backslashreplace").decode()


class ArgumentError(TfloaderError, TypeError, ValueError):
    """A function got an argument of a type or value that it cannot use."""


class FileError(TfloaderError, OSError):
    """The system refuses to read or write a file."""


class CheckpointError(TfloaderError):
    """A checkpoint file or folder cannot be read or written as what it claims to be."""


class ConfigError(TfloaderError):
    """A config file or a builder option is missing, malformed, or asks for what is not implemented."""


class WeightsError(TfloaderError):
    """The tensors of a checkpoint and the variables of a model do not fit together."""


class TokenizerError(TfloaderError):
    """A vocabulary or tokenizer file cannot be used."""


class SegmentationError(TokenizerError):
    """A vocabulary of words needs the function that splits texts into words."""


class ConversionError(TfloaderError):
    """A checkpoint cannot be written in another format without losing something, or not there."""


class DownloadError(TfloaderError):
    """A file cannot be fetched, is not what was published, or an archive cannot be unpacked safely."""


class DataError(TfloaderError):
    """A task file, or what is to become a batch, is not what it should be."""


class TrainingError(TfloaderError):
    """A training hook does not fit the model, or training went wrong."""


class LossError(TrainingError, ValueError):
    """A loss got an argument, or a batch, that it cannot use."""


class GenerationError(TfloaderError):
    """Generation stopped because no next token could be chosen."""


def listing(problems: Iterable[str], limit: int = 20) -> str:
    """Formats problems one a line, the first `limit` of them, with a count of the rest.

    What files hold may be of any length, so the middle of an absurdly long problem is left out.
    """
    problems = list(problems)
    shown = (text if len(text) <= 4000 else f"{text[:2000]} ... {text[-1000:]}" for text in problems[:limit])
    lines = [f"  - {problem}" for problem in shown]
    if len(problems) > limit:
        lines.append(f"  ... and {len(problems) - limit} more")
    return "\n".join(lines)
