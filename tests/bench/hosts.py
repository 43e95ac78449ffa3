"""Scratch hosts of the benchmark: network namespaces in one mount namespace, so that samples of several alternate.

Each has a network with one container that stays, so that no measured call makes or removes a bridge.
"""

from __future__ import annotations

import time

from peers import Chain, Container, Netavark
from processes import Space, new_space, run

SETTLE = 0.04  # seconds: deleting a link or a rule keeps the kernel busy for 15-35 ms after everybody has been answered
FOREIGN_RULES = 20000
LINKS = 1000
DATA_DIR = "/run/nftcni"  # the plugin's default


class BenchHost:
    """One host, and who adds containers there."""

    def __init__(self, name: str, peer: Chain | Netavark) -> None:
        self.name = name
        self.peer = peer
        self.space: Space = new_space(name)
        with self.space.entered():
            run("ip", "link", "set", "lo", "up")
        self._spaces = 0

    def container(self, first_port: int, tcp: int = 2, udp: int = 0) -> Container:
        self._spaces += 1
        return Container(new_space(f"{self.name}-c{self._spaces}"), first_port, tcp, udp)

    def keep(self, first_port: int = 9000, tcp: int = 2, udp: int = 0) -> Container:
        """A container that stays."""
        container = self.container(first_port, tcp, udp)
        operation = self.peer.prepare("ADD", container)
        with self.space.entered():
            operation()
        time.sleep(SETTLE)
        return container

    def fill(self, code: str, attachments: int, foreign: bool) -> None:
        """Before the first container. Foreign rules are a table of somebody else's with a rule for every address."""
        networks = 10 if attachments >= 1000 else 1
        with self.space.entered():
            words = ("/usr/bin/python3", "-I", code + "/../fill.py", code, DATA_DIR)
            run(*words, str(networks), str(attachments // networks))
            if foreign:
                rules = "\n".join(
                    f"add rule inet foreign rules ip saddr 192.0.{index >> 8 & 255}.{index & 255} tcp dport "
                    f"{1 + index % 1000} accept"
                    for index in range(FOREIGN_RULES)
                )
                chain = "add table inet foreign\nadd chain inet foreign rules\n"
                run("nft", "-f", "-", text=chain + rules + "\n")

    def add_links(self, bridge: str) -> None:
        """A bridge with as many ports as one takes, beside the measured one."""
        far = new_space(f"{self.name}-{bridge}")
        lines = [f"link add {bridge} type bridge", f"link set {bridge} up"]
        for index in range(LINKS):
            veth = f"link add port{index} master {bridge} up type veth"
            lines.append(f"{veth} peer name far{index} netns {far.name}")
        with self.space.entered():
            run("ip", "-batch", "-", text="\n".join(lines) + "\n")


def neighbour(host: BenchHost) -> Space:
    """Another machine on a cable, 198.51.100.2; the host is 198.51.100.1."""
    other = new_space(f"{host.name}-lan")
    with host.space.entered():
        run("ip", "link", "add", "to-lan", "type", "veth", "peer", "name", "eth0", "netns", other.name)
        run("ip", "addr", "add", "198.51.100.1/24", "dev", "to-lan")
        run("ip", "link", "set", "to-lan", "up")
    with other.entered():
        run("ip", "addr", "add", "198.51.100.2/24", "dev", "eth0")
        run("ip", "link", "set", "eth0", "up")
        run("ip", "link", "set", "lo", "up")
    return other
