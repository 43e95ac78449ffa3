"""Every parser against mutated valid documents (hypothesis): nothing but the documented refusal comes out.

A short run by default; NFTCNI_FUZZ_EXAMPLES=200000 pytest tests/fuzz/test_parsers.py is the long one. The same targets
run under atheris in coverage_guided.py.
"""

from __future__ import annotations

import json
import os
from typing import Any

import pytest
from fuzz.targets import TARGETS
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.scratch import network, port

from cni import wire
from cni.ip import parse_prefix
from cni.record import Attachment, Lease, to_document
from nft import wire as nft_wire
from nft.elements import attachment_elements

EXAMPLES = int(os.environ.get("NFTCNI_FUZZ_EXAMPLES", "2000"))
LEASES = (Lease(parse_prefix("10.88.0.2/24")), Lease(parse_prefix("fd00:88::2/64")))
ITEM = Attachment("net0", "c1", "eth0", "/run/netns/c1", "br-net0", b"\2\0\0\0\0\1", leases=LEASES)
CONFIG = network("net0", "10.88.0.0/24", "fd00:88::/64", ports=[port(8080, 80)], mtu=1400)
CONFIG["ipam"]["routes"] = [{"dst": "10.0.0.0/8", "gw": "10.88.0.1", "mtu": 1400}]
CONFIG["runtimeConfig"].update(ips=["10.88.0.9"], mac="02:00:00:00:00:09", dns={"nameservers": ["10.0.0.1"]})
CONFIG["args"] = {"cni": {"ips": ["10.88.0.9/24"], "mac": "02:00:00:00:00:09"}}
WORDS = ("10.88.0.0/24", "::1", "fd00::/130", "eth0", "", "\ud800", "\0", "tcp", "1.2.3.4/99", "٣", "a" * 300)
LEAVES = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=20), st.sampled_from(WORDS), st.just([])
)
VALUES = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3), max_leaves=5
)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path to every value inside a document."""
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(found for key, item in inside for found in places(item, (*path, key)))]


@st.composite
def mutated(draw: st.DrawFn, document: Any) -> bytes:
    changed = json.loads(json.dumps(document))
    for path in draw(st.lists(st.sampled_from(places(document)[1:]), min_size=1, max_size=3)):
        parent = changed
        try:
            for key in path[:-1]:
                parent = parent[key]
            parent[path[-1]] = draw(VALUES)
        except (KeyError, IndexError, TypeError):
            continue  # an earlier change took the place away
    return json.dumps(changed).encode()


@st.composite
def spliced(draw: st.DrawFn, valid: bytes) -> bytes:
    start = draw(st.integers(0, len(valid)))
    end = draw(st.integers(start, len(valid)))
    return valid[:start] + draw(st.binary(max_size=20)) + valid[end:]


RECORD = to_document(ITEM)
LINK = wire.new_veth("vethx", b"\2\0\0\0\0\1", 1400, 3, "eth0", b"\2\0\0\0\0\2", 5)
ELEMENTS = [payload for _kind, _flags, payload in nft_wire.adding(attachment_elements(ITEM), exclusive=True)]
INPUTS: dict[str, st.SearchStrategy[bytes]] = {
    "configuration": mutated(CONFIG) | spliced(json.dumps(CONFIG).encode()),
    "record": mutated(RECORD) | spliced(json.dumps(RECORD).encode()),
    "json_text": mutated(CONFIG) | spliced(json.dumps(CONFIG).encode()) | st.binary(),
    "arguments": spliced(b"IgnoreUnknown=1;IP=10.88.0.9;MAC=02:00:00:00:00:09;K8S_POD_NAME=x") | st.binary(),
    "netlink": st.one_of(st.binary(), spliced(wire.message(16, 0, 1, LINK)), *map(spliced, [LINK, *ELEMENTS])),
    "table_elements": st.binary(max_size=200),
}


@pytest.mark.parametrize("name", TARGETS)
def test_only_documented_refusals(name: str, figures: dict[str, int]) -> None:
    @settings(max_examples=EXAMPLES, deadline=1000, database=None, suppress_health_check=list(HealthCheck))
    @given(INPUTS[name])
    def run(data: bytes) -> None:
        figures["inputs"] += 1
        TARGETS[name](data)

    figures["parsers"] += 1
    run()
