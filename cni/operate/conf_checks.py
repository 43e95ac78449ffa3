"""CNI's folders: which network files there are, and what is wrong with them together. `lint` checks a single file."""

from __future__ import annotations

import os
import shutil

from cni.adoption import is_one_wire
from cni.kernel.rtnetlink import RT_TABLE_MAIN
from cni.model.config import Network
from cni.operate.document import ERROR, TYPE, Document, Finding
from cni.operate.lint import networks_of, read
from cni.operate.walk.step import Step, stop, warn
from cni.operate.walk.world import World
from nft.addresses import BITS, Prefix

CONF_DIR = "/etc/cni/net.d"
BIN_DIRS = ("/opt/cni/bin", "/opt/nftcni/bin", "/usr/lib/cni", "/usr/libexec/cni")
SUFFIXES = (".conflist", ".conf", ".json")  # what libcni and nerdctl read
NOT_ISOLATED = (
    "networks on one bridge are not isolated from each other: give each its own by the key bridge, or set "
    '"isolation": false in both'
)


def conf_dir() -> str:
    """The folder in which cnitool (NETCONFPATH) and nerdctl (CNI_NETCONFPATH) look too."""
    return os.environ.get("NETCONFPATH") or os.environ.get("CNI_NETCONFPATH") or CONF_DIR


def documents() -> list[Document]:
    """The files of all networks, including nerdctl's in other containerd namespaces (net.d/NAMESPACE/)."""
    found = []
    for folder, _folders, files in sorted(os.walk(conf_dir())):
        found += [read(os.path.join(folder, name)) for name in sorted(files) if name.endswith(SUFFIXES)]
    return found


def our_networks() -> list[tuple[str, list[Prefix]]]:
    """(bridge, subnets) of each of our networks, "" for point to point."""
    found = []
    for document in documents():
        subnets = [prefix for prefix, _text in document.subnets]
        found += [(network.bridge, subnets) for network in networks_of(document)]
    return found


def are_on_one_bridge(one: Network, other: Network) -> bool:
    """Whether ADD refuses the first container of either beside the other's (adoption.refuse_shared)."""
    promised = one.isolation or other.isolation
    return bool(one.bridge) and one.bridge == other.bridge and promised and is_one_wire(one.wire, other.wire)


def have_one_bridge(one: Document, other: Document) -> bool:
    bridges = {network.bridge for network in networks_of(one)} - {""}
    return not bridges.isdisjoint(network.bridge for network in networks_of(other))


def files_with(flag: str) -> list[str]:
    """The paths of the files with a network of ours for which the flag is on."""
    return [document.path for document in documents() if _is_on(document, flag)]


def networks_with(flag: str) -> set[str]:
    return {document.name for document in documents() if _is_on(document, flag)}


def _is_on(document: Document, flag: str) -> bool:
    keys = (one for plugin in document.plugins for one in plugin.items())
    return any(key.lower() == flag.lower() and on is True for key, on in keys)


def folders(world: World) -> list[Step]:
    """Checks CNI's folders and all network files in them."""
    found = [*misplaced(), *executables()]
    all_documents = documents()
    for document in all_documents:
        mine = bool(document.plugins) or document.value is None
        for one in document.findings:
            if mine or 'is "nftcni" meant' in one.hint:
                found.append(_step(document, one))
    return found + together(all_documents)


def _step(document: Document, one: Finding) -> Step:
    make = stop if one.level == ERROR else warn
    where = f"{document.path}:{one.line}:{one.column}"
    return make("conf", f"{where}: {one.text}", one.hint, f"nftcni check {document.path}")


def in_use(world: World) -> list[Step]:
    """Finds subnets to which the host has a route elsewhere: the network's first ADD would be refused
    (bridge._refuse_elsewhere). A route to a single address inside, as overlays have, does not count."""
    found = []
    for document in documents():
        bridges = {network.bridge for network in networks_of(document)}
        if not bridges.isdisjoint(world.kernel.links):
            continue  # a network with containers is checked with them
        for prefix, _text in document.subnets if bridges else ():
            for dst, table, link, _kind, _via in world.kernel.routes:
                one_of_it = prefix.length <= dst.length < BITS[dst.version] and dst.address in prefix.network
                if table == RT_TABLE_MAIN and link not in bridges and one_of_it:
                    what = f"{document.path}: the subnet {prefix} meets the host's route to {dst} by {link}"
                    because = "ADD refuses a subnet that is in use elsewhere; give the network another one"
                    found.append(warn("subnet-in-use", what, because, f"nftcni check {document.path}"))
    return found


def misplaced() -> list[Step]:
    """Finds networks of ours in files that no runtime reads."""
    found = []
    base = os.path.dirname(conf_dir())
    for folder, wanted in ((base, SUFFIXES), (conf_dir(), None)):
        try:
            names = sorted(os.listdir(folder))
        except OSError:
            continue
        for name in names:
            path = os.path.join(folder, name)
            strange = name.endswith(SUFFIXES) if wanted else not name.endswith((*SUFFIXES, ".template", ".lock"))
            if strange and os.path.isfile(path) and _mentions_us(path):
                target = os.path.join(conf_dir(), name.split(".")[0] + ".conflist")
                found.append(
                    warn(
                        "misplaced",
                        f"{path} is a network of ours where no runtime looks",
                        f"they read *.conflist in {conf_dir()}",
                        f"mv -n {path} {target}",
                    )
                )
    return found


def _mentions_us(path: str) -> bool:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            text = file.read(1 << 16)
    except OSError:
        return False
    return f'"{TYPE}"' in text and '"type"' in text


def executables() -> list[Step]:
    """Finds a missing executable: there is a network of ours, but no executable where runtimes look for it."""
    networks = our_networks()
    if not networks or any(
        os.access(f"{folder}/{TYPE}", os.X_OK) for folder in (*BIN_DIRS, *os.environ.get("CNI_PATH", "").split(":"))
    ):
        return []
    here = shutil.which("nftcni") or "conf/nftcni"
    return [
        warn(
            "executable",
            f"there is no executable {TYPE} in {', '.join(BIN_DIRS[:2])}",
            "runtimes look there unless configured otherwise",
            f"mkdir -p {BIN_DIRS[0]}",
            f"ln -s {os.path.realpath(here)} {BIN_DIRS[0]}/{TYPE}",
        )
    ]


def together(all_documents: list[Document]) -> list[Step]:
    """Finds two networks with the same name or bridge, or with overlapping subnets."""
    found = []
    names: dict[str, str] = {}
    networks: list[tuple[Network, Document]] = []
    subnets: list[tuple[Prefix, Document]] = []
    for document in all_documents:
        if not document.name or not document.plugins:
            if document.name:
                names.setdefault(document.name, document.path)
            continue
        other = names.setdefault(document.name, document.path)
        if other != document.path and os.path.dirname(other) == os.path.dirname(document.path):
            found.append(
                warn(
                    "same-name",
                    f'{other} and {document.path} are both called "{document.name}"',
                    "a runtime uses one of them; their containers' addresses count as one network's",
                    f"nftcni check {document.path}",
                )
            )
        for network in networks_of(document):
            for before, owner in networks:
                if owner.name != document.name and are_on_one_bridge(before, network):
                    found.append(
                        warn(
                            "same-bridge",
                            f"{owner.path} and {document.path} are both on the bridge {network.bridge}",
                            NOT_ISOLATED,
                            f"nftcni check {document.path}",
                        )
                    )
                    break
            networks.append((network, document))
        for prefix, _text in document.subnets:
            for taken, owner in subnets:
                elsewhere = owner.name != document.name and not have_one_bridge(owner, document)
                if meet(prefix, taken) and elsewhere:
                    found.append(
                        warn(
                            "same-subnet",
                            f"{owner.path} has the subnet {taken}, {document.path} has {prefix}",
                            "a second bridge with these addresses is refused; give this network another subnet",
                            f"nftcni check {document.path}",
                        )
                    )
            subnets.append((prefix, document))
    return found


def meet(one: Prefix, other: Prefix) -> bool:
    return one.address in other.network or other.address in one.network
