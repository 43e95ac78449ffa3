"""Scratch hosts: network and mount namespaces of their own, where the plugin may do what it likes to links and tables.

Here lives everything that makes a host, its containers and its neighbours, and that calls the plugin as a runtime does.
Sending traffic is `traffic`; what a test compares with is the kernel, by `ip -j`, `nft -j` and /proc.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]
PLUGIN = os.environ.get("NFTCNI_EXECUTABLE", str(CHECKOUT / "conf" / "nftcni"))
CLONE_NEWNET = 0x40000000
SETUP = """
mount -t tmpfs -o mode=755 scratch /run && mkdir -p /run/netns /run/cni
mount -t tmpfs -o mode=755 scratch /var/lib/cni 2>/dev/null || true
ip link set lo up
echo 0 > /proc/sys/net/ipv4/ip_forward
echo 0 > /proc/sys/net/ipv6/conf/all/forwarding
echo ready
exec sleep infinity
"""
_libc = ctypes.CDLL(None, use_errno=True)

Json = Any


class Namespace:
    """A network namespace. `path` is what a program inside the host's mount namespace calls it."""

    def __init__(self, name: str, path: str, fd: int) -> None:
        self.name = name
        self.path = path
        self.fd = fd

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        """The calling thread is in the namespace; sockets made here stay there for good."""
        home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        try:
            _setns(self.fd)
            yield
        finally:
            _setns(home)
            os.close(home)

    def run(self, *words: str, check: bool = True) -> str:
        """A program of the machine in this network namespace alone."""
        command = ["nsenter", f"--net=/proc/{os.getpid()}/fd/{self.fd}", "--", *words]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if check and done.returncode:
            raise AssertionError(f"{' '.join(words)}: exit status {done.returncode}\n{done.stdout}{done.stderr}")
        return done.stdout

    def json(self, *words: str) -> Json:
        return json.loads(self.run(*words) or "[]")

    def link(self, name: str) -> Json:
        """What `ip -d link` says of one link, None if there is none."""
        found = [item for item in self.json("ip", "-j", "-d", "link", "show") if item.get("ifname") == name]
        return found[0] if found else None

    def addresses(self, name: str) -> set[str]:
        """Global and site addresses with their prefix lengths; the kernel's own link-local ones are left out."""
        return set().union(*map(_lasting, self.json("ip", "-j", "addr", "show", "dev", name)))

    def sysctl(self, key: str) -> str:
        with self.entered():
            return Path("/proc/sys/net", key).read_text().strip()

    def sysctl_exists(self, key: str) -> bool:
        with self.entered():
            return Path("/proc/sys/net", key).exists()

    def set_sysctl(self, key: str, value: str) -> None:
        with self.entered():
            Path("/proc/sys/net", key).write_text(value)

    def close(self) -> None:
        os.close(self.fd)


def _lasting(item: Json) -> set[str]:
    """The addresses of one link in `ip -j addr` that the kernel does not make by itself."""
    infos = item.get("addr_info", [])
    return {f"{info['local']}/{info['prefixlen']}" for info in infos if info["scope"] != "link"}


def _setns(fd: int) -> None:
    if _libc.setns(fd, CLONE_NEWNET):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


@dataclass
class Answer:
    """What a runtime sees of one call. `document` is stdout as JSON, None when it was empty."""

    status: int
    stdout: str
    stderr: str
    document: Json = field(init=False)

    def __post_init__(self) -> None:
        self.document = json.loads(self.stdout) if self.stdout.strip() else None

    @property
    def code(self) -> int:
        """The error's code, 0 on success."""
        return int(self.document["code"]) if self.status else 0

    @property
    def words(self) -> str:
        """The error as one text."""
        return f"{self.document.get('msg', '')} | {self.document.get('details', '')}" if self.status else ""


class Host(Namespace):
    """A scratch host. `env` holds what every call of the plugin gets besides the CNI variables."""

    def __init__(self) -> None:
        self._holder = subprocess.Popen(
            ["unshare", "--net", "--mount", "--propagation", "private", "sh", "-ec", SETUP],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._holder.stdout is not None
        if self._holder.stdout.readline().strip() != "ready":
            raise AssertionError("a scratch host needs root with CAP_SYS_ADMIN and CAP_NET_ADMIN")
        self.pid = self._holder.pid
        super().__init__("host", f"/proc/{self.pid}/ns/net", os.open(f"/proc/{self.pid}/ns/net", os.O_RDONLY))
        self.env: dict[str, str] = {}
        self.namespaces: list[Namespace] = []

    # Programs on this host

    def popen(self, *words: str, env: dict[str, str] | None = None, **options: Any) -> subprocess.Popen[str]:
        command = ["nsenter", "-t", str(self.pid), "--net", "--mount", "--wd=" + os.getcwd(), "--", *words]
        full = {**os.environ, **self.env, **(env or {})}
        return subprocess.Popen(command, env=full, text=True, **options)

    def call(self, *words: str, input: str = "", env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        pipes: dict[str, Any] = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
        with self.popen(*words, env=env, **pipes) as process:
            try:
                out, err = process.communicate(input, timeout=120)
            except subprocess.TimeoutExpired:
                process.kill()  # or leaving the block would wait for it
                raise
        return subprocess.CompletedProcess(words, process.returncode, out, err)

    def run(self, *words: str, check: bool = True) -> str:
        done = self.call(*words)
        if check and done.returncode:
            raise AssertionError(f"{' '.join(words)}: exit status {done.returncode}\n{done.stdout}{done.stderr}")
        return done.stdout

    def nft(self, text: str) -> None:
        done = self.call("nft", "-f", "-", input=text)
        assert done.returncode == 0, done.stderr

    def file(self, path: str) -> Path:
        """A path of this host's mount namespace, as this process can open it."""
        return Path(f"/proc/{self.pid}/root{path}")

    # Other namespaces

    def container(self, name: str) -> Namespace:
        """An empty network namespace, as runtimes make it: the loopback is down."""
        self.run("ip", "netns", "add", name)
        path = f"/run/netns/{name}"
        return self._keep(Namespace(name, path, os.open(self.file(path), os.O_RDONLY)))

    def neighbour(self, name: str = "lan", number: int = 1) -> Namespace:
        """Another machine on a cable: 198.51.100.2 and 2001:db8:100::2 for number 1, the host has .1 and ::1."""
        other = self.container(name)
        self.run("ip", "link", "add", f"to-{name}", "type", "veth", "peer", "name", "eth0", "netns", name)
        v4, v6 = f"198.51.{99 + number}.", f"2001:db8:{99 + number}::"
        # A cable that was plugged in long ago: no address is tentative, and both ends know each other.
        for place, link in ((self, f"to-{name}"), (other, "eth0")):
            place.set_sysctl(f"ipv6/conf/{link}/accept_dad", "0")
        for run, link, last in ((self.run, f"to-{name}", "1"), (other.run, "eth0", "2")):
            run("ip", "addr", "add", f"{v4}{last}/24", "dev", link)
            run("ip", "addr", "add", f"{v6}{last}/64", "dev", link, "nodad")
            run("ip", "link", "set", link, "up")
        for place, link, far, mac in (
            (self, f"to-{name}", f"{v6}2", other.link("eth0")["address"]),
            (other, "eth0", f"{v6}1", self.link(f"to-{name}")["address"]),
        ):
            place.run("ip", "neigh", "replace", far, "lladdr", mac, "dev", link, "nud", "permanent")
        other.run("ip", "link", "set", "lo", "up")
        return other

    def end(self, name: str) -> None:
        """A namespace goes as when its last process ends. The kernel takes its links down later, in a worker of its own
        (cleanup_net), so this waits until their host ends are gone too."""
        place = self.place(name)
        ends = {item["link_index"] for item in place.json("ip", "-j", "link") if "link_index" in item}
        self.namespaces.remove(place)
        place.close()
        self.run("ip", "netns", "del", name)
        for _ in range(200):
            if ends.isdisjoint(item["ifindex"] for item in self.json("ip", "-j", "link")):
                return
            time.sleep(0.05)
        raise AssertionError(f"the links of the namespace {name} are still there")

    def place(self, name: str) -> Namespace:
        """This host by "host", any other namespace by its own name."""
        return self if name == self.name else next(item for item in self.namespaces if item.name == name)

    def bridge_netfilter(self, value: str) -> None:
        """Whether bridged frames pass this host's IP tables too, as br_netfilter makes them by default."""
        if not Path("/proc/sys/net/bridge").is_dir():
            pytest.skip("NOT RUN: bridge-nf-call-iptables needs the kernel module br_netfilter, which is not loaded")
        for key in ("iptables", "ip6tables"):
            self.set_sysctl(f"bridge/bridge-nf-call-{key}", value)

    def _keep(self, namespace: Namespace) -> Namespace:
        self.namespaces.append(namespace)
        return namespace

    # The plugin

    def cni(
        self,
        verb: str,
        config: Json,
        container: str = "c1",
        netns: str | None = None,
        ifname: str = "eth0",
        args: str = "",
        env: dict[str, str] | None = None,
        plugin: str = PLUGIN,
    ) -> Answer:
        """One call as libcni makes it. `config` is an object, or text for what no runtime would send."""
        variables = {
            "CNI_COMMAND": verb,
            "CNI_CONTAINERID": container,
            "CNI_NETNS": f"/run/netns/{container}" if netns is None else netns,
            "CNI_IFNAME": ifname,
            "CNI_ARGS": args,
            "CNI_PATH": "/nonexistent",
            **(env or {}),
        }
        text = config if isinstance(config, str) else json.dumps(config)
        done = self.call(plugin, input=text, env=variables)
        return Answer(done.returncode, done.stdout, done.stderr)

    def add(self, config: Json, container: str = "c1", **options: Any) -> Json:
        """The result of an ADD that must succeed; the container's namespace is made if need be."""
        if options.get("netns") is None and container not in {item.name for item in self.namespaces}:
            self.container(container)
        answer = self.cni("ADD", config, container, **options)
        assert answer.status == 0, answer.stdout + answer.stderr
        return answer.document

    def delete(self, config: Json, container: str = "c1", **options: Any) -> None:
        answer = self.cni("DEL", config, container, **options)
        assert (answer.status, answer.stdout) == (0, ""), answer.stdout + answer.stderr

    def refused(self, verb: str, config: Json, container: str = "c1", **options: Any) -> Answer:
        """The refusal of a call that must fail by a proper CNI error and change nothing."""
        before = self.snapshot()
        answer = self.cni(verb, config, container, **options)
        assert answer.status != 0, f"{verb} succeeded: {answer.stdout}"
        assert {"cniVersion", "code", "msg"} <= set(answer.document), answer.stdout
        assert "Traceback" not in answer.stdout + answer.stderr
        assert self.snapshot() == before
        return answer

    def command(self, *words: str) -> subprocess.CompletedProcess[str]:
        """`nftcni list` and the like."""
        return self.call(PLUGIN, *words)

    # What is on the host

    def elements(self) -> dict[str, list[Json]]:
        """The table's sets and maps with their elements as `nft -j` prints them, empty ones left out; {} for none."""
        done = self.call("nft", "-j", "list", "table", "inet", "nftcni")
        found = {}
        for item in json.loads(done.stdout)["nftables"] if done.returncode == 0 else []:
            for kind in ("set", "map"):
                if kind in item and item[kind].get("elem"):
                    found[item[kind]["name"]] = sorted(item[kind]["elem"], key=json.dumps)
        return found

    def state_files(self) -> list[str]:
        """Files and links in the state folder that stand for something, and empty folders below its own ones; memory of
        the last address does not."""
        root = self.file("/run/nftcni")
        found = []
        for path in root.rglob("*"):
            place = path.relative_to(root)
            if path.is_symlink() or path.is_file():
                found.append(str(place))
            elif len(place.parts) > 2 and not any(path.iterdir()):
                found.append(f"{place}/")
        meaningless = ("/lock", "/rules")
        return sorted(path for path in found if not path.endswith(meaningless) and "/last/" not in path)

    def rest(self) -> None:
        """Waits until the kernel has told of the carrier of each bridge that has one by now, a second later at worst
        (linkwatch): the bridge's routes come with that."""
        for _ in range(100):
            links = self.json("ip", "-j", "link")
            carried = {link["master"] for link in links if "master" in link and "LOWER_UP" in link["flags"]}
            if all(link["operstate"] == "UP" for link in links if link["ifname"] in carried and "UP" in link["flags"]):
                return
            time.sleep(0.05)

    def links(self) -> list[Json]:
        """All links with what makes them what they are; numbers that only the kernel gives are left out."""
        keys = ("ifname", "mtu", "master", "address", "link_type", "group")
        return [
            {**{key: item.get(key) for key in keys}, "up": "UP" in item["flags"]}
            for item in self.json("ip", "-j", "link")
        ]

    def snapshot(self) -> dict[str, Json]:
        """Everything on the host that an attachment may change, but for forwarding, which is never taken back."""
        self.rest()
        return {
            "links": self.links(),
            "addresses": {item["ifname"]: _lasting(item) for item in self.json("ip", "-j", "addr", "show")},
            "routes": self.routes(),
            "elements": self.elements(),
            "state": self.state_files(),
            "flows": self.flows(),
        }

    def routes(self) -> list[str]:
        """Link-local, multicast and anycast ones come and go with the kernel's duplicate address detection."""
        lines = self.run("sh", "-c", "ip route show table all; ip -6 route show table all")
        kernel_made = ("fe80:", "multicast", "anycast")
        kept = [line for line in lines.splitlines() if not any(word in line for word in kernel_made)]
        return sorted(line.replace("linkdown", "").strip() for line in kept)

    def sysctls(self) -> dict[str, str]:
        """All of /proc/sys/net that a network namespace has."""
        volatile = (
            "stable_secret",
            "nf_conntrack_count",
            "flush",
            "icmp_",
        )
        root = Path("/proc/sys/net")
        found = {}
        with self.entered():
            for path in root.rglob("*"):
                key = str(path.relative_to(root))
                if path.is_file() and not any(word in key for word in volatile):
                    with contextlib.suppress(OSError):
                        found[key] = path.read_text()
        return found

    def flows(self) -> list[str]:
        """Connections in the tracker that lead through a published port, without their timers and counters."""
        file = Path("/proc/net/nf_conntrack")
        if file.exists():
            with self.entered():
                lines = file.read_text()
        else:
            lines = self.run("conntrack", "-L", "-o", "extended")
        return sorted(line for line in lines.splitlines() if " udp " in line)

    def close(self) -> None:
        for namespace in self.namespaces:
            namespace.close()
        super().close()
        self._holder.kill()
        self._holder.wait()
        assert self._holder.stdout is not None
        self._holder.stdout.close()


def network(
    name: str = "net0",
    *subnets: str,
    ports: list[Json] | tuple[Json, ...] = (),
    version: str = "1.1.0",
    **keys: Json,
) -> Json:
    """A configuration with one range set for each subnet (one IPv4 network by default) and a bridge of its own."""
    config: Json = {"cniVersion": version, "name": name, "type": "nftcni", "bridge": f"br-{name}"[:15]}
    config["ipam"] = {"ranges": [[{"subnet": subnet}] for subnet in subnets or ("10.88.0.0/24",)]}
    if ports:
        config["runtimeConfig"] = {"portMappings": list(ports)}
    config.update(keys)
    return {key: value for key, value in config.items() if value is not None}


def port(host: int, inside: int, protocol: str = "tcp", ip: str = "") -> Json:
    """One entry of portMappings, in the case that go-cni writes."""
    return {"HostPort": host, "ContainerPort": inside, "Protocol": protocol, "HostIP": ip}
