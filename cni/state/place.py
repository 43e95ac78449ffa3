"""Where the state folder is: which `dataDir` counts on this host, and for which boot. What is in it is `store`."""

from __future__ import annotations

import os

from cni.protocol.errors import kernel_refused
from cni.protocol.names import DATA_DIR

BOOT_ID = "/proc/sys/kernel/random/boot_id"


def first_folder(data_dir: str, boot: str, cookie: int) -> str:
    """Where the records are although the table is gone, which named the folder: networks may each have a `dataDir` of
    their own, the first of the host keeps all of them. The usual place is that folder, or leads there by a link."""
    usual = f"{own_folder(DATA_DIR)}/{boot}.{cookie}"
    if not os.path.isdir(usual):
        return data_dir
    return os.path.dirname(os.readlink(usual) if os.path.islink(usual) else usual)


def own_folder(data_dir: str) -> str:
    """RootlessKit shows its users the real root's folder in /run, by a symbolic link (--copy-up); one beside it, which
    nobody outside sees, is theirs."""
    if os.access(data_dir, os.W_OK):
        return data_dir
    try:
        return f"{data_dir}-rootless" if os.stat(data_dir).st_uid != os.geteuid() else data_dir
    except OSError:
        return data_dir


def read_boot_id() -> str:
    try:
        with open(BOOT_ID, encoding="utf-8") as file:
            return file.read().strip()
    except OSError as error:
        raise kernel_refused(f"reading {BOOT_ID}", error) from None
