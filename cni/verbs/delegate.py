"""What a configuration leaves to others: a foreign IPAM plugin gets the verbs, flannel gives the subnets.

This file loads next to nothing, because most networks have neither. `delegated` calls the plugin's ADD, which must
leave something to undo.
"""

from __future__ import annotations

from cni.protocol.errors import CniError
from cni.protocol.fields import Fields
from cni.protocol.request import Request, foreign_ipam

DHCP = "dhcp"
RELEASE_SECONDS = 10
SUBNET_FILE = "/run/flannel/subnet.env"  # flanneld's own default of -subnet-file


def pass_on(request: Request, verb: str, kind: str = "") -> None:
    """Passes the verb to the plugin `kind`, or to the one that the configuration names, if any. Raises CniError."""
    kind = kind or foreign_ipam(request)
    if kind and kind != "static":  # `delegated` answers for static, which keeps nothing
        from cni.protocol.delegation import run_plugin

        run_plugin(request, kind, verb)


def release_by_dhcp(request: Request) -> CniError | None:
    """Has dhcp's daemon give the address back, before the interface goes by which it talks to the DHCP server. Returns
    the error, if any, to raise at the end of DEL."""
    from cni.protocol.delegation import run_plugin

    try:
        run_plugin(request, DHCP, "DEL", RELEASE_SECONDS)
    except CniError as error:
        return error
    return None


def with_lease(request: Request) -> Request:
    """The request completed by flannel's lease, if the configuration asks for it. Raises CniError 11 while there is no
    lease, 7 for one that cannot be parsed."""
    fields = Fields(request.document)
    ipam = fields.section("ipam")
    if ipam.text("type") != "flannel":
        if fields.has("subnetFile"):
            raise fields.fail("subnetFile", "is read where ipam.type is flannel")
        return request
    import errno

    from cni.model.flannel import configured, parse_subnet_env
    from cni.protocol.errors import INVALID_CONFIG, TRY_AGAIN_LATER

    for key in ("subnet", "ranges"):
        if ipam.has(key):
            raise ipam.fail(key, "is flannel's to say where ipam.type is flannel")
    path = fields.text("subnetFile") or SUBNET_FILE
    try:
        with open(path, encoding="utf-8") as file:
            lease = parse_subnet_env(file.read())
    except OSError as error:
        reason = errno.errorcode.get(error.errno or 0, str(error.errno))
        raise CniError(
            TRY_AGAIN_LATER,
            f"ipam.type flannel: this host has no subnet yet: {path} cannot be read: {reason}",
            "flanneld writes it once it has a lease: start flanneld, or see its log; if its option "
            "-subnet-file names another file, so must the key subnetFile",
        ) from None
    except ValueError as problem:
        raise CniError(
            INVALID_CONFIG, f"ipam.type flannel: {path}: {problem}", "flanneld writes it anew at start"
        ) from None
    return request.replace(document=configured(request.document, lease))
