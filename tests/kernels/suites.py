"""Which kernels are booted, on which processors, and whose userland runs on each. Data alone: `image` makes it.

Debian's own kernels and packages, as their users have them. Linux 5.10 is booted twice: its own userland's nft is too
old, which has to be said there (`too_old`), and everything else is tried with the next one's. Of the other processors
one has the bytes of a number the other way round, one has pointers of 32 bits, and one has other numbers of ioctls.
"""

from __future__ import annotations

from dataclasses import dataclass

# What the scenarios run in. python3-pytest brings the rest of Python.
USERLAND = (
    *(
        "busybox-static",
        "conntrack",
        "dash",
        "iproute2",
        "kmod",
        "libc-bin",
        "mawk",
        "mount",
        "netbase",
        "nftables",
        "procps",
    ),
    *("python3", "python3-nftables", "python3-pyroute2", "python3-pytest", "strace", "util-linux"),
    "python3-hypothesis",
    *("bash", "coreutils", "diffutils", "findutils", "grep", "sed", "tar"),
)
# Of a kernel's modules: all of the network, and what those need. Drivers of hardware stay out.
MODULES = ("kernel/net", "kernel/lib", "kernel/crypto", "kernel/arch", "kernel/fs/overlayfs")
DRIVERS = ("bonding", "dummy", "ifb", "macvlan", "tap", "tun", "veth", "vrf", "vxlan")
# Loaded before the scenarios, as hosts of containers have them: the first check must not wait for the last module.
PRELOADED = (
    *("br_netfilter", "bridge", "veth", "dummy", "8021q", "sctp", "nf_tables", "nf_conntrack", "nf_conntrack_netlink"),
    *("nft_ct", "nft_nat", "nft_chain_nat", "nft_masq", "nft_fib_inet", "nft_reject_inet", "nft_flow_offload"),
)


# Files of scenarios/, in the order of the table.
SCENARIOS = (
    "demo",
    "traffic",
    "sctp",
    "flows",
    "repair",
    "kills",
    "adopted",
    "migrate",
    "vlans",
    "fastpath",
    "spoof",
    "too_old",
)


LONG = ("vlans", "fastpath")  # four and five minutes of thirteen: in CI one of them


@dataclass(frozen=True)
class Processor:
    """`name` is Debian's. Where there is no second serial line, `reports` come by the console as well."""

    name: str
    kernel: str
    package: str
    qemu: tuple[str, ...]
    memory: int = 2048  # MiB; an initramfs is there twice while it is unpacked
    console: str = "ttyS0"
    reports: str = "/dev/console"


AMD64 = Processor(
    *("amd64", "linux-image-amd64", "qemu-system-x86"),
    qemu=("qemu-system-x86_64", "-cpu", "Nehalem,+rdrand"),
    memory=3072,
    reports="/dev/ttyS1",
)
OTHERS = (
    Processor(
        *("s390x", "linux-image-s390x", "qemu-system-misc"),
        qemu=("qemu-system-s390x", "-M", "s390-ccw-virtio", "-cpu", "max"),
        console="ttysclp0",
    ),
    Processor(
        *("ppc64el", "linux-image-powerpc64le", "qemu-system-ppc"),
        qemu=("qemu-system-ppc64", "-M", "pseries", "-cpu", "POWER9"),
        console="hvc0",
    ),
    Processor(
        *("armhf", "linux-image-armmp", "qemu-system-arm"),
        qemu=("qemu-system-arm", "-M", "virt", "-cpu", "cortex-a15"),
        console="ttyAMA0",
    ),
)
# The wire formats, against pyroute2 as it packs and unpacks them on the same processor.
WIRE = ("conntrack", "dumps", "elements", "netlink_limits", "qdisc", "rtnetlink")


@dataclass(frozen=True)
class Machine:
    """A kernel and a userland by the names of their suites, and the scenarios that run there."""

    kernel: str
    userland: str
    scenarios: tuple[str, ...] = tuple(name for name in SCENARIOS if name != "too_old")
    processor: Processor = AMD64

    @property
    def name(self) -> str:
        return f"{self.kernel}-kernel-{self.userland}-userland"


MACHINES = (
    Machine("bookworm", "bookworm"),
    Machine("trixie", "trixie"),
    # Linux 7.2 puts flows into a flowtable only where it listens on the bridge's ports as well: all go the usual way.
    Machine("sid", "sid", tuple(name for name in SCENARIOS if name not in ("fastpath", "too_old"))),
    Machine("bullseye", "bookworm"),
    Machine("bullseye", "bullseye", ("too_old",)),
)
OTHER_MACHINES = tuple(Machine("bookworm", "bookworm", (), processor) for processor in OTHERS)
