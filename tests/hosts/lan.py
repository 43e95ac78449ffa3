"""Several scratch hosts on one LAN: nodes with their containers, one machine without any, and the switch between them.

192.0.2.101 and 2001:db8::101 is node 1, and so on; 192.0.2.9 the machine without containers. How nodes learn routes to
each other's containers is up to the tests.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from support.scratch import CHECKOUT, Host, Namespace
from support.traffic import Server, ask

Json = Any
[TEMPLATE] = (CHECKOUT / "conf").rglob("podcidr.template")


class Node(Host):
    """A machine on the LAN. `subnets` are for its own containers."""

    def __init__(self, switch: Host, number: int, name: str) -> None:
        super().__init__()
        self.name = name
        self.number = number
        self.address, self.address6 = f"192.0.2.{number}", f"2001:db8::{number}"
        self.subnets = (f"10.244.{number % 100}.0/24", f"fd00:244:{number % 100}::/64")
        self.servers: dict[str, Server] = {}
        self._added: dict[str, tuple[Json, Json]] = {}
        self.ips = {name: [self.address, self.address6]}  # its own and those of its containers, by name
        plug(switch, self, name, self.address, self.address6)

    def reach(self, other: Node) -> None:
        """Static routes to another node's containers."""
        for subnet, way in zip(other.subnets, (other.address, other.address6)):
            self.run("ip", "route", "replace", subnet, "via", way)

    def pods(self, *ports: Json, **keys: Json) -> Json:
        """The network that containerd would write for this node from our template."""
        return rendered(self.subnets, *ports, **keys)

    def pod(self, config: Json, name: str, **options: Json) -> Namespace:
        """A container with a web server of its name."""
        result = self.add(config, name, **options)
        inside = next(item for item in self.namespaces if item.name == name)
        self.ips[name] = [item["address"].split("/")[0] for item in result["ips"]]
        self.servers[name] = Server(inside, 80)
        self._added[name] = (config, options)
        return inside

    def remove(self, name: str) -> None:
        """The container with all that it had."""
        config, options = self._added.pop(name)
        self.servers.pop(name).close()
        del self.ips[name]
        self.delete(config, name, **options)
        inside = next(item for item in self.namespaces if item.name == name)
        self.namespaces.remove(inside)
        inside.close()
        self.run("ip", "netns", "delete", name)

    def serve(self, port: int) -> None:
        self.servers[self.name] = Server(self, port)

    def close(self) -> None:
        for server in self.servers.values():
            server.close()
        super().close()


def plug(switch: Host, host: Host, name: str, address: str, address6: str) -> None:
    """A cable from the switch to the host's eth0."""
    # Of a node that was closed: the kernel takes its links away when it comes to it.
    switch.run("ip", "link", "del", f"p-{name}", check=False)
    switch.run("ip", "link", "add", f"p-{name}", "type", "veth", "peer", "name", "eth0", "netns", str(host.pid))
    switch.run("ip", "link", "set", f"p-{name}", "master", "br0", "up")
    host.set_sysctl("ipv6/conf/eth0/accept_dad", "0")
    host.run("ip", "address", "add", f"{address}/24", "dev", "eth0")
    host.run("ip", "address", "add", f"{address6}/64", "dev", "eth0", "nodad")
    host.run("ip", "link", "set", "eth0", "up")
    host.run("ip", "route", "replace", "default", "via", "192.0.2.1")
    host.run("ip", "-6", "route", "replace", "default", "via", "2001:db8::1")


class Lan:
    """The switch, `outside` without containers, and `nodes` with them."""

    def __init__(self, nodes: int) -> None:
        self.switch = Host()
        self.switch.run("ip", "link", "add", "br0", "type", "bridge")
        self.switch.run("ip", "link", "set", "br0", "up")
        self.outside = Node(self.switch, 9, "outside")
        self.outside.serve(81)
        self.nodes = [Node(self.switch, 100 + number, f"h{number}") for number in range(1, nodes + 1)]

    def place(self, name: str) -> Namespace:
        """A host or a container of one, by its name."""
        hosts = (*self.nodes, self.outside)
        return next(item for host in hosts for item in (host, *host.namespaces) if item.name == name)

    def address(self, name: str, version: int) -> str:
        known = next(host.ips[name] for host in (*self.nodes, self.outside) if name in host.ips)
        return next(address for address in known if (":" in address) == (version == 6))

    def route(self) -> None:
        """Static routes: everybody knows where each node's containers are."""
        for host in (*self.nodes, self.outside):
            for node in self.nodes:
                if node is not host:
                    host.reach(node)

    def close(self) -> None:
        for host in (*self.nodes, self.outside, self.switch):
            host.close()


def rendered(subnets: tuple[str, ...], *ports: Json, **keys: Json) -> Json:
    """What containerd and libcni make of the template for one plugin call."""
    ranges = ", ".join(f'[{{"subnet": "{subnet}"}}]' for subnet in subnets)
    document = json.loads(re.sub(r"\{\{range.*\{\{end\}\}", ranges, Path(TEMPLATE).read_text()))
    [plugin] = document["plugins"]
    config = {"cniVersion": document["cniVersion"], "name": document["name"], **plugin, **keys}
    if ports:
        config["runtimeConfig"] = {"portMappings": list(ports)}
    return config


def seen(place: Namespace, address: str, port: int = 80, protocol: str = "tcp") -> str:
    """Who answered and whom it saw. A first packet may be lost where neighbours are only just being learned."""
    answer = ask(place, address, port, protocol)
    return ask(place, address, port, protocol) if answer == "silence" else answer


def wait_for(condition: Callable[[], Any], what: str, seconds: float = 30) -> Any:
    """The condition's first true value. The limit only ends a test that has failed already."""
    end = time.monotonic() + seconds
    while True:
        found = condition()
        if found:
            return found
        assert time.monotonic() < end, f"waited in vain for {what}"
        time.sleep(0.1)
