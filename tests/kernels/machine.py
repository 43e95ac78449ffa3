"""One virtual machine from start to end: qemu without KVM, so that it runs wherever the tests do.

A command runs in it as root, in a copy of the checkout at /nftcni; what it writes to the processor's `reports` comes
back. Kernels and userlands are `image`.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from kernels import image
from kernels.newc import Archive
from kernels.suites import PRELOADED, Machine
from support.kept import cache

CHECKOUT = Path(__file__).resolve().parents[2]
KERNEL_ARGUMENTS = (
    "rdinit=/init panic=-1 loglevel=3 mitigations=off nokaslr no_timer_check random.trust_cpu=on net.ifnames=0"
)
QEMU = (
    *("-accel", "tcg,thread=multi", "-smp", "2", "-nodefaults", "-no-user-config"),
    *("-display", "none", "-no-reboot", "-monitor", "none"),
)


@dataclass
class Outcome:
    """`status` is the command's, None if it did not come to its end; `reports` are the lines it wrote to the second
    serial line, or, where there is none, to the console."""

    status: int | None
    reports: list[str]
    console: str


def boot(machine: Machine, command: str, seconds: int) -> Outcome:
    """Boots it, and once more if the kernel panics before our init has said a word: while Linux 7.2 patches its own
    code, qemu's other processor may run into the breakpoint (int3 in run_timer_softirq)."""
    outcome = _boot(machine, command, seconds)
    if outcome.reports or "Kernel panic" not in outcome.console:
        return outcome
    return _boot(machine, command, seconds)


def _boot(machine: Machine, command: str, seconds: int) -> Outcome:
    kernel, userland, processor = image.kernel(machine), image.userland(machine), machine.processor
    files = ["console"] if processor.reports == "/dev/console" else ["console", "reports"]
    with tempfile.TemporaryDirectory(prefix="booted.", dir=cache()) as folder:
        work = Path(folder)
        with Archive(work / "payload.cpio") as archive:
            payload(archive, command)
        with (work / "initramfs").open("wb") as whole:
            for part in (userland / "userland.cpio", kernel / "modules.cpio", work / "payload.cpio"):
                with part.open("rb") as source:
                    shutil.copyfileobj(source, whole)
        arguments = f"console={processor.console} reports={processor.reports} {KERNEL_ARGUMENTS}"
        words = [
            *(*processor.qemu, *QEMU, "-m", str(processor.memory)),
            *(word for name in files for word in ("-serial", f"file:{work}/{name}")),
            *("-kernel", str(kernel / "vmlinux"), "-initrd", str(work / "initramfs"), "-append", arguments),
        ]
        with subprocess.Popen(
            words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        ) as qemu:
            try:
                said = qemu.communicate(timeout=seconds)[0].decode(errors="replace")
            except subprocess.TimeoutExpired:
                said = f"ended after {seconds} s without an end"
            finally:
                qemu.kill()
        console, reports = _text(work / files[0]), _text(work / files[-1])
    lines = reports.splitlines()
    told = [line for line in lines if line.startswith("status ")]
    return Outcome(
        int(told[0].split()[1]) if told else None,
        [line for line in lines if not line.startswith("status ")],
        console + said,
    )


def _text(path: Path) -> str:
    return path.read_text(errors="replace").replace("\r", "") if path.exists() else ""


def payload(archive: Archive, command: str) -> None:
    """The checkout as it is, without what git and tools keep in it."""
    archive.file("init", (CHECKOUT / "tests/kernels/init").read_bytes(), 0o755)
    archive.file("command", f"modprobe -a {' '.join(PRELOADED)}\n{command}\n".encode())
    archive.folder("nftcni")
    archive.tree(CHECKOUT, "nftcni", lambda name: "/." not in name and not name.endswith("__pycache__"))
