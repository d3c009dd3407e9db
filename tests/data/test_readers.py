"""The readers give what is in a file, or name the file, the line, what was found and what was expected."""

from __future__ import annotations

import csv
import json
import os

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tfloader import DataError, read_csv, read_jsonl, read_tagged, read_tsv


@pytest.fixture
def write(tmp_path):
    def write(content, name="task.txt"):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
        return path

    return write


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no named pipes")
@pytest.mark.parametrize("read", [read_tsv, read_csv, read_jsonl, read_tagged])
def test_a_pipe_is_refused_at_once(tmp_path, read):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(DataError, match=r"pipe: cannot be read .*named pipe"):
        read(tmp_path / "pipe")


# Tables


def test_tsv_takes_quotation_marks_for_text(write):
    path = write('text\tlabel\n他说"好\t1\n"\t0\n a\\tb \t\n')
    assert read_tsv(path) == [
        {"text": '他说"好', "label": "1"},
        {"text": '"', "label": "0"},
        {"text": " a\\tb ", "label": ""},
    ]


def test_tables_without_a_header_have_the_columns_that_are_given(write):
    assert read_tsv(write("a\tb\nc\td\n"), columns=["x", "y"]) == [{"x": "a", "y": "b"}, {"x": "c", "y": "d"}]
    assert read_csv(write("a,b"), columns=["x", "y"]) == [{"x": "a", "y": "b"}]


def test_csv_follows_rfc_4180(write):
    path = write('text,label\r\n"a, ""b""\r\n\r\nc", 1\r\nd"e,2\r\n')
    assert read_csv(path) == [{"text": 'a, "b"\r\n\r\nc', "label": " 1"}, {"text": 'd"e', "label": "2"}]
    assert read_csv(write("a;b\n1;2"), delimiter=";") == [{"a": "1", "b": "2"}]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.lists(st.text(max_size=5), min_size=2, max_size=2), min_size=1, max_size=4))
def test_csv_reads_back_what_python_wrote(tmp_path, rows):
    path = tmp_path / "any.csv"
    rows = [[field.encode("utf-8", "replace").decode() for field in row] for row in rows]
    with open(path, "w", encoding="utf-8", newline="") as file:
        csv.writer(file, quoting=csv.QUOTE_ALL).writerows(rows)
    assert [list(row.values()) for row in read_csv(path, columns=["x", "y"])] == rows


@pytest.mark.parametrize("read", [read_tsv, read_csv], ids=["tsv", "csv"])
def test_every_row_of_another_width_is_named(write, read):
    separator = "\t" if read is read_tsv else ","
    path = write(f"a{separator}b\n1{separator}2\nonly\n\n3{separator}4{separator}5\n")
    with pytest.raises(DataError) as error:
        read(path)
    message = str(error.value)
    assert message.startswith(f"{path}: expected 2 fields a line, 'a', 'b'; found\n")
    assert "line 3: 1 fields: 'only'" in message and "line 5: 3 fields: '3\\t4\\t5'" in message and "line 4" in message


def test_rows_of_csv_are_named_by_the_line_where_they_begin(write):
    with pytest.raises(DataError, match="line 4: 1 fields"):
        read_csv(write('a,b\n"x\ny",1\nz\n'))
    with pytest.raises(DataError, match="line 2: not CSV by RFC 4180"):
        read_csv(write('a,b\n"x"y,1\n'))
    with pytest.raises(DataError, match=r"field larger .* csv\.field_size_limit, or use read_tsv"):
        read_csv(write(f'a,b\n"{"x" * 200_000}",1\n'))


def test_a_column_that_comes_twice_is_refused(write):
    with pytest.raises(DataError, match="column 'a' comes more than once"):
        read_tsv(write("a\tb\ta\n1\t2\t3\n"))


# JSON lines


def test_json_lines_are_objects(write):
    objects = [{"text": "中\u2028文", "label": 1}, {"spans": [[0, 2, "x"]]}]
    path = write("".join(json.dumps(item, ensure_ascii=False) + "\r\n" for item in objects) + "\n\n")
    assert read_jsonl(path) == objects


@pytest.mark.parametrize(
    ("line", "reported"),
    [
        ("[1]", "found a JSON list"),
        ("{'a': 1}", "not valid JSON"),
        ("", "not valid JSON"),
        ('{"a": 1} {"a": 2}', "Extra data"),
        ('{"a": NaN}', "NaN is not valid JSON"),
        ('{"a": 1, "a": 2}', "'a' comes more than once"),
    ],
)
def test_lines_that_are_no_json_objects_are_named(write, line, reported):
    path = write(f'{{"a": 1}}\n{line}\n{{"a": 2}}\n{line}\n{{"a": 3}}\n')
    with pytest.raises(DataError) as error:
        read_jsonl(path)
    message = str(error.value)
    assert message.startswith(f"{path}: expected one JSON object a line; found")
    assert f"line 2: {message.split('line 2: ')[1].splitlines()[0]}" in message and "line 4: " in message
    assert reported in message


# Tagged words

EU = ("EU", "rejects", "call"), ("B-ORG", "O", "O")


def test_columns_of_conll_2003(write):
    text = "-DOCSTART- -X- -X- O\n\nEU NNP B-NP B-ORG\nrejects VBZ B-VP O\ncall  NN I-NP O\n\n\nPeter NNP B-NP B-PER\n"
    sentences = [(tuple(tokens), tuple(tags)) for tokens, tags in read_tagged(write(text))]
    assert sentences == [EU, (("Peter",), ("B-PER",))]
    assert read_tagged(write(text), tag=1)[0].tags == ["NNP", "VBZ", "NN"]


@pytest.mark.parametrize("blank", ["", "\t", "  ", " \t "])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_blank_lines_part_sentences_also_with_spaces_and_tabs_in_them(write, blank, end):
    lines = ["\ufeffEU\tB-ORG", "rejects\tO", "call\tO", blank, blank, "#\tO", blank, blank]
    sentences = [(tuple(tokens), tuple(tags)) for tokens, tags in read_tagged(write(end.join(lines)))]
    assert sentences == [EU, (("#",), ("O",))]


def test_odd_spaces_are_characters_where_tabs_separate_and_lines_end_at_line_feeds_alone(write):
    path = write("\u3000\tO\n\xa0\tB-a\na\u2028b\tO\n \tO\n")
    assert read_tagged(path)[0].tokens == ["\u3000", "\xa0", "a\u2028b", " "]
    assert read_tagged(write("\u3000 O\n中 B-a\n"))[0].tokens == ["\u3000", "中"]


def test_comments_are_left_out_when_their_beginning_is_given(write):
    text = "# id = 7 of 9\nEU\tB-ORG\n#\tO\n"
    assert read_tagged(write(text), comment="# ")[0].tokens == ["EU", "#"]
    with pytest.raises(DataError, match="line 2: 1 columns: 'EU"):
        read_tagged(write(text))


def test_every_line_without_word_or_tag_is_named(write):
    path = write("EU\tB-ORG\n\tO\nrejects\t\ncall\n\na\tb\tc\n")
    with pytest.raises(DataError) as error:
        read_tagged(path)
    assert str(error.value).startswith(f"{path}: expected 2 columns between tabs, with a word and its tag; found")
    assert all(f"line {number}: " in str(error.value) for number in (2, 3, 4, 6))


def test_tags_that_break_the_scheme_are_named_when_it_is_given(write):
    path = write("a\tB-x\nb\tI-x\n\n\nc\tO\nd\tI-x\n\ne\tS-x\n")
    assert len(read_tagged(path)) == 3
    with pytest.raises(DataError) as error:
        read_tagged(path, scheme="BIO")
    message = str(error.value)
    assert message.startswith(f"{path}: expected tags in BIO; found")
    assert "sentence from line 5: tags[1]: in BIO, 'I-x' cannot stand behind 'O'" in message
    assert "sentence from line 8: tags: expected O or a letter of BIO" in message and "line 1" not in message
    assert read_tagged(write("a\tB-x\nb\tE-x\n"), scheme="BIOES")[0].tags == ["B-x", "E-x"]


def test_plain_text_is_no_file_of_tagged_words(write):
    with pytest.raises(DataError, match="line 1: 1 columns: 'Hello'"):
        read_tagged(write("Hello\nworld\n"))


def test_columns_that_do_not_exist_are_refused(write):
    with pytest.raises(DataError, match="tag=3 are to be among the 2 columns"):
        read_tagged(write("EU O\n"), tag=3)


# All of them

READERS = pytest.mark.parametrize("read", [read_tsv, read_csv, read_jsonl, read_tagged], ids=lambda read: read.__name__)


@READERS
@pytest.mark.parametrize("content", ["", "\n\r\n\n"])
def test_files_without_content_are_refused(write, read, content):
    with pytest.raises(DataError, match="Is it the right file"):
        read(write(content))


@READERS
def test_wrong_encodings_name_the_line(write, read):
    path = write(b"a\tO\n" * 3 + "中文".encode("gb18030"))
    with pytest.raises(DataError, match=rf"{path.name}, line 4: not utf-8.*0xd6.*gb18030"):
        read(path)
    with pytest.raises(DataError, match="encoding: Python knows no 'utf-9'"):
        read(path, encoding="utf-9")


@READERS
def test_missing_files_are_named(tmp_path, read):
    with pytest.raises(DataError, match=r"none\.txt: cannot be read \(No such file"):
        read(tmp_path / "none.txt")


def test_other_encodings_can_be_read(write):
    assert read_tsv(write("文本\n中\n".encode("gb18030")), encoding="gb18030") == [{"文本": "中"}]
    assert read_tsv(write("文本\n中\n".encode("utf-16")), encoding="utf-16") == [{"文本": "中"}]
