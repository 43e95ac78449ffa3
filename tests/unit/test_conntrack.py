"""Which UDP flows are forgotten, and the message that does it, over flows that pyroute2 encodes.

The socket is replaced by one that answers with pyroute2's bytes and keeps ours, which pyroute2 then decodes: its codec
is the second implementation. The kernel's own table is in tests/kernel/test_conntrack.py.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from typing import Any, cast

import pytest
from pyroute2.netlink.nfnetlink.nfctsocket import nfct_msg

from cni.kernel import flows
from cni.model.ports import PortMapping
from nft.addresses import parse_address
from nft.errors import KernelError
from nft.framing import NLMSG, message
from nft.netlink import Netlink

HOST4, CLIENT4, OWN4, OLD4 = "198.51.100.1", "198.51.100.2", "10.88.0.2", "10.88.0.9"
HOST6, CLIENT6, OWN6 = "2001:db8::1", "2001:db8::2", "fd00:88::2"
UDP, TCP = 17, 6


def flow(target: str, source: str, port: int = 8053, *, number: int = 1, protocol: int = UDP, zone: int = 0) -> bytes:
    """A flow from a client to target:port that `source` answers."""
    six = ":" in target
    client = CLIENT6 if six else CLIENT4
    made = nfct_msg()
    made["nfgen_family"] = 10 if six else 2
    made["attrs"] = [
        ("CTA_TUPLE_ORIG", _tuple(client, target, 40000, port, protocol)),
        ("CTA_TUPLE_REPLY", _tuple(source, client, port, 40000, protocol)),
        ("CTA_ID", number),
    ]
    if zone:
        made["attrs"].append(("CTA_ZONE", zone))
    made.encode()
    return bytes(made.data)[NLMSG.size :]


def _tuple(source: str, target: str, sport: int, dport: int, protocol: int) -> dict[str, Any]:
    version = "V6" if ":" in source else "V4"
    ip = {"attrs": [(f"CTA_IP_{version}_SRC", source), (f"CTA_IP_{version}_DST", target)]}
    ports = [("CTA_PROTO_NUM", protocol), ("CTA_PROTO_SRC_PORT", sport), ("CTA_PROTO_DST_PORT", dport)]
    return {"attrs": [("CTA_TUPLE_IP", ip), ("CTA_TUPLE_PROTO", {"attrs": ports})]}


class Kernel:
    """Stands for the socket: lists `flows`, keeps what is to be deleted."""

    flows: list[bytes] = []
    gone: tuple[int, ...] = ()
    filters_deletions = False  # as before Linux 6.11

    def __init__(self, protocol: int) -> None:
        assert protocol == 12, "NETLINK_NETFILTER"
        type(self).deleted, type(self).dumps, type(self).closed = [], [], False

    deleted: list[Any]
    dumps: list[int]
    closed: bool

    def dump(self, kind: int, payload: bytes, containing: tuple[bytes, ...]) -> Iterator[bytes]:
        assert kind == 0x101, "IPCTNL_MSG_CT_GET"
        self.dumps.append(payload[0])
        found = [item for item in self.flows if item[0] == payload[0]]
        yield from [item for item in found if not containing or any(part in item for part in containing)]

    def ask(self, kind: int, payload: bytes) -> bytes:
        assert kind == 0x102, "IPCTNL_MSG_CT_DELETE"
        found = nfct_msg(message(kind, 0, 1, payload))
        found.decode()
        if found.get_attr("CTA_FILTER") and not self.filters_deletions:
            raise KernelError(errno.EINVAL, "a tuple without a protocol")
        self.deleted.append(found)
        if found.get_attr("CTA_ID") in self.gone:
            raise KernelError(errno.ENOENT, "gone")
        return b""

    def close(self) -> None:
        type(self).closed = True


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> type[Kernel]:
    monkeypatch.setattr(Kernel, "flows", [])
    monkeypatch.setattr(Kernel, "gone", ())
    return Kernel


def udp(host_ip: str = "0.0.0.0", port: int = 8053) -> PortMapping:
    return PortMapping("udp", parse_address(host_ip), port, 53)


def socket() -> Netlink:
    """The caller's, who goes on with it."""
    return cast(Netlink, Kernel(12))


def new_port(*mappings: PortMapping, local: bool = True) -> int:
    own = tuple(parse_address(text) for text in (OWN4, OWN6))
    return flows.forget_new_ports(socket(), mappings, own, lambda _address: local)


def numbers(kernel: type[Kernel]) -> list[int]:
    return [found.get_attr("CTA_ID") for found in kernel.deleted]


def test_the_deletion_as_pyroute2_reads_it(kernel: type[Kernel]) -> None:
    """The whole tuple, with ID and zone: never another flow of the same ends."""
    kernel.flows = [flow(HOST4, OLD4, number=0x01020304, zone=7)]
    assert new_port(udp()) == 1 and not kernel.closed
    (found,) = kernel.deleted
    assert found["nfgen_family"] == 2 and found.get_attr("CTA_TUPLE_REPLY") is None
    tuple_ = found.get_attr("CTA_TUPLE_ORIG")
    ip, ports = tuple_.get_attr("CTA_TUPLE_IP"), tuple_.get_attr("CTA_TUPLE_PROTO")
    assert (ip.get_attr("CTA_IP_V4_SRC"), ip.get_attr("CTA_IP_V4_DST")) == (CLIENT4, HOST4)
    names = ("CTA_PROTO_NUM", "CTA_PROTO_SRC_PORT", "CTA_PROTO_DST_PORT")
    assert [ports.get_attr(name) for name in names] == [UDP, 40000, 8053]
    assert (found.get_attr("CTA_ID"), found.get_attr("CTA_ZONE")) == (0x01020304, 7)


@pytest.mark.parametrize(
    ("made", "mapping", "wanted"),
    [
        (flow(HOST4, HOST4), udp(), [1]),
        (flow(HOST4, OLD4), udp(), [1]),
        (flow(HOST4, OWN4), udp(), []),
        (flow(HOST4, HOST4, 8054), udp(), []),
        (flow(HOST4, HOST4, protocol=TCP), udp(), []),
        (flow(HOST4, HOST4), udp(HOST4), [1]),
        (flow(HOST4, HOST4), udp("198.51.100.9"), []),
        (flow(HOST6, HOST6), udp("::"), [1]),
        (flow(HOST6, OWN6), udp("::"), []),
        (flow(HOST6, HOST6), udp("0.0.0.0"), []),
        (flow(HOST4, HOST4), udp("::"), []),
        (flow(HOST4, HOST4), PortMapping("tcp", parse_address("0.0.0.0"), 8053, 53), []),
    ],
    ids=[
        "host's",
        "another's",
        "own",
        "port",
        "tcp",
        "address",
        "other-address",
        "v6",
        "v6-own",
        "v4",
        "v6-any",
        "no-udp",
    ],
)
def test_flows_of_a_new_port(kernel: type[Kernel], made: bytes, mapping: PortMapping, wanted: list[int]) -> None:
    kernel.flows = [made]
    assert new_port(mapping) == len(wanted) and numbers(kernel) == wanted


def test_flows_through_this_host_are_left_alone(kernel: type[Kernel]) -> None:
    kernel.flows = [flow("203.0.113.5", "203.0.113.5")]
    assert new_port(udp(), local=False) == 0 and kernel.deleted == []


def test_one_pass_for_all_ports_of_a_family(kernel: type[Kernel]) -> None:
    """The reference portmap lists the whole table once for each port."""
    kernel.flows = [flow(HOST4, OLD4, 8000 + number, number=number) for number in range(1, 201)]
    assert new_port(*(udp(port=8000 + number) for number in range(1, 101))) == 100
    assert kernel.dumps == [2] and numbers(kernel) == list(range(1, 101))


def test_flows_that_outlive_a_container(kernel: type[Kernel]) -> None:
    kernel.flows = [
        flow(HOST4, OWN4, number=1),
        flow(HOST4, OLD4, number=2),
        flow(HOST4, HOST4, number=3),
        flow(HOST4, OWN4, 9999, number=4),
    ]
    flows.forget_addresses(socket(), (parse_address(OWN4),))
    assert numbers(kernel) == [1, 4]


def test_the_kernels_filter_as_pyroute2_reads_it(kernel: type[Kernel], monkeypatch: pytest.MonkeyPatch) -> None:
    """The source of either direction and nothing else of the tuple; no listing."""
    monkeypatch.setattr(kernel, "filters_deletions", True)
    flows.forget_addresses(socket(), (parse_address(OWN4),))
    seen = []
    for found in kernel.deleted:
        assert (found["nfgen_family"], found["version"]) == (2, 1)
        (side,) = (side for side in ("ORIG", "REPLY") if found.get_attr(f"CTA_TUPLE_{side}"))
        tuple_ = found.get_attr(f"CTA_TUPLE_{side}")
        assert tuple_.get_attr("CTA_TUPLE_PROTO") is None
        flags = [found.get_attr("CTA_FILTER").get_attr(f"CTA_FILTER_{name}_FLAGS") for name in ("ORIG", "REPLY")]
        seen.append((side, [tuple(one) for one in tuple_.get_attr("CTA_TUPLE_IP")["attrs"]], flags))
    assert seen == [("ORIG", [("CTA_IP_V4_SRC", OWN4)], [1, 0]), ("REPLY", [("CTA_IP_V4_SRC", OWN4)], [0, 1])]
    assert kernel.dumps == []


def test_the_kernels_filter_is_not_asked_for_ipv6(kernel: type[Kernel], monkeypatch: pytest.MonkeyPatch) -> None:
    """There it deletes the flows of everybody else."""
    monkeypatch.setattr(kernel, "filters_deletions", True)
    kernel.flows = [flow(HOST6, OWN6, number=1), flow(HOST6, "fd00:88::9", number=2)]
    flows.forget_addresses(socket(), (parse_address(OWN6),))
    assert kernel.dumps == [10] and numbers(kernel) == [1]


def test_many_addresses_are_looked_for_in_one_listing(kernel: type[Kernel], monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a GC: two deletions for each would take longer."""
    monkeypatch.setattr(kernel, "filters_deletions", True)
    kernel.flows = [flow(HOST4, f"10.88.0.{last}", number=last) for last in (5, 200)]
    flows.forget_addresses(socket(), tuple(parse_address(f"10.88.0.{last}") for last in range(2, 100)))
    assert kernel.dumps == [2] and numbers(kernel) == [5]


def test_a_flow_that_is_gone_by_itself_is_no_error(kernel: type[Kernel]) -> None:
    kernel.flows, kernel.gone = [flow(HOST4, OLD4, number=number) for number in (1, 2)], (1,)
    new_port(udp())
    assert numbers(kernel) == [1, 2] and not kernel.closed


@pytest.mark.parametrize(
    "targets", [(HOST4, "198.51.100.9"), (HOST6, "2001:db8::9"), (HOST4, HOST6)], ids=["v4", "v6", "both"]
)
def test_one_port_of_two_host_addresses(kernel: type[Kernel], targets: tuple[str, str]) -> None:
    """The second address used to take the first one's place. A third address of the host is published by nobody."""
    third = "2001:db8::7" if ":" in targets[0] else "198.51.100.7"
    kernel.flows = [flow(target, target, number=number) for number, target in enumerate((*targets, third), 1)]
    assert new_port(*map(udp, targets)) == 2 and sorted(numbers(kernel)) == [1, 2]


def test_one_port_of_one_host_address_twice(kernel: type[Kernel]) -> None:
    kernel.flows = [flow(HOST4, OLD4)]
    assert new_port(udp(HOST4), udp(HOST4)) == 1 and numbers(kernel) == [1]


# A kernel that does not list connections, or not today

REFUSALS = [errno.EINVAL, errno.EOPNOTSUPP, errno.EPROTONOSUPPORT]


def refusing(monkeypatch: pytest.MonkeyPatch, step: str, number: int) -> None:
    def refuse(*_: object) -> Any:
        raise KernelError(number, errno.errorcode[number])

    monkeypatch.setattr(Kernel, step, refuse)


@pytest.mark.parametrize("number", REFUSALS, ids=errno.errorcode.get)
@pytest.mark.parametrize("way", ["ADD", "DEL"])
def test_without_a_connection_tracker_nothing_is_forgotten_and_that_is_said(
    kernel: type[Kernel],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    way: str,
    number: int,
) -> None:
    """nfnetlink has EINVAL for a subsystem that is not in the kernel. DEL used to fail for ever."""
    refusing(monkeypatch, "dump", number)
    if way == "ADD":
        assert new_port(udp(), udp("::")) == 0
    else:
        flows.forget_addresses(socket(), (parse_address(OWN4),))
    out, err = capsys.readouterr()
    assert not kernel.closed and out == "" and "connections" in err and errno.errorcode[number] in err


@pytest.mark.parametrize("number", [errno.ENOMEM, errno.ENOBUFS, errno.EPERM], ids=errno.errorcode.get)
@pytest.mark.parametrize("step", ["dump", "ask"])
def test_another_refusal_is_an_error(
    kernel: type[Kernel], monkeypatch: pytest.MonkeyPatch, step: str, number: int
) -> None:
    """It may be gone at the next try, and the old flows with it."""
    kernel.flows = [flow(HOST4, OLD4)]
    refusing(monkeypatch, step, number)
    with pytest.raises(OSError) as caught:
        new_port(udp())
    assert caught.value.errno == number and not kernel.closed
    with pytest.raises(OSError):
        flows.forget_addresses(socket(), (parse_address(OLD4),))
