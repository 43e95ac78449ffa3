"""Whether the kernel takes the address that clients ask for the host's: only those have published ports."""

from __future__ import annotations

from cni.operate.walk.policy import LOCAL, looks_up
from cni.operate.walk.step import Step, note, ok, stop
from cni.operate.walk.world import World
from nft.addresses import BITS, Address

TENTATIVE, DADFAILED = 0x40, 0x08  # IFA_F_* of include/uapi/linux/if_addr.h


def address_steps(world: World, port: str, target: Address) -> list[Step]:
    """Checks the address `target`; `port` is the published port, in words."""
    kernel = world.kernel
    kind = kernel.address_type(target)
    if kind == "local":
        return [ok("fib", f"{target} is an address of this host")]
    six = "-6 " if target.version == 6 else ""
    owner = next((name for name, prefix in kernel.addresses if prefix.address == target), "")
    if owner and not looks_up(kernel.policy_rules(target.version)[:1], LOCAL):
        what = f"{target} is an address of this host, but other rules of `ip {six}rule` come before table local"
        return [stop("policy-rule", what, f"for the kernel it is {kind}", f"ip {six}rule add lookup local priority 0")]
    flags = kernel.address_flags.get((owner, target), 0)
    if flags & DADFAILED:
        what = f"{target} of {owner} is not used: another machine on that link has it (dadfailed)"
        length = next(prefix.length for name, prefix in kernel.addresses if (name, prefix.address) == (owner, target))
        commands = [f"ip addr {verb} {target}/{length} dev {owner}" for verb in ("del", "add")]
        return [stop("duplicate", what, "take it off the other machine first", *commands)]
    if flags & TENTATIVE:
        return [note("tentative", f"{target} of {owner} is so new that the kernel still looks for duplicates of it")]
    if owner:
        what = f"{target} of {owner} has no route in table local"
        back = f"ip {six}route add local {target} dev {owner} table local proto kernel"
        return [stop("local-route", what, f"somebody deleted it; for the kernel the address is {kind}", back)]
    link = next(iter(world.uplinks), "lo")
    return [
        stop(
            "host-ip",
            f"{port}: this host has no address {target}",
            f"for the kernel it is {kind}, so no packet to it reaches a published port",
            f"ip addr add {target}/{BITS[target.version]} dev {link}",
        )
    ]
