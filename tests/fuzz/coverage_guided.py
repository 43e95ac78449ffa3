"""Coverage-guided fuzzing of the parsers with atheris (libFuzzer): coverage_guided.py TARGET [-runs=N] [CORPUS].

Anything but the errors that a parser documents is a finding; the input is written to a file named crash-*. Without
-runs or -max_total_time it goes on until it is stopped: that is the long run.
"""

from __future__ import annotations

import contextlib
import struct
import sys
from pathlib import Path
from typing import Callable

import atheris

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

with atheris.instrument_imports():
    from cni.dropin.tuning import parse_tuning
    from cni.kernel import links, rtnetlink
    from cni.model.config import parse_network
    from cni.model.flannel import parse_subnet_env
    from cni.model.reading import read_attachment
    from cni.protocol import jsontext
    from cni.protocol.errors import CniError
    from cni.protocol.fields import Fields
    from cni.protocol.request import Request, _parse_args
    from cni.protocol.resolvconf import parse_resolv_conf
    from cni.protocol.results import parse_previous, parse_result
    from cni.state.claims import Claims
    from cni.state.folder import Folder
    from cni.state.record import from_document
    from nft import conntrack, expressions, framing
    from nft import messages as nft
    from nft.elements import Element
    from nft.netlink import raise_for


def configuration(data: bytes) -> None:
    try:
        document = jsontext.loads(data.decode("utf-8", "replace"))
    except ValueError:
        return
    if not isinstance(document, dict):
        return
    for role in ("", "bridge"):
        request = Request("ADD", role, "c1", "/run/netns/c1", "eth0", {}, (), "1.1.0", "net0", "/run/nftcni", document)
        for parse in (parse_network, parse_tuning, parse_previous, lambda item: parse_result(Fields(item.document))):
            try:
                parse(request)
            except CniError:
                continue


def record(data: bytes) -> None:
    try:
        from_document(jsontext.loads(data.decode("utf-8", "replace")))
    except ValueError:
        return


def arguments(data: bytes) -> None:
    try:
        _parse_args(data.decode("utf-8", "surrogateescape"))
    except CniError:
        return


def netlink(data: bytes) -> None:
    for _kind, _flags, _sequence, body in framing.messages(data):
        framing.attributes(body)
    if len(data) >= rtnetlink.IFINFO.size:
        links.read_link(data)
    nft.read_elements(data)
    nft.read_rule(data)
    nft.read_generation_process(data)
    rtnetlink.next_hops(data)
    # The kernel's header is there in any case, and its errors are below 4096 (MAX_ERRNO).
    with contextlib.suppress(OSError, struct.error, OverflowError):
        raise_for(data, 0x300)
    nft.read_table_comment(data)
    for ask in (expressions.drops_all, expressions.compared, expressions.leads_elsewhere):
        ask(data)
    if data:
        expressions.read_chain(data)
        expressions.read_set(data)
        nft.read_table(data)
    for version in (4, 6):
        flow = conntrack.Flow(version, framing.attributes(data))
        repr((flow.original, flow.reply, flow.protocol, flow.is_source_translated, flow.is_target_translated))


def table(data: bytes) -> None:
    """Elements of somebody who wrote into our table by hand: the identity first, then keys and data by length."""
    provider = atheris.FuzzedDataProvider(data)
    names = list(nft_sets())
    elements = [
        Element(provider.PickValueInList(names), provider.ConsumeBytes(24), provider.ConsumeBytes(20), "x")
        for _ in range(provider.ConsumeIntInRange(0, 4))
    ]
    read_attachment(provider.ConsumeUnicodeNoSurrogates(60), elements)


class Repeating(Folder):
    """A state folder in which everything says the same."""

    text = ""

    def read(self, *_parts: str) -> str:
        return self.text

    def names(self, *_parts: str) -> list[str]:
        return ["tcp-80", self.text]


def claims(data: bytes) -> None:
    """What stands in the places of leases, ports and the last address; resolv.conf, and flannel's lease."""
    folder = Repeating("/nonexistent")
    folder.text = data.decode("utf-8", "replace")
    held = Claims(folder)
    held.last("net0", 0)
    held.port_holders("tcp-80")
    held.claimed_by("net0/c1/eth0")
    held.claimants()
    parse_resolv_conf(folder.text)
    with contextlib.suppress(ValueError):
        parse_subnet_env(folder.text)


def nft_sets() -> list[str]:
    from nft.schema import SETS

    return list(SETS)


TARGETS: dict[str, Callable[[bytes], None]] = {
    "configuration": configuration,
    "record": record,
    "arguments": arguments,
    "netlink": netlink,
    "table": table,
    "claims": claims,
}

if __name__ == "__main__":
    target = TARGETS[sys.argv.pop(1)]
    atheris.Setup(sys.argv, target)
    atheris.Fuzz()
