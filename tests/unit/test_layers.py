"""The layout: imports point downwards only, between folders and between files, wherever in a file they stand.

The sources are read by `ast`, not imported: a function's imports and those for type checkers count as well.
"""

from __future__ import annotations

import ast
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# From the bottom up; a folder stands for the files in it.
LAYERS = (
    *(
        "nft",
        "cni.version",
        "cni.stdlib",
        "cni.protocol",
        "cni.model",
        "cni.kernel",
        "cni.state",
        "cni.handles",
        "cni.localnet",
        "cni.forwarding",
        "cni.recovery",
        "cni.fastpath",
        "cni.conditions",
        "cni.withdrawal",
        "cni.rebuilding",
    ),
    *(
        "cni.firewalld",
        "cni.host",
        "cni.adoption",
        "cni.predecessor",
        "cni.vlan_gateway",
        "cni.bridge",
        "cni.restoration",
    ),
    "cni.hostside",
    *("cni.verbs", "cni.dropin", "cni.operate", "cni.main"),
)
# C modules without a promise of CPython, and the files that may name them.
PRIVATE = {"_json", "_socket", "_signal", "_blake2", "_ctypes", "_struct", "_posixsubprocess"}
FALL_BACKS = {"nft.stdlib", "nft.signals", "cni.stdlib"}


def sources() -> dict[str, Path]:
    files = [path for folder in ("nft", "cni") for path in (ROOT / folder).rglob("*.py") if path.name != "__init__.py"]
    return {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in files}


def imported(module: str, path: Path) -> set[str]:
    """Everything that a file imports, by full name; `from package import module` names the module."""
    found = set()
    package = module.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            start = ".".join(filter(None, (package if node.level else "", node.module or "")))
            found.update(f"{start}.{alias.name}" for alias in node.names)
    return found


def graph() -> dict[str, set[str]]:
    modules = sources()
    found = {}
    for module, path in modules.items():
        names = imported(module, path)
        found[module] = {name if name in modules else name.rpartition(".")[0] for name in names} & modules.keys()
    return found


def layer(module: str) -> int:
    return max(index for index, name in enumerate(LAYERS) if f"{module}.".startswith(f"{name}."))


def test_every_file_belongs_to_a_layer() -> None:
    for module in sources():
        assert any(f"{module}.".startswith(f"{name}.") for name in LAYERS), module


def test_imports_point_downwards_between_folders() -> None:
    upwards = [(one, other) for one, others in graph().items() for other in others if layer(other) > layer(one)]
    assert upwards == []


def test_no_file_imports_itself_by_way_of_others() -> None:
    left = graph()
    while left:
        lowest = {module for module, others in left.items() if not others & left.keys()}
        assert lowest, f"a cycle among {sorted(left)}"
        left = {module: others for module, others in left.items() if module not in lowest}


def test_nft_could_be_taken_away() -> None:
    """It imports itself by relative names, and nothing of cni."""
    for module, path in sources().items():
        if module.startswith("nft."):
            tops = {node.module for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ImportFrom)}
            assert not any((top or "").split(".")[0] in ("cni", "nft") for top in tops), module


def test_private_modules_are_named_in_one_place_each() -> None:
    for module, path in sources().items():
        if module not in FALL_BACKS:
            assert not imported(module, path) & PRIVATE, module
            assert not any(name.split(".")[0] in PRIVATE for name in imported(module, path)), module


def test_nothing_shadows_a_standard_module() -> None:
    standard: frozenset[str] = getattr(sys, "stdlib_module_names", frozenset())
    assert not {module.rpartition(".")[2] for module in sources()} & standard


def test_a_file_holds_one_idea() -> None:
    """Few enough lines to read in one go, and a first docstring that says what lives there."""
    for module, path in sources().items():
        text = path.read_text()
        assert len(text.splitlines()) <= 300, module
        assert module == "cni.version" or ast.get_docstring(ast.parse(text)), module
