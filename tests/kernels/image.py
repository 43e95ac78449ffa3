"""What a virtual machine is booted from, made of Debian packages once and kept in a cache folder.

A kernel is `vmlinux` (on amd64 qemu starts it by PVH, so nothing is decompressed by an emulated processor) and
`modules.cpio`; a userland is one archive more. No disk and no driver of one is needed: all of it is the initramfs.
`machine` boots it.
"""

from __future__ import annotations

import lzma
import os
import re
import struct
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Callable

from kernels import newc
from kernels.newc import DEVICE, Archive
from kernels.suites import AMD64, DRIVERS, MODULES, USERLAND, Machine
from support import debian
from support.debian import Apt, Unavailable, run, settle, unpack
from support.kept import kept

NOT_NEEDED = (
    *("usr/share/doc", "usr/share/man", "usr/share/locale", "usr/share/info", "usr/share/zoneinfo", "usr/share/perl"),
    *("usr/share/bash-completion", "usr/share/lintian", "usr/share/i18n", "usr/lib/systemd", "usr/lib/udev"),
    "var/lib/dpkg",
)
NOT_NEEDED_OF_LIBRARIES = re.compile("usr/lib/[^/]+-linux-[^/]+/(gconv|perl|perl-base)(/|$)")
EMPTY = ("dev", "proc", "root", "run", "sys", "tmp")


def kernel(machine: Machine) -> Path:
    what = repr((MODULES, DRIVERS, machine.processor.kernel))
    code = [__file__, newc.__file__, debian.__file__]
    return kept(f"kernel-{machine.kernel}{of(machine)}", what, code, partial(make_kernel, machine))


def userland(machine: Machine) -> Path:
    code = [__file__, newc.__file__, debian.__file__]
    return kept(f"userland-{machine.userland}{of(machine)}", repr(USERLAND), code, partial(make_userland, machine))


def of(machine: Machine) -> str:
    return "" if machine.processor is AMD64 else f"-{machine.processor.name}"


def apt_of(suite: str, machine: Machine, folder: Path) -> Apt:
    return Apt(suite, folder, "" if machine.processor is AMD64 else machine.processor.name)


# The kernel


def make_kernel(machine: Machine, work: Path, made: Path) -> None:
    apt = apt_of(machine.kernel, machine, work / "apt")
    meta = machine.processor.kernel
    root = work / "root"
    unpack([apt.fetch_alone(name) for name in kernel_packages(apt, meta)], root)
    images = [*root.glob("boot/vmlinu[xz]-*"), *root.glob("usr/lib/modules/*/vmlinuz")]
    if len(images) != 1:
        raise Unavailable(f"{machine.kernel}: {meta} brings {len(images)} kernels")
    release = os.listdir(root / "usr/lib/modules")[0]
    image = images[0].read_bytes()
    (made / "vmlinux").write_bytes(vmlinux(image) if machine.processor is AMD64 else image)
    modules = root / "usr/lib/modules" / release
    for path in [path for path in modules.rglob("*.ko*") if not is_wanted(path.relative_to(modules))]:
        path.unlink()
    for path in modules.rglob("*.ko.xz"):  # by this processor instead of an emulated one
        path.with_suffix("").write_bytes(lzma.decompress(path.read_bytes()))
        path.unlink()
    run("depmod", "-b", str(root), release)
    with Archive(made / "modules.cpio") as archive:
        for name in ("usr", "usr/lib", "usr/lib/modules", f"usr/lib/modules/{release}"):
            archive.folder(name)
        archive.tree(
            modules, f"usr/lib/modules/{release}", lambda name: not name.endswith(("/build", "/source", "/vmlinuz"))
        )


def kernel_packages(apt: Apt, meta: str) -> Iterator[str]:
    """The image that the metapackage means, and what has its parts where a suite splits it (sid)."""
    image = next(name for name in apt.dependencies(meta) if name.startswith("linux-image-"))
    yield image
    yield from (name for name in apt.dependencies(image) if name.startswith(("linux-binary-", "linux-modules-")))


def is_wanted(module: Path) -> bool:
    name = str(module)
    return name.startswith(MODULES) or (name.startswith("kernel/drivers/net/") and module.name.split(".")[0] in DRIVERS)


def vmlinux(image: bytes) -> bytes:
    """The ELF file in a bzImage (Documentation/arch/x86/boot.rst: setup_sects, payload_offset, payload_length)."""
    offset, length = struct.unpack_from("<II", image, 0x248)
    start = (image[0x1F1] + 1) * 512 + offset
    packed = image[start : start + length]
    unpackers: dict[bytes, Callable[[bytes], bytes]] = {
        b"\xfd7zXZ": lambda data: lzma.LZMADecompressor().decompress(data),
        b"\x28\xb5\x2f\xfd": _unzstd,
    }
    for magic, unpacker in unpackers.items():
        if packed.startswith(magic):
            found = unpacker(packed)
            if found.startswith(b"\x7fELF"):
                return found
    raise Unavailable(f"a kernel packed in a way that is not known here: {packed[:6]!r}")


def _unzstd(data: bytes) -> bytes:
    """Without asking for its status: the payload is followed by its size, which is no part of it."""
    words = ("zstd", "-dcq")
    return subprocess.run(words, input=data, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=False).stdout


# The userland


def make_userland(machine: Machine, work: Path, made: Path) -> None:
    root = work / "root"
    unpack(apt_of(machine.userland, machine, work / "apt").fetch(USERLAND), root)
    settle(root, runs_here=machine.processor is AMD64)
    with Archive(made / "userland.cpio") as archive:
        for name in EMPTY:
            archive.folder(name)
        archive.entry("dev/console", DEVICE, device=(5, 1))
        archive.tree(root, wanted=_is_needed)


def _is_needed(name: str) -> bool:
    unneeded = name.startswith(NOT_NEEDED) or NOT_NEEDED_OF_LIBRARIES.match(name)
    return not unneeded and name.partition("/")[0] not in EMPTY
