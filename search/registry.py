"""Named, torch-free descriptors, with entries that other packages add through entry points."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any, Generic, Protocol, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from search import wording
from search.errors import SpecError, shown

LONGEST_NAME = 100


class Options(BaseModel):
    """The options of a registered thing: frozen, no unknown names, no silent conversion ("5" is not 5)."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class Named(Protocol):
    @property
    def name(self) -> str: ...


T = TypeVar("T", bound=Named)
Opts = TypeVar("Opts", bound=Options)


class Registry(Generic[T]):
    """Descriptors by name.

    what: the field's word for an entry ("attention module"), used in errors.
    group: entry-point group whose objects (descriptors, or lists of them) join the registry on first use.
    """

    def __init__(self, what: str, group: str) -> None:
        self.what = what
        self.group = group
        self._entries: dict[str, T] = {}
        self._loaded = False

    def add(self, entry: T) -> T:
        """Registers `entry`; a second entry of the same name is a ValueError."""
        if entry.name in self._entries:
            raise ValueError(f"{self.what} {entry.name!r} is registered twice")
        self._entries[entry.name] = entry
        return entry

    def names(self) -> tuple[str, ...]:
        return tuple(self._known())

    def __iter__(self) -> Iterator[T]:
        return iter(self._known().values())

    def __contains__(self, name: str) -> bool:
        return name in self._known()

    def get(self, name: str, field: str = "") -> T:
        """The entry called `name`; SpecError listing the valid names otherwise."""
        known = self._known()
        if name in known:
            return known[name]
        close = difflib.get_close_matches(name[:LONGEST_NAME].lower(), known, n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise SpecError.one(field, f"Unknown {self.what} {shown(name)}.{hint}", sorted(known))

    def _known(self) -> Mapping[str, T]:
        """All entries by name; a registry that finds more than were added says so here."""
        self._load_entry_points()
        return self._entries

    def _load_entry_points(self) -> None:
        if self._loaded:
            return
        self._loaded = True
        for point in entry_points(group=self.group):
            found = point.load()
            for entry in found if isinstance(found, list | tuple) else [found]:
                self.add(entry)


def load_object(path: str) -> Any:
    """The object at "package.module:name"; the import happens now and not when the registry is built."""
    module, _, name = path.partition(":")
    return getattr(import_module(module), name)


def parse_options(model: type[Opts], values: Mapping[str, Any], field: str = "") -> Opts:
    """`values` as an instance of `model`; SpecError with one problem per wrong option."""
    try:
        return model.model_validate(dict(values))
    except ValidationError as error:
        raise SpecError(wording.problems(error, model, field)) from None
