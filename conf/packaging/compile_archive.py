"""Compiles a copy of the sources into one file, which a start reads instead of some forty.

    python3 -IS compile_archive.py FOLDER [NAME]    # FOLDER holds cni/ and nft/; NAME is what the folder will be called

The file is FOLDER/archive.TAG, TAG being the Python's (cpython-311): its magic number, the file's length, then the
loader of loader.py, an index, and each module's code by itself, so that only the modules that a verb needs are
unmarshalled. Whoever reads it goes on with the sources if one of these is not what it must be; conf/install writes the
stubs that do so. Nothing here knows a module by name: they are found in the folder.
"""

from __future__ import annotations

import ast
import marshal
import os
import sys
from importlib.util import MAGIC_NUMBER

PACKAGES = ("cni", "nft")
HEAD = 16
HERE = os.path.dirname(os.path.abspath(__file__))


class Stripped(ast.NodeTransformer):
    """Without docstrings and the annotations of functions: a third of the bytes, and no run looks at them. (`-OO` would
    take the assertions as well. A class's annotations stay: `Value` reads its fields from them.)"""

    def _body(self, node: ast.AST) -> ast.AST:
        self.generic_visit(node)
        body = node.body  # type: ignore[attr-defined]
        if body and isinstance(body[0], ast.Expr) and isinstance(body[0].value, ast.Constant):
            body[:1] = [] if len(body) > 1 else [ast.copy_location(ast.Pass(), body[0])]
        return node

    def _function(self, node: ast.AST) -> ast.AST:
        node.returns = None  # type: ignore[attr-defined]
        return self._body(node)

    def visit_arg(self, node: ast.arg) -> ast.arg:
        node.annotation = None
        return node

    def visit_ImportFrom(self, node: ast.ImportFrom) -> ast.ImportFrom | None:
        return None if node.module == "__future__" else node

    visit_Module = visit_ClassDef = _body
    visit_FunctionDef = visit_AsyncFunctionDef = _function


def modules(folder: str) -> dict[str, str]:
    """Each module's name and its file, relative to the folder."""
    found = {}
    for package in PACKAGES:
        for place, folders, files in os.walk(os.path.join(folder, package)):
            folders.sort()
            for file in sorted(files):
                if file.endswith(".py"):
                    path = os.path.relpath(os.path.join(place, file), folder)
                    found[path[:-3].replace(os.sep, ".").removesuffix(".__init__")] = path
    return found


def imported(tree: ast.Module, package: str, known: dict[str, str]) -> list[str]:
    """Those of our modules that are loaded with this one, in the order of its import statements: what functions import
    comes when they are called, and what stands under `if TYPE_CHECKING` never."""
    found: list[str] = []
    for node in tree.body:
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            source = ".".join(filter(None, (package if node.level else "", node.module)))
            inside = [f"{source}.{alias.name}" for alias in node.names]
            found += [name for name in inside if name in known] or [source]
    return [name for name in dict.fromkeys(found) if name in known]


def compiled(path: str, shown_as: str, package: str, known: dict[str, str]) -> tuple[bytes, list[str]]:
    with open(path, encoding="utf-8") as file:
        text = file.read()
    tree = ast.parse(text, shown_as)
    needs = imported(tree, package, known)
    if "__doc__" not in text:
        tree = Stripped().visit(tree)
    return marshal.dumps(compile(tree, shown_as, "exec", annotations.compiler_flag, True)), needs


def build(folder: str, name: str) -> bytes:
    known = modules(folder)
    index: dict[str, tuple[int, int, str, bool, tuple[str, ...]]] = {}
    codes = b""
    for module, path in known.items():
        is_package = path.endswith("__init__.py")
        parent = module.rpartition(".")[0]
        package = module if is_package else parent
        code, needs = compiled(os.path.join(folder, path), os.path.join(name, path), package, known)
        first = tuple(dict.fromkeys([*([parent] if parent else []), *needs]))
        index[module] = len(codes), len(code), path, is_package, first
        codes += code
    loader, _ = compiled(os.path.join(HERE, "loader.py"), os.path.join(name, "loader.py"), "", {})
    listed = marshal.dumps(index)
    size = HEAD + len(loader) + len(listed) + len(codes)
    lengths = b"".join(length.to_bytes(4, "little") for length in (size, len(loader), len(listed)))
    return b"".join([MAGIC_NUMBER, lengths, loader, listed, codes])


def main() -> None:
    folder = sys.argv[1]
    path = f"{folder}/archive.{sys.implementation.cache_tag}"
    with open(f"{path}.new", "wb") as file:
        file.write(build(folder, sys.argv[2] if len(sys.argv) > 2 else folder))
    os.chmod(f"{path}.new", 0o644)
    os.replace(f"{path}.new", path)


if __name__ == "__main__":
    main()
