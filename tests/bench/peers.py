"""Who is measured, us and the others, each with the same face: `add` and `delete` of one attachment, as a runtime does.

A chain of CNI plugins hands its result from one to the next; netavark is called as podman calls it.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

from processes import FOLDER, Call, Space, run

Json = Any
DEBIAN = "/usr/lib/cni"  # where containernetworking-plugins has them


class Container:
    """One container's namespace, and what is published for it. Several may share a namespace, by an index each."""

    def __init__(self, space: Space, first_port: int, tcp: int = 2, udp: int = 0, index: int = 0) -> None:
        self.space = space
        self.ifname = f"eth{index}"
        self.name = f"{space.name}-{index}" if index else space.name
        self.ports = [
            {"HostPort": first_port + index, "ContainerPort": 80 + index, "Protocol": protocol, "HostIP": ""}
            for protocol, count in (("tcp", tcp), ("udp", udp))
            for index in range(count)
        ]


class Chain:
    """The plugins of one network, called in order; DEL in reverse with the result of ADD."""

    def __init__(self, label: str, folder: str, network: str, plugins: list[Json], version: str = "1.0.0") -> None:
        self.label = label
        self.folder = folder
        self.network = network
        self.plugins = plugins
        self.version = version
        self.results: dict[str, Json] = {}

    def calls(self, verb: str, container: Container, previous: Json = None) -> list[Call]:
        found = []
        order = list(enumerate(self.plugins))
        for index, plugin in reversed(order) if verb == "DEL" else order:
            config = {"cniVersion": self.version, "name": self.network, **plugin}
            if plugin["type"] in ("nftcni", "portmap"):
                config["runtimeConfig"] = {"portMappings": container.ports}
            if previous is not None:
                config["prevResult"] = previous
            path = FOLDER / f"{self.network}.{container.name}.{index}.json"
            path.write_text(json.dumps(config))
            found.append(self._call(verb, container, plugin["type"], str(path)))
        return found

    def _call(self, verb: str, container: Container, kind: str, path: str) -> Call:
        env = {
            "CNI_COMMAND": verb,
            "CNI_CONTAINERID": container.name,
            "CNI_NETNS": container.space.path,
            "CNI_IFNAME": container.ifname,
            "CNI_ARGS": "",
            "CNI_PATH": self.folder,
            "PATH": os.environ.get("PATH", "/usr/sbin:/usr/bin:/sbin:/bin"),
        }
        return Call([f"{self.folder}/{kind}"], env, path, path + ".out", path + ".err")

    def prepare(self, verb: str, container: Container) -> Operation:
        return Operation(self, verb, container)

    def about(self) -> str:
        """What the first plugin says of itself when nobody asks for anything; Debian's does not know its version."""
        path = f"{self.folder}/{self.plugins[0]['type']}"
        done = subprocess.run([path], capture_output=True, text=True, env={})
        said = " ".join((done.stdout + done.stderr).split("\n")[0].split())
        if "unknown" in said and self.folder == DEBIAN:
            return said.replace("unknown", run("dpkg-query", "-W", "-f", "${Version}", "containernetworking-plugins"))
        return said


class Operation:
    """One ADD or DEL of the whole chain, ready to be timed: configurations are written, but for what ADD hands on."""

    def __init__(self, chain: Chain, verb: str, container: Container) -> None:
        self.chain, self.verb, self.container = chain, verb, container
        previous = chain.results.get(container.name) if verb == "DEL" else None
        self.calls = chain.calls(verb, container, previous)

    def __call__(self) -> None:
        result: Json = None
        for call in self.calls:
            if self.verb == "ADD" and result is not None:
                path = Path(call.stdin)
                path.write_text(json.dumps({**json.loads(path.read_text()), "prevResult": result}))
            call()
            if self.verb == "ADD":
                result = json.loads(Path(call.out).read_text())
        if self.verb == "ADD":
            self.chain.results[self.container.name] = result


def ours(executable: str, network: str, *subnets: str, bridge: str = "") -> Chain:
    """Our one plugin object does what the reference chain does with four."""
    plugin = {
        "type": "nftcni",
        "bridge": bridge or f"br-{network}",
        "ipam": {"ranges": [[{"subnet": subnet}] for subnet in subnets]},
    }
    return Chain("nftcni", os.path.dirname(executable), network, [plugin], "1.1.0")


def reference(
    label: str, folder: str, network: str, subnet: str, *, nerdctl: bool = False, nftables: bool = False
) -> Chain:
    """What people write by hand, or `nerdctl network create`. `nftables` asks for the plugins' own backends, where they
    have one: the firewall plugin 1.10 has none."""
    bridge: dict[str, Json] = {
        "type": "bridge",
        "bridge": f"br-{network}"[:15],
        "isGateway": True,
        "ipMasq": True,
        "hairpinMode": True,
        "ipam": {"type": "host-local", "ranges": [[{"subnet": subnet}]], "routes": [{"dst": "0.0.0.0/0"}]},
    }
    portmap: dict[str, Json] = {"type": "portmap", "capabilities": {"portMappings": True}}
    if nftables:
        bridge["ipMasqBackend"] = portmap["backend"] = "nftables"
    if nerdctl:
        return Chain(
            *(label, folder, network),
            [bridge, portmap, {"type": "firewall", "ingressPolicy": "same-bridge"}, {"type": "tuning"}],
        )
    return Chain(label, folder, network, [bridge, {**portmap, "snat": True}, {"type": "firewall"}])


def converted(executable: str, chain: Chain) -> Chain:
    """The same network as `nftcni convert` writes it."""
    path = FOLDER / f"{chain.network}.conflist"
    path.write_text(json.dumps({"cniVersion": chain.version, "name": chain.network, "plugins": chain.plugins}))
    run(executable, "convert", str(path))
    made = json.loads(path.read_text())
    return Chain("converted", os.path.dirname(executable), chain.network, made["plugins"], made["cniVersion"])


class Netavark:
    """Podman has chosen the address before it calls netavark, so netavark does less than the others."""

    def __init__(self, executable: str, network: str, subnet: str) -> None:
        self.label = "netavark, nftables driver"
        self.executable = executable
        self.network = network
        self.subnet = subnet
        self.base = subnet.rsplit(".", 1)[0]
        self.results: dict[str, Json] = {}
        self.known: list[str] = []

    def about(self) -> str:
        return run(self.executable, "--version").strip()

    def prepare(self, verb: str, container: Container) -> Call:
        if container.name not in self.known:
            self.known.append(container.name)
        address = f"{self.base}.{2 + self.known.index(container.name)}"
        options = {
            "container_id": container.name.ljust(64, "0"),
            "container_name": container.name,
            "port_mappings": [
                {
                    "container_port": port["ContainerPort"],
                    "host_ip": "",
                    "host_port": port["HostPort"],
                    "protocol": port["Protocol"],
                    "range": 1,
                }
                for port in container.ports
            ],
            "networks": {self.network: {"static_ips": [address], "interface_name": "eth0"}},
            "network_info": {
                self.network: {
                    "name": self.network,
                    "id": self.network.encode().hex().ljust(64, "0"),
                    "driver": "bridge",
                    "network_interface": f"br-{self.network}"[:15],
                    "created": "2024-01-01T00:00:00Z",
                    "subnets": [{"subnet": self.subnet, "gateway": f"{self.base}.1"}],
                    "ipv6_enabled": False,
                    "internal": False,
                    "dns_enabled": False,
                    "ipam_options": {"driver": "host-local"},
                }
            },
        }
        path = FOLDER / f"{self.network}.{container.name}.json"
        path.write_text(json.dumps(options))
        (FOLDER / "netavark").mkdir(exist_ok=True)
        action = "setup" if verb == "ADD" else "teardown"
        argv = [self.executable, "--config", str(FOLDER / "netavark"), action, container.space.path]
        env = {"PATH": os.environ.get("PATH", "/usr/sbin:/usr/bin:/sbin:/bin"), "NETAVARK_FW": "nftables"}
        return Call(argv, env, str(path), str(path) + ".out", str(path) + ".err")
