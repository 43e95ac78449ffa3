"""Many at once, and much at once: ADDs and DELs side by side, GC and repair of everything, a host that really is full.

All of it with real links. Two processors are used, whatever the machine has. What is counted is `worker`'s to name.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

from hosts import SETTLE, BenchHost
from peers import Chain, Container, Netavark
from processes import BARE, FOLDER, Call, Series, new_space, run

BATCH = 64
ONES = 5  # single calls before each crowd
SETTLED = 1.0  # seconds after a crowd, for the kernel


@contextlib.contextmanager
def two_processors() -> Iterator[None]:
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, set(sorted(allowed)[:2]))
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)


def together(host: BenchHost, calls: list[Call]) -> float:
    """Milliseconds from the first start to the last end."""
    with host.space.entered():
        start = time.perf_counter()
        running = [(call.start(), call) for call in calls]
        ended = [(os.waitpid(pid, 0)[1], call) for pid, call in running]
        took = (time.perf_counter() - start) * 1e3
    for status, call in ended:
        call.check(status)
    return took


def calls_of(chain: Chain | Netavark, verb: str, containers: list[Container]) -> list[Call]:
    assert isinstance(chain, Chain)
    return [call for container in containers for call in chain.calls(verb, container)]


def at_once(host: BenchHost, counts: tuple[int, ...], rounds: int) -> dict[str, Series]:
    """Of one plugin: single calls, that many at once, and as many bare interpreters, which no plugin can beat."""
    host.keep()
    one = host.container(29000)
    crowd = [host.container(30000 + 2 * index) for index in range(max(counts))]
    found: dict[str, Series] = {}
    with two_processors():
        for _ in range(rounds):
            for verb in ("ADD", "DEL") * ONES:
                found.setdefault(f"{verb} single", Series()).values.append(
                    together(host, calls_of(host.peer, verb, [one]))
                )
                time.sleep(SETTLE)
            for count in counts:
                for verb in ("ADD", "DEL"):
                    took = together(host, calls_of(host.peer, verb, crowd[:count]))
                    found.setdefault(f"{verb} {count} at once", Series()).values.append(took)
                    time.sleep(SETTLED)
                bare = found.setdefault(f"bare {count} at once", Series())
                bare.values.append(together(host, [Call(BARE)] * count))
    return found


def attach(host: BenchHost, chain: Chain | Netavark, count: int, first_port: int = 10000) -> None:
    """So many real attachments, a batch at a time; all in one namespace, by interfaces of their own."""
    space = new_space(f"{host.name}-{first_port}")
    made = [Container(space, first_port + 2 * index, index=index) for index in range(1, count + 1)]
    for start in range(0, count, BATCH):
        together(host, calls_of(chain, "ADD", made[start : start + BATCH]))
    time.sleep(SETTLED)


def everything(host: BenchHost, executable: str, count: int, rounds: int) -> dict[str, Series]:
    """Repair after a flush, and GC, of so many attachments."""
    found = {"repair": Series(), "GC": Series()}
    assert isinstance(host.peer, Chain)
    plugin = {**host.peer.plugins[0], "cniVersion": host.peer.version, "name": host.peer.network}
    path = FOLDER / "gc.json"
    path.write_text(json.dumps({**plugin, "cni.dev/valid-attachments": []}))
    path_of = os.environ.get("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
    collect = Call([executable], {"CNI_COMMAND": "GC", "CNI_PATH": host.peer.folder, "PATH": path_of}, str(path))
    mend = Call([executable, "repair"], {"PATH": path_of})
    for number in range(rounds):
        attach(host, host.peer, count, 10000 + 2 * count * number)
        with host.space.entered():
            run("nft", "flush", "ruleset")
        found["repair"].values.append(together(host, [mend]))
        time.sleep(SETTLED)
        found["GC"].values.append(together(host, [collect]))
        assert not list(Path("/run/nftcni").glob(f"*/attachments/{host.peer.network}/*")), "GC left records"
        time.sleep(SETTLED)
    return found
