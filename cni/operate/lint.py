"""Checks one network's configuration file: whether nftcni accepts it, and what may surprise.

It asks the plugin's own parser, so that no rule is written twice. `document` is the file as JSON with lines and
columns; `conf_checks` finds the files, `conflists` prints.
"""

from __future__ import annotations

import difflib
import json
import re

from cni.model.config import Network, parse_network
from cni.model.conversion import A_PORT
from cni.model.typos import KNOWN, KNOWN_IPAM
from cni.operate.document import ERROR, TYPE, WARNING, Document, Finding, Json, at, parse, place
from cni.protocol.errors import CniError
from cni.protocol.jsontext import loads
from cni.protocol.name_rules import DATA_DIR
from cni.protocol.request import Request
from cni.protocol.versions import VERSIONS

TOP = (
    "cniVersion",
    "cniVersions",
    "name",
    "plugins",
    "disableCheck",
    "disableGC",
    "loadOnlyInlinedPlugins",
    "nerdctlID",
    "nerdctlLabels",
    "args",
)
KEYS, IPAM_KEYS = tuple(KNOWN.split()), tuple(KNOWN_IPAM.split())
RANGE = ("subnet", "rangeStart", "rangeEnd", "gateway")
ROUTE = ("dst", "gw", "mtu", "advmss", "priority", "table", "scope")
CAPABILITIES = (
    "portMappings",
    "ips",
    "mac",
    "dns",
    "ipRanges",
    "bandwidth",
    "aliases",
    "io.kubernetes.cri.pod-annotations",
)


def read(path: str) -> Document:
    """The checked document of a file. A file that cannot be read is a finding."""
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        return Document(path, "", None, (Finding(ERROR, 1, 1, f"cannot be read: {reason}"),))
    return lint(path, text)


def lint(path: str, text: str) -> Document:
    """The document with all findings about it."""
    document = parse(path, text)
    if document.findings:
        return document
    found = _of_file(document) + [one for plugin in document.plugins for one in _of_plugin(document, plugin)]
    return document.replace(findings=tuple(found))


def _of_file(document: Document) -> list[Finding]:
    value, found = document.value, []
    if document.path.endswith(".conflist") and not isinstance(value.get("plugins"), list):
        hint = 'the file is a list: {"cniVersion": ..., "name": ..., "plugins": [{"type": "nftcni", ...}]}'
        found.append(Finding(ERROR, 1, 1, 'there is no list "plugins"', hint))
    if not document.path.endswith(".conflist") and isinstance(value.get("plugins"), list):
        found.append(
            at(
                document,
                ERROR,
                "plugins",
                "a list of plugins in a file that is not called *.conflist",
                "runtimes skip it, or fail on it: rename it",
            )
        )
    if not value.get("name"):
        found.append(Finding(ERROR, 1, 1, 'the network has no "name"'))
    version = value.get("cniVersion")
    if version is None:
        found.append(
            Finding(WARNING, 1, 1, 'there is no "cniVersion"', "then it counts as 0.1.0 or 0.2.0; write 1.0.0")
        )
    elif version not in VERSIONS:
        found.append(
            at(
                document,
                ERROR,
                "cniVersion",
                f"cniVersion {json.dumps(version)} is not known",
                f"one of {', '.join(VERSIONS)}, as a string; write 1.0.0",
            )
        )
    plugins = value.get("plugins") if isinstance(value.get("plugins"), list) else [value]
    for plugin in plugins:
        kind = plugin.get("type") if isinstance(plugin, dict) else None
        if isinstance(kind, str) and kind != TYPE and difflib.get_close_matches(kind.lower(), [TYPE], cutoff=0.7):
            found.append(
                at(
                    document,
                    ERROR,
                    kind,
                    f'type "{kind}"',
                    f'is "{TYPE}" meant? The runtime runs the executable of that name',
                    value=True,
                )
            )
        elif kind is None:
            found.append(Finding(ERROR, 1, 1, 'a plugin has no "type"'))
    if isinstance(value.get("plugins"), list):
        found += _unknown(document, value, TOP, "")
    return found


def _of_plugin(document: Document, plugin: dict[str, Json]) -> list[Finding]:
    found = _by_the_plugin(document, plugin)
    listed = isinstance(document.value.get("plugins"), list)
    found += _unknown(document, plugin, KEYS if listed else KEYS + TOP, "")
    ipam = plugin.get("ipam")
    if isinstance(ipam, dict) and ipam.get("type") in (None, "", "host-local", TYPE):
        found += _unknown(document, ipam, IPAM_KEYS, "ipam.")
        ranges = ipam.get("ranges")
        for inner in ranges if isinstance(ranges, list) else []:
            for entry in inner if isinstance(inner, list) else []:
                if isinstance(entry, dict):
                    found += _unknown(document, entry, RANGE, "ipam.ranges.")
        routes = ipam.get("routes")
        for entry in routes if isinstance(routes, list) else []:
            if isinstance(entry, dict):
                found += _unknown(document, entry, ROUTE, "ipam.routes.")
    capabilities = plugin.get("capabilities")
    if not isinstance(capabilities, dict) or not _publishes(plugin):
        hint = 'add "capabilities": {"portMappings": true}'
        found.append(
            at(
                document,
                WARNING,
                TYPE,
                "no capability portMappings: the runtime silently drops published ports",
                hint,
                value=True,
            )
        )
    else:
        found += _unknown(document, capabilities, CAPABILITIES, "capabilities.")
    return found


def _publishes(plugin: dict[str, Json]) -> bool:
    capabilities = plugin.get("capabilities")
    given = capabilities.items() if isinstance(capabilities, dict) else ()
    return any(key.lower() == "portmappings" and bool(on) for key, on in given)


def _by_the_plugin(document: Document, plugin: dict[str, Json]) -> list[Finding]:
    """What ADD would refuse for a container, with a published port if the network gets those."""
    try:
        network_of(document, plugin)
    except CniError as error:
        word = _word(error.msg)
        line, column = place(document.text, word) if word else (1, 1)
        return [Finding(ERROR, line, column, error.msg, error.details)]
    return []


def network_of(document: Document, plugin: dict[str, Json]) -> tuple[Network, Request]:
    """The network and its request. Raises CniError as ADD would."""
    config = {key: item for key, item in plugin.items() if key != "capabilities"}
    config["name"] = document.value.get("name") or "unnamed"
    if _publishes(plugin):
        config.setdefault("runtimeConfig", A_PORT)
    version = document.value.get("cniVersion")
    config["cniVersion"] = version if version in VERSIONS else "1.0.0"
    request = request_of(config)
    return parse_network(request), request


def networks_of(document: Document) -> list[Network]:
    """The document's networks that the parser accepts."""
    found = []
    for plugin in document.plugins:
        try:
            found.append(network_of(document, plugin)[0])
        except CniError:
            continue  # `lint` says why
    return found


def _word(message: str) -> str:
    """The last key of the path that a refusal names: `ipam.ranges[0][0].subnet: ...`."""
    path = message.partition(":")[0].strip()
    return re.sub(r"\[\d+\]", "", path).rpartition(".")[2] if " " not in path else path.split()[0]


def request_of(config: dict[str, Json]) -> Request:
    """The request of a runtime that attaches a container named lint."""
    document = loads(json.dumps(config))
    assert isinstance(document, dict), "it was made from an object"
    version, name = config["cniVersion"], str(config["name"])
    return Request("ADD", "", "lint", "/lint", "eth0", {}, (), version, name, DATA_DIR, document)


def _unknown(document: Document, given: dict[str, Json], known: tuple[str, ...], path: str) -> list[Finding]:
    """Finds unknown keys that look like one of ours; others may belong to other programs."""
    found = []
    lower = {key.lower(): key for key in known}
    for key in given:
        if key.lower() in lower:
            continue
        near = difflib.get_close_matches(key.lower(), lower, n=1, cutoff=0.75)
        near = (
            near
            or [
                name
                for name in lower
                if len(key) >= 4 and (name.startswith(key.lower()) or key.lower().startswith(name)) and len(name) >= 4
            ][:1]
        )
        if near:
            found.append(
                at(document, WARNING, key, f'the key "{path}{key}" means nothing here', f'is "{lower[near[0]]}" meant?')
            )
    return found
