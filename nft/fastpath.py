"""The fast path: a flowtable and the chain that fills it, in the table only while a network asks for them.

A kernel without nf_flow_table refuses any text that names a flowtable, so both are loaded after the table's own text
and removed again; in between, only the links that the flowtable listens on change. A flow that the connection tracker
forgets leaves the flowtable at once. Numbers are from include/uapi/linux/netfilter/nf_tables.h.

The chain comes last in forward, so that what another chain drops stays dropped. A flow enters the flowtable only by a
packet of its original direction: filter_forward judges that packet, or judged the flow when it began. An answer passes
filter_forward even for a flow that began while the table was missing. Packets that stay on one link are left out: with
br_netfilter they pass forward, but this host does not route them.
"""

from __future__ import annotations

from . import expressions, messages
from .framing import NLA_F_NESTED as NESTED
from .framing import NLM_F_CREATE, attr, attr_name, attributes, items, text
from .lacking import PROBE
from .lacking import lacking as lacking_parts
from .netlink import Netlink, is_missing
from .rules import DELCHAIN, DELRULE
from .schema import FAST_PATH, TABLE
from .table import Table

NEWFLOWTABLE, GETFLOWTABLE, DELFLOWTABLE = (messages.SUBSYSTEM | number for number in (22, 23, 24))
NFTA_FLOWTABLE_TABLE, NFTA_FLOWTABLE_NAME, NFTA_FLOWTABLE_HOOK, NFTA_FLOWTABLE_FLAGS = 1, 2, 3, 7
NFTA_FLOWTABLE_HOOK_NUM, NFTA_FLOWTABLE_HOOK_PRIORITY, NFTA_FLOWTABLE_HOOK_DEVS = 1, 2, 3
NFTA_DEVICE_NAME = 1
NFT_FLOWTABLE_COUNTER = 2  # packets that pass are also counted in the connection tracker
GROUP = 200  # links in one message; the kernel allows 256 (NFT_NETDEVICE_MAX)
EXPRESSIONS = {"flow_offload": "nft_flow_offload"}

FAST_CHAIN = """
	chain fast_path {
		type filter hook forward priority 300; policy accept;
		ct direction reply accept
		ct state != established accept
		iifname . oifname @same_net accept
		iifname . ip saddr @fast4 flow add @fast_path
		iifname . ip6 saddr @fast6 flow add @fast_path
		oifname . ip daddr @fast4 flow add @fast_path
		oifname . ip6 daddr @fast6 flow add @fast_path
	}
"""

Change = tuple[int, int, bytes]


def fast_path_text() -> str:
    """The flowtable, which does not listen on any link yet, and its chain: for a table that has neither."""
    flowtable = f"\tflowtable {FAST_PATH} {{\n\t\thook ingress priority filter\n\t\tcounter\n\t}}"
    return f"table inet {TABLE} {{\n{flowtable}{FAST_CHAIN}}}\n"


def links(netlink: Netlink) -> list[str] | None:
    """The links that the flowtable listens on, None without a flowtable. The kernel removes links that disappear."""
    try:
        reply = netlink.ask(GETFLOWTABLE, _flowtable())
    except OSError as error:
        if not is_missing(error):
            raise
        return None
    hook = attributes(attributes(reply, 4).get(NFTA_FLOWTABLE_HOOK, b""))
    return [text(name) for name in items(hook.get(NFTA_FLOWTABLE_HOOK_DEVS, b""))]


def lacking(netlink: Netlink) -> list[str]:
    """The parts of nf_tables that the fast path needs and the kernel lacks, in words. Changes nothing. Raises
    OSError."""
    return lacking_parts(
        netlink, EXPRESSIONS, [("flowtables (nf_flow_table_inet)", NEWFLOWTABLE, _listening_on(PROBE, []))]
    )


def add_links(table: Table, names: list[str]) -> None:
    """Lets the existing flowtable listen on these links. Raises KernelError ENOENT if one has disappeared."""
    table.change(_listening(names), f"adding {' '.join(names)} to flowtable {FAST_PATH}")


def drop_links(table: Table, names: list[str]) -> None:
    """Takes these links out of the flowtable. Flows that came in by other links stay."""
    devices = attr(NESTED | NFTA_FLOWTABLE_HOOK_DEVS, b"".join(attr_name(NFTA_DEVICE_NAME, name) for name in names))
    payload = _flowtable() + attr(NESTED | NFTA_FLOWTABLE_HOOK, devices)
    table.change([(DELFLOWTABLE, 0, payload)], f"taking {' '.join(names)} out of flowtable {FAST_PATH}")


def remove(table: Table) -> None:
    """Deletes the flowtable with all flows, and the chain unless somebody has deleted that by hand."""
    chain = messages.nfgen() + attr_name(expressions.NFTA_CHAIN_TABLE, TABLE)
    chain += attr_name(expressions.NFTA_CHAIN_NAME, FAST_PATH)
    changes: list[Change] = [
        (messages.NEWCHAIN, NLM_F_CREATE, chain),
        (DELRULE, 0, messages.list_rules(chain=FAST_PATH)),
        (DELCHAIN, 0, chain),
        (DELFLOWTABLE, 0, _flowtable()),
    ]
    table.change(changes, f"removing flowtable {FAST_PATH}")


def _listening(names: list[str]) -> list[Change]:
    groups = [names[start : start + GROUP] for start in range(0, len(names), GROUP)]
    return [(NEWFLOWTABLE, NLM_F_CREATE, messages.nfgen() + _listening_on(TABLE, group)) for group in groups]


def _listening_on(table: str, names: list[str]) -> bytes:
    """A flowtable on the ingress hook at priority filter. Every message repeats the flags, or the kernel clears
    them."""
    devices = b"".join(attr_name(NFTA_DEVICE_NAME, name) for name in names)
    hook = attr(NFTA_FLOWTABLE_HOOK_NUM, bytes(4)) + attr(NFTA_FLOWTABLE_HOOK_PRIORITY, bytes(4))
    hook += attr(NESTED | NFTA_FLOWTABLE_HOOK_DEVS, devices)
    flags = attr(NFTA_FLOWTABLE_FLAGS, NFT_FLOWTABLE_COUNTER.to_bytes(4, "big"))
    return _named(table) + attr(NESTED | NFTA_FLOWTABLE_HOOK, hook) + flags


def _flowtable() -> bytes:
    return messages.nfgen() + _named(TABLE)


def _named(table: str) -> bytes:
    return attr_name(NFTA_FLOWTABLE_TABLE, table) + attr_name(NFTA_FLOWTABLE_NAME, FAST_PATH)
