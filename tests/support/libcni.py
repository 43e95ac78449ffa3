"""A chain of plugins as libcni runs it, with its cache: prevResult from plugin to plugin, DEL backwards and with the
result of ADD. Which plugins' executables is told by a folder, so that one network may change hands in between.
"""

from __future__ import annotations

import base64
import json
import os
from typing import Any

from .scratch import PLUGIN, Host, Json

# Debian's, and those that a variable names (1.10 and later have their own nftables backends).
REFERENCES = ["/usr/lib/cni", *filter(None, [os.environ.get("NFTCNI_REFERENCE", "")])]
NAMES = ("nftcni", "bridge", "portmap", "firewall", "tuning", "bandwidth", "host-local", "loopback")
CACHE = "/var/lib/cni/results"


def ours(host: Host) -> str:
    """The folder with our executable under all of its names."""
    folder = "/run/cni/ours"
    host.run("mkdir", "-p", folder)
    for name in NAMES:
        host.run("ln", "-sf", PLUGIN, f"{folder}/{name}")
    return folder


class Runtime:
    """`conflist` may be replaced between calls. `cache` is false for a runtime that has lost it."""

    def __init__(self, host: Host, conflist: Json, cache: bool = True) -> None:
        self.host = host
        self.conflist = conflist
        self.cache = cache

    def add(self, folder: str, container: str, ports: list[Json] | tuple[Json, ...] = (), args: str = "") -> Json:
        result: Json = None
        for plugin in self.conflist["plugins"]:
            result = self._call("ADD", folder, plugin, container, ports, result, args)
        if self.cache:
            capabilities = {"portMappings": list(ports)} if ports else {}
            document = {
                "kind": "cniCacheV1",
                "containerId": container,
                "config": base64.b64encode(json.dumps(self.conflist).encode()).decode(),
                "ifName": "eth0",
                "networkName": self.conflist["name"],
                "netns": f"/run/netns/{container}",
                "capabilityArgs": capabilities,
                "result": result,
            }
            place = self.host.file(CACHE)
            place.mkdir(parents=True, exist_ok=True)
            (place / f"{self.conflist['name']}-{container}-eth0").write_text(json.dumps(document))
        return result

    def delete(self, folder: str, container: str, ports: list[Json] | tuple[Json, ...] = (), netns: str = "") -> str:
        """What the plugins said on stderr."""
        path = self.host.file(f"{CACHE}/{self.conflist['name']}-{container}-eth0")
        tells = path.exists() and self.conflist["cniVersion"] >= "0.4.0"  # libcni's DelNetworkList
        result = json.loads(path.read_text())["result"] if tells else None
        said = ""
        for plugin in reversed(self.conflist["plugins"]):
            config = self._config(plugin, ports, result)
            answer = self.host.cni("DEL", config, container, **self._options(folder, plugin), netns=netns)
            assert (answer.status, answer.stdout) == (0, ""), answer.stdout
            said += answer.stderr
        if path.exists():
            path.unlink()
        return said

    def check(self, folder: str, container: str, ports: list[Json] | tuple[Json, ...] = ()) -> list[str]:
        """What each of the plugins finds wrong."""
        path = self.host.file(f"{CACHE}/{self.conflist['name']}-{container}-eth0")
        result = json.loads(path.read_text())["result"]
        found = []
        for plugin in self.conflist["plugins"]:
            config = self._config(plugin, ports, result)
            found.append(self.host.cni("CHECK", config, container, **self._options(folder, plugin)).words)
        return list(filter(None, found))

    def _call(
        self, verb: str, folder: str, plugin: Json, container: str, ports: Any, previous: Json, args: str
    ) -> Json:
        config = self._config(plugin, ports, previous)
        answer = self.host.cni(verb, config, container, args=args, **self._options(folder, plugin))
        assert answer.status == 0, f"{plugin['type']}: {answer.stdout}{answer.stderr}"
        return answer.document

    def _config(self, plugin: Json, ports: Any, previous: Json) -> Json:
        config = {**plugin, "name": self.conflist["name"], "cniVersion": self.conflist["cniVersion"]}
        if ports and plugin.get("capabilities", {}).get("portMappings"):
            config["runtimeConfig"] = {"portMappings": list(ports)}
        return config if previous is None else {**config, "prevResult": previous}

    def _options(self, folder: str, plugin: Json) -> dict[str, Any]:
        return {"plugin": f"{folder}/{plugin['type']}", "env": {"CNI_PATH": folder}}


def nerdctl(name: str = "bridge", bridge: str = "nerdctl0", subnet: str = "10.4.0.0/24") -> Json:
    """As nerdctl generates it for its default network."""
    gateway = subnet.rpartition(".")[0] + ".1"
    ipam = {
        "type": "host-local",
        "ranges": [[{"subnet": subnet, "gateway": gateway}]],
        "routes": [{"dst": "0.0.0.0/0"}],
    }
    main = {"type": "bridge", "bridge": bridge, "isGateway": True, "ipMasq": True, "hairpinMode": True, "ipam": ipam}
    return {
        "cniVersion": "1.0.0",
        "name": name,
        "nerdctlID": "17f29b073143d8cd97b5bbe492bdeffec1c5fee55cc1fe2112c8b9335f8b6121",
        "nerdctlLabels": {"nerdctl/default-network": "true"},
        "plugins": [
            main,
            {"type": "portmap", "capabilities": {"portMappings": True}},
            {"type": "firewall", "ingressPolicy": "same-bridge"},
            {"type": "tuning"},
        ],
    }


def with_nftables(conflist: Json) -> Json:
    """For reference plugins that have such backends: those of Debian ignore the keys."""
    more = {"bridge": {"ipMasqBackend": "nftables"}, "portmap": {"backend": "nftables"}}
    return {**conflist, "plugins": [{**item, **more.get(item["type"], {})} for item in conflist["plugins"]]}
