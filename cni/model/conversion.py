"""A conflist of the reference chain (bridge, portmap, firewall, tuning, bandwidth) as one plugin object of ours. Pure.

The meaning stays the same: the reference's defaults are written out, because ours differ. A key that our type does not
support, or treats differently, refuses the conversion. Everything outside the plugin objects (name, version, labels,
IDs) is kept, so that the programs that made the network still know it. `cni.operate.convert` handles the files.
"""

from __future__ import annotations

from cni.model.chain_keys import BACKENDS
from cni.model.config import parse_network
from cni.model.ipam import LEASE_FILES
from cni.protocol.errors import CniError
from cni.protocol.request import BUILT_IN_IPAM, Request
from cni.protocol.versions import NEWEST

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cni.protocol.jsontext import Json

    Plugin = dict[str, Json]

OURS = "nftcni"
CHAIN = ("portmap", "firewall", "tuning", "bandwidth")
# The reference bridge's defaults where ours differ.
DEFAULTS: Plugin = {
    "bridge": "cni0",
    "isGateway": False,
    "isDefaultGateway": False,
    "ipMasq": False,
    "hairpinMode": False,
}
# What a runtime passes for a published port: some keys are refused only if there is one.
A_PORT: Plugin = {"portMappings": [{"hostPort": 1, "containerPort": 1, "protocol": "tcp"}]}
COMMON = ("type", "capabilities", "name", "cniVersion")  # keys that every plugin object may have
NEUTRAL: dict[str, tuple[Json, ...]] = {  # keys that another plugin has too, or values that ask for nothing
    "backend": BACKENDS,
    "iptablesAdminChainName": ("", "CNI-ADMIN"),
    "dataDir": ("/run/cni/tuning",),
}


class NotConverted(Exception):
    """The conversion is refused: one line for each key whose meaning would change. `is_ours`: it is of our type
    already."""

    def __init__(self, problems: list[str], is_ours: bool = False) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems
        self.is_ours = is_ours


def convert(document: Plugin, zone: str = "") -> Plugin:
    """Converts a conflist, or a configuration of a single plugin. `zone` is firewalld's zone if firewalld runs, because
    the reference firewall plugin joins it without being asked. Raises NotConverted."""
    plugins = _plugins(document)
    problems: list[str] = []
    main: Plugin = {key: value for key, value in plugins[0].items() if key not in COMMON and value is not None}
    for plugin in plugins[1:]:
        problems += _take_over(main, plugin)
    if zone and any(plugin["type"] == "firewall" for plugin in plugins[1:]) and not main.get("backend"):
        main["firewalldZone"] = main.get("firewalldZone") or zone
    main["ingressPolicy"] = main.get("ingressPolicy") or "open"
    merged: Plugin = {"type": OURS, **{key: main.get(key, value) for key, value in DEFAULTS.items()}, **main}
    ipam = merged.get("ipam")
    if isinstance(ipam, dict) and ipam.get("type") in BUILT_IN_IPAM:
        merged["ipam"] = {**ipam, "dataDir": ipam.get("dataDir") or LEASE_FILES}
    capabilities: Plugin = {}
    for plugin in plugins:
        asked = plugin.get("capabilities")
        capabilities.update(asked if isinstance(asked, dict) else {})
    if capabilities:
        merged["capabilities"] = capabilities
    problems += _refused(document, merged)
    if problems:
        raise NotConverted(problems)
    if "plugins" in document:
        return {**document, "plugins": [merged]}
    return {**{key: document[key] for key in ("cniVersion", "name") if key in document}, **merged}


def _plugins(document: Plugin) -> list[Plugin]:
    """The chain's plugin objects. Raises NotConverted for another chain."""
    listed = document.get("plugins", [document])
    plugins = [item for item in listed if isinstance(item, dict)] if isinstance(listed, list) else []
    kinds = [str(item.get("type")) for item in plugins]
    if kinds[:1] == [OURS]:
        raise NotConverted(["it is of this type already"], is_ours=True)
    if kinds[:1] != ["bridge"]:
        raise NotConverted([f"its main plugin is {kinds[0] if kinds else 'missing'}, not bridge"])
    others = [kind for kind in kinds[1:] if kind not in CHAIN]
    twice = [kind for kind in CHAIN if kinds.count(kind) > 1]
    problems = [f"the plugin {kind} has no place in {OURS}" for kind in others]
    problems += [f"the plugin {kind} is there twice" for kind in twice]
    if problems:
        raise NotConverted(problems)
    return plugins


def _take_over(main: Plugin, plugin: Plugin) -> list[str]:
    """Copies a chained plugin's keys to the one object. Returns a line for each key that cannot be copied."""
    problems = []
    for key, value in plugin.items():
        if key in COMMON or value is None:
            continue
        if (plugin["type"], key) == ("firewall", "backend"):
            main[key] = value  # the firewall plugin's key is about firewalld; portmap's means something else
            continue
        if value in NEUTRAL.get(key, ()):
            continue
        where = f"{plugin['type']}.{key}"
        if key in NEUTRAL:
            problems.append(f"{where}: {value!r} is not what {OURS} does")
        elif plugin["type"] == "tuning" and key == "mtu":
            problems.append(f"{where}: there it changes only the container's end; write it as the bridge's mtu")
        elif key in main and main[key] != value:
            problems.append(f"{where}: {value!r} differs from {main[key]!r} of an earlier plugin")
        else:
            main[key] = value
    return problems


def _refused(document: Plugin, merged: Plugin) -> list[str]:
    """Our own parser's error about the result, for a container with a published port; it names the key."""
    name = str(document.get("name", ""))
    version = str(document.get("cniVersion") or NEWEST)
    full: Plugin = {**merged, "name": name, "cniVersion": version, "runtimeConfig": A_PORT}
    request = Request("ADD", "", "x", "", "eth0", {}, (), version, name, "/run/nftcni", full)
    try:
        parse_network(request)
    except CniError as error:
        return [str(error)]
    return []
