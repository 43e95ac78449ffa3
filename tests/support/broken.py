"""A host on which everything works, to be broken in one place: published ports, a neighbour, a sibling.

A case says what breaks it (a shell's commands), which path is dead then, what the finding must name, and the remedy is
run as it is printed. The oracle of "dead" and "alive" is sockets.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from .scratch import PLUGIN, Host, Json, Namespace, network, port
from .traffic import QUICK, Server, ask

PATIENT = 4.0  # seconds: questions of ARP that nobody answered before are still given up (three, one a second)
SHORT = 0.4  # seconds of silence on a cable without delay
SUBNETS = ("10.88.0.0/24", "fd00:88::/64")
PORTS = [port(8080, 80), port(5353, 53, "udp")]


@dataclass
class Case:
    """`names` must all be in the finding, `remedy` in its commands; `path` is the one that dies. `see` is the command
    that finds it: explain for the port, unless doctor alone can."""

    name: str
    script: str
    names: tuple[str, ...]
    remedy: str = ""
    path: str = "lan"
    see: str = "explain 8080/tcp"
    closed: bool = False  # an unpublished port stays closed after the remedy

    def __str__(self) -> str:
        return self.name


class Scene:
    """The healthy host."""

    def __init__(self, host: Host) -> None:
        self.host = host
        host.run("sh", "-c", f"mkdir -p /run/bin /run/net.d; ln -s {Path(PLUGIN).resolve()} /run/bin/nftcni")
        host.env = {"PATH": "/run/bin:/usr/sbin:/usr/bin:/sbin:/bin", "NETCONFPATH": "/run/net.d"}
        self.lan = host.neighbour()
        self.config = network("net0", *SUBNETS, ports=PORTS, bridge="br0", version="1.0.0")
        host.add(self.config, "web")
        host.add(network("net0", *SUBNETS, bridge="br0", version="1.0.0"), "peer")
        self.web, self.peer = (host.place(name) for name in ("web", "peer"))
        self.servers = [
            *(Server(self.web, number) for number in (80, 9999)),
            Server(self.web, 53, "udp"),
            *(Server(self.lan, 81, name="lan"), Server(self.peer, 80), Server(host, 5000, "udp", name="host")),
        ]
        host.run("ip", "-n", "lan", "route", "add", SUBNETS[0], "via", "198.51.100.1")
        self.link = next(item["ifname"] for item in host.json("ip", "-j", "link") if self._is_port(item))

    def _is_port(self, item: Json) -> bool:
        return bool(item.get("link_index") == self.web.link("eth0")["ifindex"] and item.get("master") == "br0")

    def reach(self, path: str, timeout: float = QUICK) -> str:
        """The answer by one of the paths: a name and the address seen, `silence` or `refused`."""
        ways: dict[str, tuple[Namespace, str, int, str]] = {
            "lan": (self.lan, "198.51.100.1", 8080, "tcp"),
            "lan6": (self.lan, "2001:db8:100::1", 8080, "tcp"),
            "udp": (self.lan, "198.51.100.1", 5353, "udp"),
            "host": (self.host, "127.0.0.1", 8080, "tcp"),
            "out": (self.web, "198.51.100.2", 81, "tcp"),
            "sibling": (self.peer, "10.88.0.2", 80, "tcp"),
            "unpublished": (self.lan, "10.88.0.2", 9999, "tcp"),
        }
        place, address, number, protocol = ways[path]
        return ask(place, address, number, protocol, timeout)

    def lives(self, path: str, timeout: float = QUICK) -> bool:
        return self.reach(path, timeout) not in ("silence", "refused", "closed")

    def sh(self, script: str) -> None:
        text = script.replace("$LINK", self.link)
        done = self.host.call("sh", "-ec", text)
        assert done.returncode == 0, f"{text}\n{done.stdout}{done.stderr}"

    def findings(self, words: str) -> list[Json]:
        """Of `explain` or `doctor`, in order."""
        done = self.host.command(*words.split(), "--json")
        assert "Traceback" not in done.stderr and done.returncode in (0, 1), done.stdout + done.stderr
        document = json.loads(done.stdout)
        steps = (
            document["findings"] if words == "doctor" else [step for way in document["ways"] for step in way["steps"]]
        )
        found = [step for step in steps if step["verdict"] in ("warn", "stop")]
        assert done.returncode == bool(found) and document["well"] == (not found)
        return found

    def close(self) -> None:
        for server in self.servers:
            server.close()


def examine(scene: Scene, case: Case) -> None:
    """Dead; found by name, with a remedy; alive after it; and then there is nothing more to find."""
    scene.sh(case.script)
    if case.path:
        assert not scene.lives(case.path, SHORT), f"{case.path} is not dead: {scene.reach(case.path)}"
    found = scene.findings(case.see)
    texts = [f"{step['what']} {step['because']}" for step in found]
    named = [step for step, text in zip(found, texts) if all(word in text for word in case.names)]
    assert named, f"nothing names {case.names}: {texts}"
    commands = list(dict.fromkeys(command for step in found for command in step["remedy"]))
    assert any(case.remedy in command for step in named for command in step["remedy"]), commands
    scene.sh("\n".join(commands))
    if case.path:
        assert scene.lives(case.path) or scene.lives(case.path, PATIENT), (
            f"{case.path} is dead after {commands}: {scene.reach(case.path)}"
        )
    if case.closed:
        assert not scene.lives("unpublished", SHORT), f"{commands} opened what is not published"
    rest = scene.findings("doctor")
    assert rest == [], f"after {commands}: {rest}"
