"""`Value`: immutable records with named fields, because `dataclasses` costs 7 ms of start-up and `typing` 3 ms.

A subclass lists its fields as annotations and its defaults as class attributes. Type checkers see a frozen dataclass.
Nothing about networks lives here.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, ClassVar, TypeVar

    from typing_extensions import Self, dataclass_transform

    T = TypeVar("T")
else:

    def dataclass_transform(**_options: object) -> Callable[[T], T]:
        return lambda cls: cls


@dataclass_transform(frozen_default=True, eq_default=True)
class Value:
    """A record that compares, hashes and prints by its fields. Raises TypeError for a missing or unknown field, and
    AttributeError for an assignment after construction."""

    _fields: ClassVar[tuple[str, ...]] = ()
    _known: ClassVar[frozenset[str]] = frozenset()
    _required: ClassVar[tuple[str, ...]] = ()

    def __init_subclass__(cls) -> None:
        own = [name for name in cls.__annotations__ if name not in cls._fields and not name.startswith("_")]
        cls._fields = (*cls._fields, *own)
        cls._known = frozenset(cls._fields)
        cls._required = tuple(name for name in cls._fields if not hasattr(cls, name))

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        if not kwargs and len(self._required) <= len(args) <= len(self._fields):  # the fast way, for thousands
            self.__dict__.update(zip(self._fields, args))  # fields with defaults come last
            return
        if len(args) > len(self._fields):
            raise TypeError(f"{type(self).__name__} takes {len(self._fields)} fields, got {len(args)}")
        given = dict(zip(self._fields, args), **kwargs)
        if len(given) < len(args) + len(kwargs):
            raise TypeError(f"{type(self).__name__} got a field twice")
        self.__dict__.update(given)
        for name in self._required:
            if name not in given:
                raise TypeError(f"{type(self).__name__} needs {name}")
        if not self._known.issuperset(given):
            raise TypeError(f"{type(self).__name__} has no field {', '.join(given.keys() - self._known)}")

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"{type(self).__name__} is immutable")

    def _key(self) -> tuple[object, ...]:
        own = self.__dict__
        if len(own) < len(self._fields):
            return tuple([getattr(self, name) for name in self._fields])
        return tuple(map(own.__getitem__, self._fields))

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash((type(self), self._key()))

    def __repr__(self) -> str:
        fields = ", ".join(f"{name}={getattr(self, name)!r}" for name in self._fields)
        return f"{type(self).__name__}({fields})"

    def replace(self, **changes: Any) -> Self:
        return type(self)(**self.__dict__ | changes)
