"""gin files are read as data: bindings of literals, nothing run, and refused with little work where they are none."""

from __future__ import annotations

import ast
import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import FIXTURES
from tests.refusals import calls
from tfloader.errors import ConfigError
from tfloader.naming.gin import MAX_BINDING, parse_gin


def test_gin_values_of_every_kind_are_read():
    text = """
# Macros:
import mesh_tensorflow.optimize
n = 3
rate = 1e-06
a/B.list = \\
    [@transformer.sublayer_rms_norm,
     @x.y.Last(), %n]  # with a comment (and a bracket
a/B.n = %n
a/B.text = 'a # b [ @c %d = e'
a/B.quoted = "it's"
a/B.both = ('tokens', 65_536)
a/B.none = None
a/B.dict = {'inputs': 512}
a/B.negative = -1.5
a/B.rate = %rate
"""
    assert parse_gin(text, "x") == {
        "n": 3,
        "rate": 1e-6,
        "a/B.list": ["sublayer_rms_norm", "Last", 3],
        "a/B.n": 3,
        "a/B.text": "a # b [ @c %d = e",
        "a/B.quoted": "it's",
        "a/B.both": ("tokens", 65536),
        "a/B.none": None,
        "a/B.dict": {"inputs": 512},
        "a/B.negative": -1.5,
        "a/B.rate": 1e-6,
    }
    assert parse_gin(text.replace("\n", "\r\n"), "x") == parse_gin(text, "x")


GIN_FAULTS = {
    "an expression": ("a = __import__('os').system('touch /tmp/tfloader-was-here')", "line 1.*not understood"),
    "arithmetic": ("a = 9 ** 9 ** 9", "line 1.*not understood"),
    "a call": ("a = open('x')", "not understood"),
    "a comprehension": ("a = [x for x in 'ab']", "not understood"),
    "a formatted string": ("a = f'{1}'", "not understood"),
    "a set of lists": ("a = {[1]}", "not understood"),
    "an include": ("include 'base.gin'", "line 1 includes another file.*operative_config.gin"),
    "no binding": ("x = 1\nhello world\n", "line 2 is not a gin binding: 'hello world'"),
    "a strange name": ("a b = 1", "not a gin binding"),
    "no value": ("a =", "not understood"),
    "an unknown macro": ("a = %b", "%b is used but never set"),
    "a macro of itself": ("a = %b\nb = %a", "refers to itself"),
    "bytes": ("a = b'\\xff'", "never set"),
    "an open list": ("a = [1,\n2\n", "not closed.*cut off"),
    "an open string": ("a = 'x\n", "line 1 is not understood"),
    "a bracket too many": ("a = [1]]", "do not match"),
    "a huge integer": ("a = " + "9" * 10_000, "not understood"),
    "macros that multiply": (
        "\n".join(f"m{i} = [{', '.join([f'%m{i + 1}'] * 50)}]" for i in range(9)) + "\nm9 = [1]",
        "a macro within a list stands for a list",
    ),
    "10^5 brackets": ("a = " + "[" * 10**5, "brackets"),
    "30 brackets": ("a = " + "[" * 30 + "]" * 30, "brackets"),
    "10^5 pairs of brackets": ("a = " + "[" * 10**5 + "]" * 10**5, "brackets"),
    "10^5 brackets one a line": ("a = " + "[\n" * 10**5, "brackets"),
    "a list of 10^5 lines": ("a = [\n" + "1,\n" * 10**5, "too much"),
    "10^4 signs": ("a = " + "-" * 10**4 + "1", "not understood"),
    "10^4 sums": ("a = 1" + "+1" * 9_000, "not understood"),
    "10^6 spaces": ("a = 1" + " " * 10**6 + "x", "too much"),
    "10^6 quotes": ("a = " + "'" * 10**6, "too much"),
    "an open string of 10^6": ("a = '" + "x" * 10**6, "not understood"),
    "10^6 at signs": ("a = " + "@" * 10**6, "not understood"),
    "NUL": ("a = 'a\0b'", "not understood"),
}


@pytest.mark.parametrize("name", GIN_FAULTS)
def test_a_faulty_gin_file_is_refused_quickly_and_runs_nothing(name, monkeypatch):
    text, words = GIN_FAULTS[name]
    evaluate, evaluated = ast.literal_eval, []
    monkeypatch.setattr(ast, "literal_eval", lambda value: evaluated.append(len(value)) or evaluate(value))

    def parse():
        with pytest.raises(ConfigError, match=words) as caught:
            parse_gin(text, "some.gin")
        return str(caught.value)

    messages = []
    assert calls(lambda: messages.append(parse())) < 10_000 + 10 * len(text)
    assert max(evaluated, default=0) <= MAX_BINDING  # Python's parser never sees more
    assert messages[0].startswith("some.gin: ") and len(messages[0]) < 400


@given(
    st.text()
    | st.text("ab/.=%@[](){}'\"#\\\n ,-1e_:fr\r\t\0", max_size=60)
    | st.lists(
        st.sampled_from(["a", " = ", "%a", "@b.c", "[", "]", "'x'", ",", "\n", "1", "{", "}", ":", "#", "b'"])
    ).map("".join)
)
def test_any_text_is_either_refused_or_read_as_bindings(text):
    try:
        found = parse_gin(text, "x")
    except ConfigError:
        return
    assert isinstance(found, dict) and all(isinstance(name, str) for name in found)


@given(data=st.data())
def test_a_damaged_gin_file_is_either_refused_or_read_as_bindings(data):
    text = (FIXTURES / "configs" / "tiny_t5_mesh.gin").read_text()
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, min(len(text), start + 50)))
    with contextlib.suppress(ConfigError):
        parse_gin(text[:start] + data.draw(st.text(max_size=5)) + text[end:], "x")
