"""`nftcni check`: each mistake with its line and column, and what ADD would say in its own words."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cni.operate.lint import lint

ROOT = Path(__file__).resolve().parents[2]
GOOD = """{
  "cniVersion": "1.0.0",
  "name": "web",
  "plugins": [
    {
      "type": "nftcni",
      "bridge": "br0",
      "ipMasq": true,
      "capabilities": {"portMappings": true},
      "ipam": {"ranges": [[{"subnet": "10.4.0.0/24", "rangeStart": "10.4.0.9"}]]}
    }
  ]
}
"""
# Python 3.13 points at the comma itself.
SINCE_313 = {"a comma at the end": (10, 82)}
MISTAKES: dict[str, tuple[str, str, int, int, str, str]] = {  # replace, by, line, column, level, words
    "a comma too many": ('"1.0.0",\n', '"1.0.0",,\n', 2, 25, "error", "no JSON"),
    "a comma at the end": ('"10.4.0.9"}]]}\n', '"10.4.0.9"}]]},\n', 11, 5, "error", "a comma too many"),
    "a comment": ('"name"', '// mine\n  "name"', 3, 3, "error", "no comments"),
    "a key twice": ('"bridge": "br0",', '"bridge": "br0",\n      "bridge": "br1",', 8, 7, "error", "twice"),
    "the type misspelt": ('"nftcni"', '"nftnci"', 6, 15, "error", 'is "nftcni" meant?'),
    "an unknown version": ('"1.0.0"', '"2.0.0"', 2, 3, "error", "not known"),
    "a version that is a number": ('"1.0.0"', "1.0", 2, 3, "error", "not known"),
    "no name": ('"name": "web",\n', "", 1, 1, "error", 'no "name"'),
    "host bits": ("10.4.0.0/24", "10.4.0.1/24", 10, 29, "error", "did you mean 10.4.0.0/24?"),
    "a flag in quotes": ('"ipMasq": true', '"ipMasq": "true"', 8, 7, "error", "true or false"),
    "a long bridge": ('"br0"', '"a-very-long-bridge"', 7, 7, "error", "1 to 15 characters"),
    "what we do not do": ('"bridge": "br0"', '"bridge": "br0", "promisc": true', 7, 24, "error", "promisc"),
    "what no published port has": (
        *('"bridge": "br0"', '"bridge": "br0", "conditionsV6": ["-s", "fd00::/64"]', 7, 24),
        *("error", "conditionsV6"),
    ),
    "a key misspelt": ("ipMasq", "ipMasqq", 8, 7, "warning", 'is "ipMasq" meant?'),
    "another word for it": ('"bridge"', '"bridgeName"', 7, 7, "warning", 'is "bridge" meant?'),
    "singular": ('"ranges"', '"range"', 10, 16, "warning", 'is "ranges" meant?'),
    "in a range": ("rangeStart", "rangeStrt", 10, 54, "warning", 'is "rangeStart" meant?'),
    "no ports": ('"portMappings"', '"ips"', 6, 15, "warning", "silently drops published ports"),
    "capabilities misspelt": ('"portMappings": true', '"portMapings": true', 6, 15, "warning", "portMappings"),
}


def test_good() -> None:
    assert lint("/etc/cni/net.d/web.conflist", GOOD).findings == ()


@pytest.mark.parametrize("path", sorted(ROOT.joinpath("conf").rglob("*.conflist")), ids=lambda path: path.name)
def test_what_we_install_is_good(path: Path) -> None:
    assert [one for one in lint(str(path), path.read_text()).findings if one.level == "error"] == []


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_have_a_place(name: str) -> None:
    old, new, line, column, level, words = MISTAKES[name]
    assert old in GOOD
    findings = lint("/etc/cni/net.d/web.conflist", GOOD.replace(old, new, 1)).findings
    said = [(one.level, one.line, one.column, f"{one.text} {one.hint}") for one in findings]
    places = {(line, column), SINCE_313.get(name)}
    assert any(words in text and level == kind and (row, place) in places for kind, row, place, text in said), said


def test_keys_of_others_pass() -> None:
    document = json.loads(GOOD)
    document["plugins"][0]["x-mine"] = document["plugins"][0]["kubernetes"] = {}
    document["plugins"].append({"type": "bandwidth", "capabilities": {"bandwidth": True}})
    assert lint("a.conflist", json.dumps(document)).findings == ()


@pytest.mark.parametrize(
    "text", ["", "[]", "null", "7", '{"plugins": 3}', '{"plugins": [3, null]}', '{"plugins": [{"ipam": []}]}']
)
def test_nonsense_is_told_not_raised(text: str) -> None:
    assert lint("a.conflist", text).findings


@pytest.mark.parametrize(("text", "hint"), [("", "empty"), (" \n", "empty"), ("\ufeff{}", "byte order mark")])
def test_a_file_that_holds_no_json_at_all(text: str, hint: str) -> None:
    """It was a comma or a quote that was missing, before nothing."""
    (found,) = lint("/x.conflist", text).findings
    assert "no JSON" in found.text and hint in found.hint
