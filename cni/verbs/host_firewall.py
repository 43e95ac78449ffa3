"""What the reference firewall's keys ask of the host's own firewall: firewalld's zone, an administrator's chain.

The drop-in name `firewall` and our own type use it; `cni.model.config` parses `ingressPolicy`.
"""

from __future__ import annotations

from cni.firewalld import DEFAULT_ZONE, is_running, require
from cni.model.chain_keys import FIREWALLD
from cni.protocol.errors import UNSUPPORTED_FIELD, CniError
from cni.protocol.fields import Fields
from nft.foreign import dropping_chains
from nft.netlink import Netlink

ADMIN_CHAIN = "CNI-ADMIN"  # the reference plugin's default


def zone_asked(fields: Fields) -> str:
    """The zone of firewalld to join, "" for none. Without a `backend`, firewalld is used if it runs, as by the
    reference plugin. Raises CniError 2 if the configuration asks for firewalld and it does not run."""
    backend, zone = fields.text("backend"), fields.text("firewalldZone")
    if backend == FIREWALLD:
        require("backend", backend)
    elif backend or not is_running():
        return ""
    return zone or DEFAULT_ZONE


def refuse_admin_chain(netlink: Netlink, fields: Fields) -> None:
    """Raises CniError 2 if the administrator's chain drops something. The reference plugin asks that chain of iptables
    before its own rules; our rules in nftables bypass it, so what it drops would come through."""
    name = fields.text("iptablesAdminChainName") or ADMIN_CHAIN
    found = dropping_chains(netlink, "filter", name)
    if found:
        raise CniError(
            UNSUPPORTED_FIELD,
            f'iptablesAdminChainName: "{name}": rules of chain {found[0]} drop, and our containers do not pass it',
            "have a chain of your own on nftables' forward hook drop that (README, nerdctl network create), "
            f"and empty it: iptables -F {name}",
        )
