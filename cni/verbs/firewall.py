"""What the reference firewall's keys ask of the host's own firewall: firewalld's zone, an administrator's chain.

For the drop-in name `firewall` and for our own type; `ingressPolicy` is `cni.model.config`.
"""

from __future__ import annotations

from cni.firewalld import DEFAULT_ZONE, is_running, require
from cni.model.config import FIREWALLD
from cni.protocol.errors import UNSUPPORTED_FIELD, CniError
from cni.protocol.fields import Fields
from nft.foreign import dropping_chains
from nft.netlink import Netlink

ADMIN_CHAIN = "CNI-ADMIN"  # the reference plugin's default


def zone_asked(fields: Fields) -> str:
    """Without a `backend` firewalld is asked where it runs, as by the reference plugin. "" for none. Raises CniError 2
    where it is asked for and does not run."""
    backend, zone = fields.text("backend"), fields.text("firewalldZone")
    if backend == FIREWALLD:
        require("backend", backend)
    elif backend or not is_running():
        return ""
    return zone or DEFAULT_ZONE


def refuse_admin_chain(netlink: Netlink, fields: Fields) -> None:
    """The chain that the reference plugin asks before its own rules. Ours are nftables' and pass it by, so what it
    drops would come through. Raises CniError 2."""
    name = fields.text("iptablesAdminChainName") or ADMIN_CHAIN
    found = dropping_chains(netlink, "filter", name)
    if found:
        raise CniError(
            UNSUPPORTED_FIELD,
            f'iptablesAdminChainName: "{name}": rules of chain {found[0]} drop, and our containers do not pass it',
            "have a chain of your own on nftables' forward hook drop that (README, nerdctl network create), "
            f"and empty it: iptables -F {name}",
        )
