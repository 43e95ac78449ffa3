"""The little of `os` and `os.path` that a verb needs and `posix`, the C module below them, lacks.

`os` costs 0.9 ms of a start-up that takes 7, because it builds the abstract base classes of collections.abc. importlib
itself calls `posix`, so it is always there. Commands for people use `os`.
"""

from __future__ import annotations

import posix

# S_IFMT, S_IFSOCK, S_IFLNK, S_IFREG and S_IFDIR of include/uapi/linux/stat.h
FILE_TYPE, SOCKET, LINK, FILE, FOLDER = 0o170000, 0o140000, 0o120000, 0o100000, 0o040000


def variable(name: str) -> str:
    """The environment variable's value, "" if it is not set."""
    return posix.environ.get(name.encode(), b"").decode("utf-8", "surrogateescape")


def exists(path: str) -> bool:
    return _type_of(path) is not None


def is_folder(path: str) -> bool:
    """Whether it is a folder, or a symbolic link to one."""
    return _type_of(path) == FOLDER


def is_file(path: str) -> bool:
    return _type_of(path) == FILE


def is_link(path: str) -> bool:
    return _own_type_of(path) == LINK


def is_there(path: str) -> bool:
    """As `exists`, but a symbolic link that leads nowhere is there."""
    return _own_type_of(path) is not None


def same_file(one: int | str, other: int | str) -> bool:
    """Whether both, paths or descriptors, are one file. Raises OSError."""
    here, there = posix.stat(one), posix.stat(other)
    return (here.st_dev, here.st_ino) == (there.st_dev, there.st_ino)


def _type_of(path: str) -> int | None:
    try:
        return posix.stat(path).st_mode & FILE_TYPE
    except (OSError, ValueError):  # ValueError: a NUL in the name
        return None


def _own_type_of(path: str) -> int | None:
    try:
        return posix.lstat(path).st_mode & FILE_TYPE
    except (OSError, ValueError):
        return None


def base_name(path: str) -> str:
    return path.rpartition("/")[2]


def folder_of(path: str) -> str:
    return path.rpartition("/")[0]


def make_folders(path: str, mode: int) -> None:
    """Makes the folder if it is missing, and those above it. Raises OSError."""
    above = folder_of(path)
    if above and not exists(above):
        make_folders(above, 0o777)
    try:
        posix.mkdir(path, mode)
    except FileExistsError:
        if not is_folder(path):
            raise
