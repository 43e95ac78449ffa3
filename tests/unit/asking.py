"""Requests as `cni.request` reads them, but without a process: what tests of configurations start from."""

from __future__ import annotations

import json
from typing import Any

import pytest

from cni.model.config import Network, parse_network
from cni.protocol.errors import CniError
from cni.protocol.jsontext import loads
from cni.protocol.request import Request

SUBNET = {"ranges": [[{"subnet": "10.88.0.0/24"}]]}


def request(document: dict[str, Any], *, version: str = "1.1.0", role: str = "", **args: str) -> Request:
    """An ADD with this configuration, through JSON text as it comes; `args` are the pairs of CNI_ARGS."""
    decoded = loads(json.dumps(document))
    assert isinstance(decoded, dict)
    return Request(
        verb="ADD",
        role=role,
        container="c1",
        netns="/run/netns/c1",
        ifname="eth0",
        args=args,
        path=("/nonexistent",),
        version=version,
        network="net0",
        data_dir="/run/nftcni",
        document=decoded,
    )


def parsed(document: dict[str, Any], **options: str) -> Network:
    """The configuration with one IPv4 range unless it says something else about addresses."""
    return parse_network(request({"ipam": SUBNET, **document}, **options))


def refusal(document: dict[str, Any], **options: str) -> CniError:
    with pytest.raises(CniError) as caught:
        parsed(document, **options)
    return caught.value
