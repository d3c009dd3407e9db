"""Readers of common task files: tables, JSON lines, tagged words. Strict: a file is read whole or refused.

All of them take CRLF line ends, a byte order mark, and blank lines at the end. Lines end at line feeds alone, so
U+2028 and its like are text. An error names every line that is wrong.
"""

from __future__ import annotations

import csv
import io
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from tfloader.border import public
from tfloader.data.tags import tags_to_spans
from tfloader.errors import DataError, listing
from tfloader.files import parse_json, show
from tfloader.filesystem import open_file

Path = str | os.PathLike[str]
Row = tuple[int, list[str]]  # a line's number and its fields


class Tagged(NamedTuple):
    """A sentence: its tokens, and the tag of each."""

    tokens: list[str]
    tags: list[str]


@public
def read_tsv(path: Path, columns: Sequence[str] | None = None, encoding: str = "utf-8") -> list[dict[str, str]]:
    """Reads a table with tabs between the fields.

    There is no quoting: quotation marks and backslashes are text like any other, and every line is a row.

    Args:
        columns: names for the columns of a file without a header. None takes them from its first line.

    Returns:
        The rows, {column: text}.

    Raises:
        DataError: the file cannot be read, or a line has more or fewer fields than there are columns.
    """
    return _table(path, ((number, line.split("\t")) for number, line in _lines(path, encoding)), columns)


@public
def read_csv(
    path: Path, columns: Sequence[str] | None = None, encoding: str = "utf-8", delimiter: str = ","
) -> list[dict[str, str]]:
    """Reads a table whose fields may be quoted, by the rules of RFC 4180.

    A field in double quotes may hold the delimiter, line ends, and quotes, which are doubled. Spaces around a field
    belong to it. Other arguments, result and errors are those of `read_tsv`.
    """

    def rows() -> Iterator[Row]:
        file = io.StringIO(_text(path, encoding).rstrip("\r\n"), newline="")
        reader = csv.reader(file, delimiter=delimiter, strict=True)
        try:
            while True:
                yield reader.line_num + 1, next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            more = " Raise it with csv.field_size_limit, or use read_tsv." if "limit" in str(error) else ""
            raise DataError(f"{path}, line {reader.line_num}: not CSV by RFC 4180: {error}.{more}") from None

    return _table(path, rows(), columns)


@public
def read_jsonl(path: Path, encoding: str = "utf-8") -> list[dict[str, Any]]:
    """Reads JSON lines: one object a line.

    Raises:
        DataError: the file cannot be read, or a line is blank or not one JSON object. An object in which a key comes
            twice, NaN and Infinity are refused.
    """
    objects, problems = [], []
    for number, line in _lines(path, encoding):
        try:
            objects.append(parse_json(line, f"line {number}", DataError))
        except DataError as error:
            problems.append(str(error).removesuffix(" Download it again."))
    return _sound(path, objects, problems, "one JSON object a line")


@public
def read_tagged(
    path: Path,
    token: int = 0,
    tag: int = -1,
    comment: str | None = None,
    encoding: str = "utf-8",
    scheme: str | None = None,
) -> list[Tagged]:
    """Reads tagged words (CoNLL, BIO, BMES): a word a line, in columns, and a blank line between sentences.

    Tabs separate the columns if the first line has one, else spaces do. A line of spaces and tabs alone is blank. A
    line whose word is -DOCSTART- is left out.

    Args:
        token, tag: the columns of the word and of its tag, from 0; negative ones count from the end.
        comment: lines that begin so are left out. None are by default: "#" is a word in many files.
        scheme: "BIO", "BIOES", "BMES" or "BILOU", where tags that the scheme does not allow are to be refused.

    Raises:
        DataError: the file cannot be read, a line has more or fewer columns than the first, a word or tag is empty, or
            tags break the scheme.
    """
    separator = width = None
    sentences, beginnings, problems = [Tagged([], [])], [], []
    for number, line in _lines(path, encoding):
        if comment and line.startswith(comment):
            continue
        if not line.strip(" \t") or line.split("\t")[0].split(" ")[0] == "-DOCSTART-":
            sentences.append(Tagged([], []))
            continue
        separator = separator or ("\t" if "\t" in line else " ")
        fields = [field for field in line.split(separator) if field or separator == "\t"]
        width = width or max(len(fields), 2)
        if not (-width <= token < width and -width <= tag < width):
            raise DataError(f"{path}: token={token} and tag={tag} are to be among the {width} columns that it has.")
        if len(fields) != width or not fields[token] or not fields[tag]:
            problems.append(f"line {number}: {len(fields)} columns: {show(line)}")
            continue
        if not sentences[-1].tokens:
            beginnings.append(number)
        sentences[-1].tokens.append(fields[token])
        sentences[-1].tags.append(fields[tag])
    sentences = [sentence for sentence in sentences if sentence.tokens]
    between = "tabs" if separator == "\t" else "spaces"
    sentences = _sound(path, sentences, problems, f"{width or 2} columns between {between}, with a word and its tag")
    if scheme:
        for beginning, sentence in zip(beginnings, sentences, strict=True):
            try:
                tags_to_spans(sentence.tags, scheme, strict=True)
            except DataError as error:
                problems.append(f"sentence from line {beginning}: {error}")
    return _sound(path, sentences, problems, f"tags in {scheme}")


def _table(path: Path, rows: Iterable[Row], columns: Sequence[str] | None) -> list[dict[str, str]]:
    rows = iter(rows)
    names = list(columns) if columns is not None else next(rows, (1, []))[1]
    twice = [show(name) for name, times in Counter(names).items() if times > 1]
    if twice:
        raise DataError(f"{path}: the column {', '.join(twice)} comes more than once. Rename one, or give `columns`.")
    table, problems = [], []
    for number, fields in rows:
        if len(fields) == len(names):
            table.append(dict(zip(names, fields, strict=True)))
        else:
            problems.append(f"line {number}: {len(fields)} fields: {show(chr(9).join(fields))}")
    return _sound(path, table, problems, f"{len(names)} fields a line, {', '.join(map(show, names))}")


def _sound(path: Path, records: list, problems: list[str], expected: str) -> list:
    """The records, if there are any and no problems."""
    if problems:
        raise DataError(f"{path}: expected {expected}; found\n{listing(problems)}")
    if not records:
        raise DataError(f"{path}: expected {expected}; the file holds none. Is it the right file?")
    return records


def _lines(path: Path, encoding: str) -> Iterator[tuple[int, str]]:
    """Numbered lines without their ends, and without the blank ones at the end of the file."""
    lines = _text(path, encoding).split("\n")
    while lines and not lines[-1].strip(" \r"):
        lines.pop()
    return ((number, line.removesuffix("\r")) for number, line in enumerate(lines, 1))


def _text(path: Path, encoding: str) -> str:
    try:
        with open_file(path) as file:
            data = file.read()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error}).") from error
    try:
        return data.decode(encoding).removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"{path}, line {line}: not {encoding}: byte {error.start} of the file is 0x{data[error.start]:02x}. Name "
            "the right encoding, such as encoding='gb18030' for older Chinese files."
        ) from None
    except LookupError:
        raise DataError(f"encoding: Python knows no {encoding!r}.") from None
