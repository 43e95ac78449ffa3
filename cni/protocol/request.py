"""What the caller passes by environment and stdin, as one checked value ("Parameters" of SPEC.md, libcni's pkg/skel).

`config` reads the configuration beyond version, name and data folder.
"""

from __future__ import annotations

import sys

from cni.protocol.errors import DECODING_FAILURE, INVALID_ENVIRONMENT, CniError
from cni.protocol.fields import Fields
from cni.protocol.jsontext import loads
from cni.protocol.name_rules import DATA_DIR, check_ifname, is_name
from cni.protocol.roles import role_of
from cni.protocol.spec import check_version
from cni.protocol.stdio import read_stdin
from cni.protocol.versions import IMPLIED
from nft.system import variable
from nft.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cni.protocol.jsontext import Json

NAME_LIMIT = 80  # characters of a network's name: it shares a comment of 128 with container ID and interface
NO_ARGS = ("portmap", "firewall", "bandwidth", "loopback")  # these reference plugins ignore CNI_ARGS
BUILT_IN_IPAM = ("", "host-local", "nftcni", "flannel")  # the values of ipam.type that we serve ourselves
REQUIRED = {
    "ADD": ("CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_PATH"),
    "CHECK": ("CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_PATH"),
    "DEL": ("CNI_CONTAINERID", "CNI_IFNAME", "CNI_PATH"),
    "GC": ("CNI_PATH",),
    "STATUS": (),
}


class Request(Value):
    """One call. `role` is the reference plugin under whose name we were called, "" for our own. `args` are the pairs of
    CNI_ARGS that we know; `document` is the unchanged object on stdin."""

    verb: str
    role: str
    container: str
    netns: str
    ifname: str
    args: dict[str, str]
    path: tuple[str, ...]
    version: str
    network: str
    data_dir: str
    document: dict[str, Json]


def read_request(verb: str, data: bytes | None = None) -> Request:
    """The checked request. Raises CniError 1, 4, 6 and 7. stdin is read first, so that its writer never sees a broken
    pipe."""
    data = read_stdin() if data is None else data
    if verb not in REQUIRED:
        raise CniError(INVALID_ENVIRONMENT, f'CNI_COMMAND: "{verb[:40]}" is not a CNI verb')
    missing = [name for name in REQUIRED[verb] if not variable(name)]
    if missing:
        raise CniError(INVALID_ENVIRONMENT, f"{verb} needs {', '.join(missing)} in the environment")
    needs_attachment = "CNI_CONTAINERID" in REQUIRED[verb]
    container = variable("CNI_CONTAINERID") if needs_attachment else ""
    ifname = variable("CNI_IFNAME") if needs_attachment else ""
    if needs_attachment:
        _check_attachment(container, ifname)
    document = _decode(data)
    fields = Fields(document)
    version = fields.text("cniVersion") or IMPLIED
    check_version(version, verb)
    network = fields.text("name")
    if not is_name(network):
        raise fields.fail("name", "a network name is letters, digits, _ . - and starts with a letter or digit")
    if len(network) > NAME_LIMIT:
        raise fields.fail("name", f"a network name has at most {NAME_LIMIT} characters")
    role = role_of(sys.argv[0])
    # The reference tuning keeps an interface's earlier settings in `dataDir`; we keep them with the records.
    own = "" if role == "tuning" else fields.text("dataDir")
    data_dir = own or variable("NFTCNI_DATA_DIR") or DATA_DIR
    if not data_dir.startswith("/") or "\0" in data_dir or not data_dir.isprintable():
        raise fields.fail("dataDir", "must be an absolute path")
    return Request(
        verb=verb,
        role=role,
        container=container,
        netns=variable("CNI_NETNS"),
        ifname=ifname,
        args=_parse_args(variable("CNI_ARGS")) if verb in ("ADD", "CHECK") and role not in NO_ARGS else {},
        path=tuple(variable("CNI_PATH").split(":")),
        version=version,
        network=network,
        data_dir=data_dir,
        document=document,
    )


def foreign_ipam(request: Request) -> str:
    """The configuration's foreign IPAM plugin, "" for none. The configuration may be invalid by now."""
    try:
        kind = Fields(request.document).section("ipam").text("type")
    except CniError:
        return ""
    return "" if kind in BUILT_IN_IPAM or "/" in kind else kind


def _check_attachment(container: str, ifname: str) -> None:
    if not is_name(container):
        raise CniError(
            INVALID_ENVIRONMENT,
            f"CNI_CONTAINERID: {container[:80]!r} is not letters, digits, _ . - starting with a letter or digit",
        )
    try:
        check_ifname(ifname)
    except ValueError as problem:
        raise CniError(INVALID_ENVIRONMENT, f"CNI_IFNAME: {ifname[:40]!r}: {problem}") from None


def _decode(data: bytes) -> dict[str, Json]:
    try:
        document = loads(data.decode())
    except (ValueError, RecursionError) as problem:
        raise CniError(DECODING_FAILURE, f"the configuration on stdin is not JSON: {problem}") from None
    if not isinstance(document, dict):
        raise CniError(DECODING_FAILURE, "the configuration on stdin is JSON, but not an object")
    return document


def _parse_args(text: str) -> dict[str, str]:
    """Parses `K=V;K2=V2` with case-sensitive keys. Unknown keys need IgnoreUnknown=1, as in libcni's types.LoadArgs;
    their values may hold `=`, as labels of Kubernetes do. Raises CniError 4."""
    pairs = {}
    for part in filter(None, text.split(";")):
        key, equals, value = part.partition("=")
        if not equals or ("=" in value and key in ("IP", "MAC", "GATEWAY", "IgnoreUnknown")):
            raise CniError(INVALID_ENVIRONMENT, f"CNI_ARGS: {part[:80]!r} is not KEY=VALUE")
        pairs[key] = value
    known = {key: pairs[key] for key in ("IP", "MAC", "GATEWAY") if pairs.get(key)}
    unknown = sorted(pairs.keys() - {"IP", "MAC", "GATEWAY", "IgnoreUnknown"})
    if unknown and pairs.get("IgnoreUnknown", "").lower() not in ("1", "true"):
        raise CniError(INVALID_ENVIRONMENT, f"CNI_ARGS: unknown key {unknown[0][:80]!r}, and no IgnoreUnknown=1")
    return known
