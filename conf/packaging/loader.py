"""Imports our modules out of the archive that compile_archive.py made; it stands in the archive itself, compiled.

A module is loaded together with those that it imports at its top, without a way through importlib for each of them.
Whatever goes wrong, importlib goes on with its other finders, and finds the sources.
"""

from __future__ import annotations

import sys
from _frozen_importlib import ModuleSpec
from marshal import loads
from posix import pread

HEAD = 16  # bytes: the magic number, and the lengths of the whole, of this code and of the index


def start(archive: int, head: bytes, folder: str, entry: str) -> None:
    """Loads `entry`, and has what is imported later come from the archive as well, which stays open for that: another
    one may have its name by then. `head` is its beginning."""
    size = HEAD + int.from_bytes(head[8:12], "little")
    first = size + int.from_bytes(head[12:16], "little")
    index: dict[str, tuple[int, int, str, bool, tuple[str, ...]]] = loads(head[size:first])
    modules = sys.modules
    module_type = type(sys)

    def load(name: str) -> None:
        begin, length, path, is_package, needs = index[name]
        for need in needs:
            if need not in modules:
                load(need)
        code = loads(pread(archive, length, first + begin))
        module = module_type(name)
        space = module.__dict__
        space["__file__"] = f"{folder}/{path}"
        parent, _, last = name.rpartition(".")
        if is_package:
            space["__path__"] = [space["__file__"].rpartition("/")[0]]
            space["__package__"] = name
        else:
            space["__package__"] = parent
        modules[name] = module
        try:
            exec(code, space)
        except BaseException:
            del modules[name]
            raise
        if parent:
            setattr(modules[parent], last, module)

    class Finder:
        """What importlib asks for a module that is not there yet: what a function imports."""

        @staticmethod
        def find_spec(name: str, path: object = None, target: object = None) -> object:
            if name not in index:
                return None
            try:
                if name not in modules:
                    load(name)
            except Exception:
                return None
            return ModuleSpec(name, Finder, is_package=index[name][3])  # type: ignore[arg-type]

        @staticmethod
        def create_module(spec: ModuleSpec) -> object:
            return modules[spec.name]

        @staticmethod
        def exec_module(module: object) -> None:
            """It was, when it was loaded."""

    load(entry)
    sys.meta_path.insert(0, Finder)  # type: ignore[arg-type]
