"""JSON text in and out against the standard json module: the same documents taken and refused, the same values.

Where RFC 8259 is stricter than the standard module (NaN, Infinity) or a limit of ours holds, that is said by a test.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cni.protocol import jsontext

SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
JSON = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)


def standard(text: str) -> tuple[bool, Any]:
    """(taken, value) by the standard module without its extensions."""

    def refuse(name: str) -> None:
        raise ValueError(name)

    def number(digits: str) -> float:
        if float(digits) in (float("inf"), -float("inf")):
            raise ValueError(digits)
        return float(digits)

    try:
        return True, json.loads(text, parse_constant=refuse, parse_float=number)
    except (ValueError, RecursionError):
        return False, None


def ours(text: str) -> tuple[bool, Any]:
    try:
        return True, jsontext.loads(text)
    except ValueError:
        return False, None


def same(one: Any, other: Any) -> bool:
    """Equal to the type, so that 1 is not 1.0 and not true."""
    return repr(one) == repr(other)


@given(JSON, st.sampled_from([None, 1, "\t"]), st.booleans())
def test_written_by_the_standard_module(value: Any, indent: Any, ascii_only: bool) -> None:
    text = json.dumps(value, indent=indent, ensure_ascii=ascii_only)
    assert same(ours(f" \t\r\n{text}\n ")[1], value)


@given(JSON)
def test_read_by_the_standard_module(value: Any) -> None:
    text = jsontext.dumps(value)
    assert same(json.loads(text), value) and text.isascii() and "\n" not in text


@given(JSON, st.data())
def test_a_damaged_document_is_taken_or_refused_alike(value: Any, data: Any) -> None:
    """One character less, or another one in its place."""
    text = json.dumps(value, ensure_ascii=False)
    place = data.draw(st.integers(0, len(text) - 1))
    other = data.draw(
        st.sampled_from(["", '"', "\\", "\n", "\0", ",", ":", "]", "}", "[", "0", "-", ".", "e", "/", "'"])
    )
    damaged = text[:place] + other + text[place + 1 :]
    assert same(ours(damaged), standard(damaged)), damaged


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            " ",
            "{",
            "[1,]",
            '{"a":1,}',
            "{'a':1}",
            "{a:1}",
            "[1 2]",
            '{"a" 1}',
            "01",
            "+1",
            ".5",
            "1.",
            "1e",
            "0x1",
        ),
        *("True", "nul", '"\t"', '"\\x"', '"\\u12"', '"a', "[]]", "1 2", "// c\n1", "\ufeff{}", "\v1", "\xa01"),
        *('"\\ud800"', '"\\ud83d\\ude00"', "-0", "-0.0", "1E5", "[]", "{}", '""', "1" * 4300, "1" * 4301, '"\x7f"'),
    ],
    ids=lambda text: repr(text[:20]),
)
def test_corner_cases(text: str) -> None:
    assert same(ours(text), standard(text))


@pytest.mark.parametrize("text", ["NaN", "[Infinity]", '{"a": -Infinity}', "nan", "inf"])
def test_what_is_no_json_though_python_takes_it(text: str) -> None:
    assert ours(text) == (False, None)


@pytest.mark.parametrize("text", ["1e999", "[-1e999]", '{"a": 1e400}'])
def test_numbers_beyond_a_double(text: str) -> None:
    """Go's decoder refuses them as well; what Python makes of them, `inf`, no other program could read again."""
    assert ours(text) == (False, None)


@pytest.mark.parametrize("text", ["1e999", "1e-999", "1e308", "123456789012345678901234567890", '"\\ud800"'])
def test_what_is_taken_can_be_given_back(text: str) -> None:
    """A chained plugin hands prevResult on as it came."""
    taken, value = ours(text)
    if taken:
        assert same(standard(jsontext.dumps(value)), (True, value))


def test_the_last_of_two_equal_keys_wins() -> None:
    """As in the standard module and in Go's."""
    text = '{"a": 1, "b": 2, "a": {"c": 3, "c": 4}}'
    assert same(jsontext.loads(text), json.loads(text)) and jsontext.loads(text) == {"a": {"c": 4}, "b": 2}


@pytest.mark.parametrize("pair", ["[]", "{}"])
def test_nesting_has_a_limit(pair: str) -> None:
    """64 levels; neither a recursion error nor a crash of the C scanner beyond."""
    opening = "[" if pair == "[]" else '{"a":'
    for depth in (1, 63, 64, 65, 100000):
        text = opening * depth + "0" + pair[1] * depth
        assert ours(text)[0] is (depth <= 64), depth


def test_a_wide_document_is_not_deep() -> None:
    assert jsontext.loads("[" + ",".join(["[]"] * 1000) + "]") == [[]] * 1000


def test_messages_say_where() -> None:
    with pytest.raises(ValueError, match=r"character 4|char 2"):  # Python 3.13 finds the comma itself
        jsontext.loads("[1, ]")
    with pytest.raises(ValueError, match="character 2"):
        jsontext.loads("{}x")


@pytest.mark.parametrize("value", [object(), b"x", {1, 2}], ids=["object", "bytes", "set"])
def test_other_types_have_no_form(value: Any) -> None:
    with pytest.raises(TypeError):
        jsontext.dumps([value])
