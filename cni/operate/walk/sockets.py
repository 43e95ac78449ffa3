"""Who listens on which address and port in this network namespace, and which process that is."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
from dataclasses import dataclass, replace

from cni.kernel.listeners import of_ports
from nft.addresses import Address, from_packed, parse_address

EVERYWHERE = Address(6, 0)
LISTENING = {"tcp": "0A", "udp": "07"}  # TCP_LISTEN, TCP_CLOSE: include/net/tcp_states.h


@dataclass(frozen=True)
class Listener:
    """A listening socket of this namespace."""

    proto: str
    address: Address
    port: int
    inode: int = 0
    only_its_family: bool = False
    waiting: int = 0  # connections that nobody has accepted yet, or bytes that nobody has read

    def takes(self, address: Address) -> bool:
        """Whether it accepts packets to the address. A socket on :: also takes IPv4, unless it is IPV6_V6ONLY."""
        if self.address.is_unspecified:
            return self.address.version == address.version or (self.address.version == 6 and not self.only_its_family)
        return self.address == address

    def __str__(self) -> str:
        return f"[{self.address}]:{self.port}" if self.address.version == 6 else f"{self.address}:{self.port}"


def listeners() -> list[Listener]:
    """The listeners in this thread's network namespace."""
    found = []
    for proto, state in LISTENING.items():
        for file in (proto, f"{proto}6"):
            for fields in _lines(f"/proc/thread-self/net/{file}"):
                if len(fields) > 9 and fields[3] == state and (proto == "tcp" or fields[2].endswith(":0000")):
                    address, _, port = fields[1].partition(":")
                    waiting = int(fields[4].partition(":")[2], 16)  # sk_ack_backlog of a listener (get_tcp4_sock)
                    found.append(Listener(proto, _address(address), int(port, 16), int(fields[9]), waiting=waiting))
    for fields in _lines("/proc/thread-self/net/sctp/eps"):
        if len(fields) > 8 and fields[5].isdigit():
            for text in fields[8:]:
                with contextlib.suppress(ValueError):
                    found.append(Listener("sctp", parse_address(text), int(fields[5]), int(fields[7])))
    only = _of_one_family(found)
    return [replace(one, only_its_family=one.inode in only) for one in found]


def _of_one_family(found: list[Listener]) -> set[int]:
    """The inodes of sockets with IPV6_V6ONLY, which no file of /proc tells."""
    only: set[int] = set()
    for proto in LISTENING:
        ports = {one.port for one in found if one.proto == proto and one.address == EVERYWHERE}
        with contextlib.suppress(OSError):  # without sock_diag in the kernel, nothing is known
            only |= {one.inode for one in of_ports(proto, ports) if one.only_its_family} if ports else set()
    return only


def _lines(path: str) -> list[list[str]]:
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            return [line.split() for line in file][1:]
    except OSError:
        return []


def _address(text: str) -> Address:
    """The address in /proc's form: 32-bit words in the machine's byte order."""
    words = [struct.pack("=I", int(text[start : start + 8], 16)) for start in range(0, len(text), 8)]
    raw = b"".join(words)
    if len(raw) == 16 and raw[:12] == socket.inet_pton(socket.AF_INET6, "::ffff:0.0.0.0")[:12]:
        raw = raw[12:]
    return from_packed(raw)


@dataclass(frozen=True)
class Process:
    """A process that holds a socket."""

    pid: int
    name: str
    command: str

    def __str__(self) -> str:
        return f"{self.name} (process {self.pid})"


def processes_of(inodes: set[int]) -> dict[int, Process]:
    """The processes by their sockets' inodes. It reads all of /proc, so it is called only if something was found."""
    found: dict[int, Process] = {}
    wanted = {f"socket:[{inode}]": inode for inode in inodes if inode}
    for entry in os.listdir("/proc") if wanted else ():
        if not entry.isdigit():
            continue
        with contextlib.suppress(OSError):
            for descriptor in os.listdir(f"/proc/{entry}/fd"):
                with contextlib.suppress(OSError):
                    inode = wanted.get(os.readlink(f"/proc/{entry}/fd/{descriptor}"))
                    if inode is not None:
                        found.setdefault(inode, _process(int(entry)))
    return found


def _process(pid: int) -> Process:
    def read(name: str) -> str:
        try:
            with open(f"/proc/{pid}/{name}", encoding="utf-8", errors="replace") as file:
                return file.read().replace("\0", " ").strip()
        except OSError:
            return "?"

    return Process(pid, read("comm"), read("cmdline"))


def stopped(process: Process, root: str = "/") -> str:
    """The command that lets a held process go on, "" if it is not held: stopped by a signal (T of proc(5)), or frozen
    with its control group, as by a runtime that pauses the container."""
    with contextlib.suppress(OSError):
        with open(f"{root}proc/{process.pid}/stat", encoding="utf-8", errors="replace") as file:
            if file.read().rpartition(")")[2].split()[:1] == ["T"]:
                return f"kill -CONT {process.pid}"
        with open(f"{root}proc/{process.pid}/cgroup", encoding="utf-8", errors="replace") as file:
            group = f"{root}sys/fs/cgroup{file.read().rpartition('0::')[2].strip()}"
        with open(f"{group}/cgroup.events", encoding="ascii") as file:
            return f"echo 0 > {group}/cgroup.freeze" if "frozen 1" in file.read() else ""
    return ""
