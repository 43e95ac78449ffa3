"""nft.system against `os`, of which it is the part that verbs call."""

from __future__ import annotations

import os
import posix
from pathlib import Path

import pytest

from nft import system


@pytest.fixture
def entries(tmp_path: Path) -> list[str]:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("")
    os.mkfifo(tmp_path / "fifo")
    for name, target in (("to-folder", "folder"), ("to-file", "file"), ("to-nothing", "x"), ("to-itself", "to-itself")):
        (tmp_path / name).symlink_to(target)
    return [
        *map(str, tmp_path.iterdir()),
        f"{tmp_path}/missing",
        f"{tmp_path}/file/below",
        "",
        "a\0b",
        "/",
        "/dev/null",
    ]


def test_paths_are_what_os_path_says(entries: list[str]) -> None:
    for path in entries:
        assert system.exists(path) == os.path.exists(path), path
        assert system.is_there(path) == os.path.lexists(path), path
        assert system.is_folder(path) == os.path.isdir(path), path
        assert system.is_file(path) == os.path.isfile(path), path
        assert system.is_link(path) == os.path.islink(path), path
        assert system.base_name(path) == os.path.basename(path), path


def test_one_file_by_path_descriptor_and_link(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    for path in (one, other):
        path.write_text("")
    (tmp_path / "link").symlink_to(one)
    with one.open() as file:
        assert system.same_file(file.fileno(), str(tmp_path / "link"))
        assert not system.same_file(file.fileno(), str(other))
    with pytest.raises(FileNotFoundError):
        system.same_file(str(one), str(tmp_path / "missing"))


@pytest.mark.parametrize("below", ["a", "a/b/c"])
def test_folders_are_made_once_with_the_modes_of_makedirs(tmp_path: Path, below: str) -> None:
    for make, top in ((system.make_folders, tmp_path / "ours"), (os.makedirs, tmp_path / "theirs")):
        make(str(top / below), 0o700)
    system.make_folders(str(tmp_path / "ours" / below), 0o700)
    modes = [[oct(path.stat().st_mode) for path in sorted((tmp_path / name).rglob("*"))] for name in ("ours", "theirs")]
    assert modes[0] == modes[1]


def test_a_folder_in_place_of_a_file_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(FileExistsError):
        system.make_folders(str(tmp_path / "file"), 0o700)
    with pytest.raises(NotADirectoryError):
        system.make_folders(str(tmp_path / "file" / "below"), 0o700)


def test_variables_may_hold_any_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(posix.environ, b"NFTCNI_TEST", b"\xc3\xa9\xff")
    assert system.variable("NFTCNI_TEST") == os.fsdecode(b"\xc3\xa9\xff")
    assert system.variable("NFTCNI_UNSET") == ""
