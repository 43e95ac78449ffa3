"""Where the state folder is: which `dataDir` counts on this host, and for which boot. `store` knows what is in it."""

from __future__ import annotations

import posix

from cni.protocol.errors import kernel_refused
from cni.protocol.name_rules import DATA_DIR
from nft.system import folder_of, is_folder, is_link

BOOT_ID = "/proc/sys/kernel/random/boot_id"


def first_folder(data_dir: str, boot: str) -> str:
    """The folder of the host's records, for when there is no table whose comment names it. Networks may each have a
    `dataDir`; the first one on the host keeps all records. The usual place is that folder, or a link to it."""
    usual = f"{own_folder(DATA_DIR)}/{boot}"
    if not is_folder(usual):
        return data_dir
    return folder_of(posix.readlink(usual) if is_link(usual) else usual)


def own_folder(data_dir: str) -> str:
    """The folder, or one beside it for RootlessKit's users: RootlessKit shows them the real root's folder in /run by a
    symbolic link (--copy-up), and nobody outside sees the one beside it."""
    if posix.access(data_dir, posix.W_OK):
        return data_dir
    try:
        return f"{data_dir}-rootless" if posix.stat(data_dir).st_uid != posix.geteuid() else data_dir
    except OSError:
        return data_dir


def read_boot_id() -> str:
    """The ID of this boot. Raises CniError 5."""
    try:
        with open(BOOT_ID, encoding="utf-8") as file:
            return file.read().strip()
    except OSError as error:
        raise kernel_refused(f"reading {BOOT_ID}", error) from None
