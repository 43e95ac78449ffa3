"""Turn files of the reference plugins' networks into ours, and back.

The original is kept beside its successor as FILE.before-nftcni, a name that no runtime reads. The new text is written
aside and renamed, so that readers of the folder see the one or the other.
"""

# This is the command's help too. Which key becomes what is `cni.model.conversion`.

from __future__ import annotations

import json
import os
import sys

from cni.firewalld import DEFAULT_ZONE, is_running
from cni.model.conversion import NotConverted, convert
from cni.operate.conf_checks import SUFFIXES, conf_dir
from cni.state import files

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from typing import Any

BEFORE = ".before-nftcni"


HELP = "turn the reference plugins' networks into ours, or back"
EXAMPLES = (
    "nftcni convert bridge",
    "nftcni convert /etc/cni/net.d/10-web.conflist",
    "nftcni convert --all",
    "nftcni convert --back bridge",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_mutually_exclusive_group(required=True)
    group.add_argument("network", metavar="NETWORK|FILE", nargs="?", default="", help="one network")
    group.add_argument("--all", action="store_true", help="every network in the folder that can be converted")
    parser.add_argument("--back", action="store_true", help="put the original back")


def run(arguments: argparse.Namespace) -> int:
    return convert_networks(arguments.network, arguments.all, arguments.back)


def convert_networks(network: str = "", everything: bool = False, back: bool = False) -> int:
    """Converts one network by its name, ID or file, or all of the folder. Returns 1 if one was not converted."""
    paths = listed(conf_dir()) if everything else find(network)
    if not paths:
        sys.stderr.write(f"nftcni convert: no network {network!r} in {conf_dir()}: see there, or give the file\n")
        return 1
    status = 0
    for path in paths:
        try:
            done = restore(path) if back else replace(path)
            print(f"{path}: {done}")
        except NotConverted as refusal:
            if everything and refusal.is_ours:
                continue
            status = 1
            print(f"{path}: left as it is:")
            for problem in refusal.problems:
                print(f"  {problem}")
    return status


def listed(place: str) -> list[str]:
    """The paths of all networks in the folder, and in nerdctl's folders in it, one for each containerd namespace."""
    found = []
    for root, names, entries in os.walk(place):
        names[:] = sorted(names) if root == place else []
        found += [os.path.join(root, name) for name in sorted(entries) if name.endswith(SUFFIXES)]
    return found


def find(network: str) -> list[str]:
    if "/" in network or os.path.isfile(network):
        return [network] if os.path.isfile(network) else []
    return [path for path in listed(conf_dir()) if network and network in _names(path)]


def _names(path: str) -> list[str]:
    """A network's name and nerdctl's ID of it, in full and as `network ls` prints it."""
    try:
        document = read(path)[1]
    except NotConverted:
        return []
    ident = str(document.get("nerdctlID", ""))
    return [str(document.get("name", "")), ident, ident[:12]]


def read(path: str) -> tuple[str, dict[str, Any]]:
    """A file's text and its JSON object. Raises NotConverted."""
    try:
        with open(path, encoding="utf-8", newline="") as file:
            text = file.read()
        document = json.loads(text)
    except (OSError, ValueError) as problem:
        raise NotConverted([f"it cannot be read: {problem}"]) from None
    if not isinstance(document, dict):
        raise NotConverted(["it is not a network configuration"])
    return text, document


def replace(path: str) -> str:
    """Converts a file. Returns what to print about it. Raises NotConverted."""
    text, document = read(path)
    result = convert(document, DEFAULT_ZONE if is_running() else "")
    _refuse_shared_bridge(path, result)
    _write(path + BEFORE, text, path)
    _write(path, written(result), path)
    return f"is one plugin of type nftcni now; the original is {os.path.basename(path)}{BEFORE}"


def written(document: dict[str, Any]) -> str:
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def restore(path: str) -> str:
    """Puts the original back, unless somebody has edited the network since, as the edit would be lost. Raises
    NotConverted."""
    present = read(path)[1]
    if not os.path.exists(path + BEFORE):
        raise NotConverted([f"it was not converted: there is no {path}{BEFORE}"], is_ours=True)
    text, before = read(path + BEFORE)
    if present not in (convert(before), convert(before, DEFAULT_ZONE)):
        raise NotConverted([f"it has been edited since; its original is {path}{BEFORE}"])
    _write(path, text, path)
    files.unlink(path + BEFORE)
    return "is the original again"


def _refuse_shared_bridge(path: str, result: dict[str, Any]) -> None:
    """Raises NotConverted if another network is on the same bridge: they cannot be isolated, and ADD would refuse
    them."""
    plugin = _main(result)
    if plugin.get("ingressPolicy") == "open":
        return
    for other in listed(os.path.dirname(os.path.abspath(path))):
        if os.path.samefile(other, path):
            continue
        try:
            document = read(other)[1]
        except NotConverted:
            continue
        if document.get("name") != result.get("name") and _main(document).get("bridge") == plugin["bridge"]:
            what = f"bridge: {plugin['bridge']} is the bridge of the network {document.get('name')}, too ({other})"
            raise NotConverted([f"{what}: networks on one bridge cannot be isolated from each other"])


def _main(document: dict[str, Any]) -> dict[str, Any]:
    plugins = document.get("plugins") or [document]
    return plugins[0] if isinstance(plugins, list) and isinstance(plugins[0], dict) else {}


def _write(path: str, text: str, like: str) -> None:
    """Writes a file in one step, with the mode of the file that it replaces. Its temporary name is not a network's."""
    aside = f"{path}.nftcni-new"
    try:
        files.write(aside, text)
        mode = os.stat(like)
        os.chmod(aside, mode.st_mode & 0o7777)
        os.chown(aside, mode.st_uid, mode.st_gid)
        os.rename(aside, path)
    except OSError:
        files.unlink(aside)
        raise
