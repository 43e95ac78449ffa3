"""Whether the program that listens also works: it may leave connections waiting."""

from __future__ import annotations

import time

from cni.model.attachment import Attachment
from cni.operate.walk.kernel import Kernel
from cni.operate.walk.sockets import Listener, processes_of, stopped
from cni.operate.walk.step import Step, ok, stop, warn

LOOKS, APART = 10, 0.03  # a busy program accepts what waits between two of these looks


def waiting_steps(kernel: Kernel, item: Attachment, takers: list[Listener]) -> list[Step]:
    """The steps for sockets that all have something waiting."""
    one = takers[0]
    what = f"nobody takes what comes to {one} in {item.ident}"
    unit = "bytes" if one.proto == "udp" else "connections"
    process = processes_of({one.inode}).get(one.inode)
    on = stopped(process) if process is not None else ""
    if on:
        because = f"{process} is stopped, or its container paused; {one.waiting} {unit} wait"
        return [stop("stopped", what, because, on)]
    inodes = {taker.inode for taker in takers}
    for _ in range(LOOKS):
        if any(not now.waiting for now in kernel.listeners_now() if now.inode in inodes):
            return [ok("listener", f"somebody in {item.container[:12]} listens on {one}")]
        time.sleep(APART)
    because = f"{process or 'the program'} hangs, or is overloaded: {one.waiting} {unit} wait"
    return [
        warn("hangs", what, because, f"# see for yourself: nsenter --net={item.sandbox} ss -lnp sport = :{one.port}")
    ]
