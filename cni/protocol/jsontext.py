"""JSON in and out without `import json`, which costs 6 ms because it imports `re`; its C scanner alone costs 0.6 ms.

Text to plain Python values and back; `config` and `spec` know what the values mean.
"""

from __future__ import annotations

from cni.stdlib import encode_basestring_ascii, json_scanner

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Union

    Json = Union[None, bool, int, float, str, list["Json"], dict[str, "Json"]]

SPACE = " \t\r\n"
NESTING_LIMIT = 64


def _parse_float(text: str) -> float:
    number = float(text)
    if number - number != 0:
        raise ValueError(f"{text} is beyond the range of numbers")
    return number


def _parse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON (RFC 8259 section 6)")


_scan = json_scanner(_parse_float, _parse_constant)


def loads(text: str) -> Json:
    """The value of one JSON document. Raises ValueError that names the place of the mistake."""
    if text.count("[") + text.count("{") > NESTING_LIMIT and _depth(text) > NESTING_LIMIT:
        raise ValueError(f"nested deeper than {NESTING_LIMIT} levels")
    start = len(text) - len(text.lstrip(SPACE))
    try:
        value, end = _scan(text, start)
    except StopIteration as stop:
        raise ValueError(f"no value at character {stop.value}") from None
    except SystemError:  # the C scanner takes its exception class from json.decoder, which is not imported
        import json

        value, end = json.JSONDecoder().raw_decode(text, start)
    if text[end:].strip(SPACE):
        raise ValueError(f"more text after the document at character {end}")
    return value  # type: ignore[no-any-return]


def _depth(text: str) -> int:
    """An upper bound of the nesting. Brackets inside strings count too, which can only refuse too much."""
    depth = deepest = 0
    for part in text.replace("[", "{").replace("]", "}").split("}"):
        depth += part.count("{")
        deepest = max(deepest, depth)
        depth -= 1
    return deepest


def dumps(value: object) -> str:
    """One line of JSON from None, bool, int, float, str, and lists, tuples and dicts of them. Raises TypeError for
    others."""
    if isinstance(value, str):
        return str(encode_basestring_ascii(value))
    if value is None:
        return "null"
    if value is True or value is False:
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return repr(value)
    if isinstance(value, dict):
        return "{" + ",".join(f"{encode_basestring_ascii(key)}:{dumps(item)}" for key, item in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ",".join(map(dumps, value)) + "]"
    raise TypeError(f"{type(value).__name__} has no JSON form")
