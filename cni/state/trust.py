"""Whether a state folder can be trusted: what it holds decides about the host's ports.

A user of the host could have made a folder in /tmp or below their home beforehand, or a link to another place. Nothing
is changed here.
"""

from __future__ import annotations

import posix

from cni.protocol.errors import INVALID_CONFIG, CniError
from nft.system import FILE_TYPE, FOLDER, LINK

LINKS = 40  # the kernel follows no more (MAXSYMLINKS)
OTHERS_WRITE, STICKY = 0o0002, 0o1000  # S_IWOTH and S_ISVTX of include/uapi/linux/stat.h


def refuse_foreign(path: str) -> None:
    """Raises CniError 7 unless every existing link and folder on the path belongs to root or us, and is not for every
    user to replace. A group that may write there is the administrator's choice, as /var/local is the group staff's."""
    left = [part for part in path.split("/") if part][::-1]
    place, links = "", 0
    while left:
        part = left.pop()
        if part == "..":
            place = place.rpartition("/")[0]
            continue
        if part == ".":
            continue
        below = f"{place}/{part}"
        try:
            found = posix.lstat(below)
        except FileNotFoundError:
            return  # the rest will be made, in a folder that is ours
        if found.st_uid not in (0, posix.geteuid()) and not (left and _is_unmapped(found.st_uid)):
            raise _refusal(path, below, f"it belongs to the user {found.st_uid}", "chown root")
        if found.st_mode & FILE_TYPE == LINK:
            links += 1
            if links > LINKS:
                raise _refusal(path, below, "the links lead in a circle")
            target = posix.readlink(below)
            place = "" if target.startswith("/") else place
            left += [word for word in target.split("/") if word][::-1]
            continue
        if found.st_mode & FILE_TYPE != FOLDER:
            raise _refusal(path, below, "it is not a folder")
        # In a folder with the sticky bit (/tmp), nobody else can move what is ours.
        if found.st_mode & OTHERS_WRITE and not (left and found.st_mode & STICKY):
            raise _refusal(path, below, "every user of this host may write there", "chmod o-w")
        place = below


def _is_unmapped(user: int) -> bool:
    """Whether this is the overflow user of a user namespace: the kernel shows it as the owner of folders above ours
    that belong to users whom the namespace does not know (user_namespaces(7))."""
    try:
        with open("/proc/self/uid_map", encoding="ascii") as file:
            whole = file.read().split() == ["0", "0", "4294967295"]
        with open("/proc/sys/kernel/overflowuid", encoding="ascii") as file:
            return not whole and user == int(file.read())
    except (OSError, ValueError):
        return False


def _refusal(path: str, place: str, why: str, mend: str = "") -> CniError:
    what = f"dataDir: {path} is not used" if place == path else f"dataDir: {path} is not used for {place}"
    wanted = "name a folder that only root can write"
    return CniError(INVALID_CONFIG, f"{what}: {why}", f"{mend} {place}, or {wanted}" if mend else wanted)
