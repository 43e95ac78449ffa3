"""Every parser under coverage-guided fuzzing for a few seconds, and under mutations of documents that are right.

NFTCNI_FUZZ_SECONDS=3600 makes a long run of it.
"""

from __future__ import annotations

import copy
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.scratch import network, port
from tally import TALLY

from cni.model.attachment import Attachment, Lease, from_document, to_document
from cni.model.config import parse_network
from cni.model.ports import PortMapping
from cni.protocol.errors import CniError
from cni.protocol.jsontext import dumps
from cni.protocol.request import Request
from cni.protocol.spec import Route, error_document
from nft import libnftables as library
from nft.addresses import parse_address, parse_prefix

SECONDS = int(os.environ.get("NFTCNI_FUZZ_SECONDS", "8"))
EXAMPLES = SECONDS * 100
FUZZER = Path(__file__).with_name("coverage_guided.py")
RECORD = Attachment(
    *("net0", "c1", "eth0", "/run/netns/c1", "br-net0", bytes.fromhex("020000000001")),
    leases=(Lease(parse_prefix("10.88.0.2/24"), parse_address("10.88.0.1")),),
    routes=(Route(parse_prefix("0.0.0.0/0"), parse_address("10.88.0.1"), (("mtu", 1400),)),),
    mappings=(PortMapping("tcp", parse_address("::"), 8080, 80),),
)
SEEDS = {
    "configuration": [
        b'{"bridge":"br0","ipam":{"ranges":[[{"subnet":"10.0.0.0/24","rangeStart":"10.0.0.9","gateway":"10.0.0.1"}]],'
        b'"routes":[{"dst":"0.0.0.0/0","gw":"10.0.0.1","mtu":1400}]},"runtimeConfig":{"portMappings":[{"hostPort":80,'
        b'"containerPort":80,"protocol":"tcp","hostIP":"127.0.0.1"}],"ips":["10.0.0.5/24"],"mac":"02:00:00:00:00:01"}}',
        b'{"sysctl":{"net.ipv4.conf.IFNAME.arp_filter":"1"},"mtu":1400,"args":{"cni":{"ips":["fd00::1"]}}}',
    ],
    "record": [dumps(to_document(RECORD)).encode()],
    "arguments": [b"IP=10.0.0.1;MAC=02:00:00:00:00:01;IgnoreUnknown=1;K8S_POD_NAME=x"],
    "netlink": [bytes.fromhex("1c00000010000500010000000000000000000000010000000100000001000000")],
    "table": [b"net0/c1/eth0"],
    "claims": [
        b"0.0.0.0=net0/c1/eth0",
        b"?::=net0/c1/eth0\n127.0.0.1=net0/c2/eth0",
        b"FLANNEL_NETWORK=10.1.0.0/16,10.2.0.0/16\nFLANNEL_SUBNET=10.1.1.1/24\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=true",
        b"nameserver 192.0.2.1\nsearch a b",
    ],
}


@pytest.mark.parametrize("target", SEEDS)
def test_coverage_guided(tmp_path: Path, target: str) -> None:
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    for number, seed in enumerate(SEEDS[target]):
        (corpus / str(number)).write_bytes(seed)
    words = [sys.executable, str(FUZZER), target, f"-max_total_time={SECONDS}", "-timeout=10", str(corpus)]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=SECONDS + 120, check=False)
    found = re.search(r"Done (\d+) runs", done.stderr)
    assert done.returncode == 0 and found, done.stderr[-3000:]
    TALLY["inputs"] += int(found.group(1))
    TALLY["parsers"] += 1


VALID = [
    network("net0", "10.88.0.0/24", "fd00:88::/64", ports=[port(8080, 80), port(53, 53, "udp", "127.0.0.1")]),
    network(
        ipam={"type": "host-local", "subnet": "10.0.0.0/24", "routes": [{"dst": "0.0.0.0/0", "gw": "10.0.0.1"}]},
        runtimeConfig={"ips": ["10.0.0.9"], "mac": "02:00:00:00:00:01", "dns": {"servers": ["192.0.2.1"]}},
        args={"cni": {"ips": ["10.0.0.8"], "mac": "02:00:00:00:00:02"}},
        mtu=1400,
    ),
]
ODD = st.sampled_from(
    [
        None,
        True,
        0,
        -1,
        65536,
        1 << 70,
        1.5,
        "",
        "x",
        "10.0.0.1",
        "::1",
        "a/b",
        "\0",
        "é" * 300,
        [],
        {},
        [[]],
        [{}],
        {"": 1},
    ]
)


def spots(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The way to every value of a document."""
    found = [path]
    if isinstance(value, dict):
        for key in value:
            found += spots(value[key], (*path, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            found += spots(item, (*path, index))
    return found


def altered(document: Any, path: tuple[Any, ...], value: Any) -> Any:
    result = copy.deepcopy(document)
    place = result
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    return result


@settings(max_examples=EXAMPLES, deadline=None, database=None)
@given(st.sampled_from(VALID), st.data())
def test_configurations_altered_in_one_place(document: Any, data: Any) -> None:
    path = data.draw(st.sampled_from([path for path in spots(document) if path]))
    broken = altered(document, path, data.draw(ODD))
    try:
        parse_network(Request("ADD", "", "c1", "", "eth0", {}, (), "1.1.0", "net0", "/run/nftcni", broken))
    except CniError as error:
        assert error.code in (2, 7) and error.msg


@settings(max_examples=EXAMPLES, deadline=None, database=None)
@given(st.data())
def test_records_altered_in_one_place(data: Any) -> None:
    document = to_document(Attachment("net0", "c1", "eth0", "/run/netns/c1", "br0", bytes.fromhex("020000000001")))
    path = data.draw(st.sampled_from([path for path in spots(document) if path]))
    try:
        item = from_document(altered(document, path, data.draw(ODD)))
    except ValueError:
        return
    assert from_document(to_document(item)) == item


@settings(max_examples=EXAMPLES // 4, deadline=None, database=None)
@given(st.text(st.characters(exclude_categories=()), min_size=1))
def test_whatever_nft_says_reaches_the_runtime_as_json(words: str) -> None:
    """It is passed on, not parsed; the library's text comes out of a child process, byte by byte."""
    with mock.patch.object(library, "_load", side_effect=library._Refused(words)), pytest.raises(CniError) as caught:
        library.run_text("")
    document = json.loads(dumps(error_document(caught.value, "1.0.0")))
    said = words.encode("utf-8", "replace").decode().strip()
    assert document["code"] == 5 and (said or "exit status 1") in document["msg"]
