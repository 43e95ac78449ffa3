"""Wrong types at every key that is ours, by table: ADD refuses and names key and value, DEL still removes.

Values of the right type that make no sense are test_bad_input, hosts that cannot serve are test_bad_hosts and
test_bad_input_hosts.
"""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from support.scratch import Host, Json, network

INVALID = 7
SAMPLES: dict[str, Json] = {"flag": True, "number": 7, "text": "x", "list": [5], "object": {"x": 1}}
# A configuration that uses all of it; what stands in the table below is replaced in a copy of this one.
WHOLE: Json = {
    **network("net0", dns={"nameservers": ["192.0.2.53"], "search": ["x"], "options": ["ndots:1"], "domain": "x"}),
    "ipam": {
        "type": "host-local",
        "ranges": [
            [{"subnet": "10.88.0.0/24", "rangeStart": "10.88.0.5", "rangeEnd": "10.88.0.9", "gateway": "10.88.0.1"}]
        ],
        "routes": [{"dst": "192.0.2.0/24", "gw": "10.88.0.1", "mtu": 1400, "advmss": 1360, "priority": 7}],
    },
    "args": {"cni": {"ips": ["10.88.0.6"]}},
    "runtimeConfig": {
        "portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp", "hostIP": ""}],
        "ipRanges": [[{"subnet": "10.99.0.0/24"}]],
        "ips": ["10.99.0.9"],
        "mac": "02:00:00:00:00:09",
        "dns": {"servers": ["192.0.2.1"], "searches": ["x"], "options": ["ndots:1"]},
    },
}
# the kind a key must have: the keys, by their place in the document
KINDS: dict[str, list[str]] = {
    "flag": [
        *("isGateway", "isDefaultGateway", "forceAddress", "ipMasq", "hairpinMode", "isolation", "portIsolation"),
        *("enabledad", "disableContainerInterface"),
    ],
    "number": [
        *("mtu", "ipam.routes.0.mtu", "ipam.routes.0.advmss", "ipam.routes.0.priority", "ipam.routes.0.table"),
        *("ipam.routes.0.scope", "runtimeConfig.portMappings.0.hostPort", "runtimeConfig.portMappings.0.containerPort"),
    ],
    "text": [
        *("bridge", "ingressPolicy", "dataDir", "ipam.type", "ipam.subnet", "ipam.resolvConf"),
        *("ipam.ranges.0.0.subnet", "ipam.ranges.0.0.rangeStart", "ipam.ranges.0.0.rangeEnd"),
        *("ipam.ranges.0.0.gateway", "ipam.routes.0.dst", "ipam.routes.0.gw", "runtimeConfig.mac", "args.cni.mac"),
        *("runtimeConfig.portMappings.0.protocol", "runtimeConfig.portMappings.0.hostIP"),
        *("runtimeConfig.ipRanges.0.0.subnet", "runtimeConfig.ips.0", "args.cni.ips.0"),
        *("runtimeConfig.dns.servers.0",),
    ],
    "list": [
        *("ipam.ranges", "ipam.ranges.0", "ipam.routes", "runtimeConfig.portMappings", "runtimeConfig.ips"),
        *("runtimeConfig.ipRanges", "runtimeConfig.ipRanges.0", "args.cni.ips", "runtimeConfig.dns.servers"),
        *("runtimeConfig.dns.searches", "runtimeConfig.dns.options", "prevResult.ips", "prevResult.interfaces"),
    ],
    "object": [
        *("ipam", "dns", "runtimeConfig", "args", "args.cni", "ipam.ranges.0.0", "ipam.routes.0", "prevResult"),
        *("runtimeConfig.portMappings.0", "runtimeConfig.ipRanges.0.0", "runtimeConfig.dns", "prevResult.ips.0"),
    ],
}
KEYS = [(kind, place) for kind, places in KINDS.items() for place in places]
NAMES = [("dns.nameservers", "list"), ("dns.search", "list"), ("dns.options", "list"), ("dns.domain", "text")]


def replaced(config: Json, place: str, value: Json) -> Json:
    """A copy with another value at a place like `ipam.ranges.0`; objects on the way are made."""
    changed = copy.deepcopy(config)
    item: Any = changed
    *way, last = place.split(".")
    for step, following in zip(way, [*way[1:], last]):
        if isinstance(item, list):
            item = item[int(step)]
        else:
            item = item.setdefault(step, [None] if following.isdigit() else {})
    if isinstance(item, list):
        item[int(last)] = value
    else:
        item[last] = value
    return changed


def wrong_values(kind: str) -> list[Json]:
    return [value for name, value in SAMPLES.items() if name != kind]


def named(place: str) -> str:
    """The last key in the place, which the message must hold."""
    return next(step for step in reversed(place.split(".")) if not step.isdigit())


def refuse_all(host: Host, config: Json, place: str, kind: str) -> None:
    host.container("c1")
    before = host.snapshot()
    for value in wrong_values(kind):
        answer = host.cni("ADD", replaced(config, place, value))
        assert answer.code == INVALID, f"{value}: {answer.stdout}"
        assert named(place) in answer.words, answer.words
        shown = json.dumps(value, separators=(",", ":"))
        # A list where an object belongs may be refused for what is in it, and it is that which is shown then.
        assert shown in answer.words or (value == [5] and "5" in answer.words), answer.words
        assert answer.stderr == ""
    assert host.snapshot() == before


@pytest.mark.parametrize(("kind", "place"), KEYS, ids=lambda value: str(value))
def test_add_refuses_every_other_type(host: Host, kind: str, place: str) -> None:
    refuse_all(host, WHOLE, place, kind)


@pytest.mark.parametrize(("place", "kind"), NAMES)
def test_names_of_the_configuration(host: Host, place: str, kind: str) -> None:
    """Without the runtime's `dns`, which wins over the configuration's."""
    refuse_all(host, network(), place, kind)


def test_the_whole_configuration_itself_is_good(host: Host) -> None:
    """Else the refusals above would prove nothing."""
    result = host.add(replaced(WHOLE, "args.cni.ips", ["10.88.0.6"]))
    assert [item["address"] for item in result["ips"]] == ["10.99.0.9/24", "10.88.0.6/24"]


@pytest.mark.parametrize("version", [5, True, [], {}])
def test_a_version_of_another_type(host: Host, version: Json) -> None:
    """libcni cannot decode such a document; what matters is that it is refused as one of these, by name."""
    host.container("c1")
    answer = host.refused("ADD", {**network(), "cniVersion": version})
    assert answer.code in (1, 6, 7) and "cniVersion" in answer.words
    assert answer.document["cniVersion"] == "1.1.0"


DEL_KEYS = [(kind, place) for kind, place in KEYS if place != "dataDir"]


@pytest.mark.parametrize("netns", [None, ""], ids=["netns", "empty"])
def test_del_removes_with_every_wrong_type(host: Host, netns: str | None) -> None:
    host.container("c1")
    before = host.snapshot()
    for kind, place in DEL_KEYS:
        for value in wrong_values(kind):
            host.delete(replaced(WHOLE, place, value), netns=netns)
        host.add(WHOLE)
        assert host.elements()["attachments"]
        host.delete(replaced(WHOLE, place, wrong_values(kind)[-1]), netns=netns)
        assert (place, host.snapshot()) == (place, before)


@pytest.mark.parametrize("place", ["ipam", "ipam.ranges", "ipam.ranges.0.0.subnet", "bridge", "ipMasq", "mtu"])
@pytest.mark.parametrize("verb", ["CHECK", "STATUS"])
def test_verbs_that_read_the_configuration_refuse_it_too(host: Host, verb: str, place: str) -> None:
    result = host.add(network())
    answer = host.refused(verb, {**replaced(network(), place, 5.5), "prevResult": result})
    assert answer.code == INVALID and named(place) in answer.words and "5.5" in answer.words


@pytest.mark.parametrize("place", ["ipam", "ipam.ranges", "bridge", "mtu", "runtimeConfig"])
def test_gc_collects_with_any_configuration(host: Host, place: str) -> None:
    """It takes away what DEL would have, so it needs no more than DEL does."""
    host.container("c1")
    before = host.snapshot()
    host.add(network())
    answer = host.cni("GC", {**replaced(network(), place, 5.5), "cni.dev/valid-attachments": []})
    assert answer.status == 0, answer.stdout
    assert host.snapshot() == before
