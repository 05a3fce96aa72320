"""What search/ knows of a data set: shape, classes, sizes, fingerprint and options, without its images.

Only workers have the images. The dispatcher publishes one `DatasetEntry` per data set into the database (as JSON), and
requests are validated against it: `entry.resolve(options)`.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from search.architecture import Task
from search.errors import Problem, SpecError, shown
from search.sites import Shape

OptionValue = bool | int | float | str
CHANNELS = {"grey": 1, "rgb": 3}
"""Channels of an image by its colour."""


class DatasetOption(BaseModel):
    """One option of a data set, with its valid range."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    type: Literal["int", "float", "choice", "bool"]
    default: OptionValue
    minimum: float | None = Field(default=None, description="Smallest valid number, itself included.")
    maximum: float | None = Field(default=None, description="Largest valid number, itself included.")
    choices: tuple[str, ...] = Field(default=(), description="Valid values of a choice.")
    doc: str
    sets: Literal["image_size", "channels"] | None = Field(
        default=None,
        description="`image_size`: the value is the images' height and width. `channels`: the choice is a colour "
        "(grey: 1 channel, rgb: 3).",
    )

    @model_validator(mode="after")
    def _default_is_valid(self) -> DatasetOption:
        self.check(self.default, self.name)
        if self.sets == "channels" and (self.type != "choice" or not set(self.choices) <= set(CHANNELS)):
            raise ValueError(f"option {self.name!r} sets the channels: a choice of {', '.join(CHANNELS)}")
        return self

    @property
    def valid(self) -> tuple[str, ...]:
        """The valid values in words, for errors and forms."""
        match self.type:
            case "bool":
                return ("true", "false")
            case "choice":
                return self.choices
        kind = "an integer" if self.type == "int" else "a number"
        low = f"from {self.minimum:g}" if self.minimum is not None else ""
        high = f"to {self.maximum:g}" if self.maximum is not None else ""
        return (" ".join(part for part in (kind, low, high) if part),)

    def check(self, value: Any, field: str) -> OptionValue:
        """`value` in the option's own type; SpecError with the valid range. No silent conversion: "5" is not 5."""
        match self.type:
            case "bool":
                fits = isinstance(value, bool)
            case "choice":
                fits = isinstance(value, str) and value in self.choices
            case "int":
                fits = isinstance(value, int) and not isinstance(value, bool) and self._in_range(value)
            case "float":
                fits = isinstance(value, int | float) and not isinstance(value, bool) and self._in_range(value)
        if not fits:
            raise SpecError.one(field, f"{shown(value)} is not valid for option {self.name!r}.", self.valid)
        # 1 and 1.0 are the same option, so they must give the same fingerprint
        return float(value) if self.type == "float" else value

    def _in_range(self, value: float) -> bool:
        above = self.minimum is None or value >= self.minimum
        below = self.maximum is None or value <= self.maximum
        return math.isfinite(value) and above and below


class ResolvedDataset(BaseModel):
    """A data set with every option given, as a search uses it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    options: dict[str, OptionValue]
    input_shape: Shape
    classes: int
    fingerprint: str = Field(
        description="SHA-256 (hex) over content and options: equal means the same images and splits."
    )

    @property
    def task(self) -> Task:
        return Task(self.input_shape, self.classes)


class DatasetEntry(BaseModel):
    """What the workers publish of one data set. Shape and sizes are those of the default options."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    title: str
    task: Literal["classification"] = "classification"
    source: str = Field(description="Where the images come from; paper or URL.")
    input_shape: Shape = Field(description="Channels, height, width of one image.")
    classes: int = Field(ge=2)
    class_names: tuple[str, ...] = ()
    train_size: int = Field(ge=1, description="Images to train on.")
    validation_size: int = Field(ge=1, description="Images that a search is judged on.")
    test_size: int = Field(ge=1, description="Images that only the confirm phase sees.")
    class_counts: tuple[int, ...] = Field(
        default=(), description="Training images of each class, where the workers tell; uneven ones may be weighted."
    )
    fingerprint: str = Field(
        description="SHA-256 (hex) over the source's content and the way it is split and composed."
    )
    options: tuple[DatasetOption, ...] = ()

    def resolve(self, options: Mapping[str, Any] | None = None, field: str = "dataset") -> ResolvedDataset:
        """`options` with the defaults filled in, checked; SpecError names `field`.option and its valid range."""
        given = dict(options or {})
        problems = list(self._problems(given, field))
        if problems:
            raise SpecError(problems)
        full = {o.name: o.check(given.get(o.name, o.default), f"{field}.{o.name}") for o in self.options}
        return ResolvedDataset(
            name=self.name,
            options=full,
            input_shape=self._shape(full),
            classes=self.classes,
            fingerprint=fingerprint_with_options(self.name, self.fingerprint, full),
        )

    def _problems(self, given: Mapping[str, Any], field: str) -> Iterator[Problem]:
        known = {option.name: option for option in self.options}
        for name, value in given.items():
            if name not in known:
                yield Problem(f"{field}.{name}", f"Data set {self.name!r} has no option {name!r}.", tuple(known))
                continue
            try:
                known[name].check(value, f"{field}.{name}")
            except SpecError as error:
                yield from error.problems

    def _shape(self, full: Mapping[str, OptionValue]) -> Shape:
        channels, height, width = self.input_shape
        for option in self.options:
            if option.sets == "image_size":
                height = width = int(full[option.name])
            if option.sets == "channels":
                channels = CHANNELS[str(full[option.name])]
        return (channels, height, width)


class UnavailableDataset(BaseModel):
    """A data set that the workers know but cannot use; it is published beside the entries, for whoever asks for it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    title: str
    reason: str = Field(description="What is missing or broken, and which files are expected where.")
    unread: bool = Field(default=False, description="Nothing is wrong: new content is still to be read.")


def fingerprint_with_options(name: str, content: str, options: Mapping[str, OptionValue]) -> str:
    """SHA-256 (hex) over a data set's name, its content's fingerprint and all its options."""
    text = json.dumps([name, content, dict(options)], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def find_dataset(
    entries: Mapping[str, DatasetEntry],
    name: str,
    field: str = "dataset.name",
    unavailable: Mapping[str, UnavailableDataset] | None = None,
) -> DatasetEntry:
    """The published data set called `name`; otherwise SpecError, which lists the published ones or says what one of
    the `unavailable` still needs."""
    if name in entries:
        return entries[name]
    if unavailable and name in unavailable:
        text = f"The workers cannot use the data set {shown(name)}: {unavailable[name].reason}"
        raise SpecError.one(field, text, sorted(entries))
    raise SpecError.one(field, f"Unknown data set {shown(name)}.", sorted(entries))


def unavailable_datasets(documents: Iterable[Mapping[str, Any]]) -> dict[str, UnavailableDataset]:
    """By name, what machines have published as known but unusable (their documents' "unavailable_datasets").

    Where machines differ, the first one's reason is told. An entry of a newer version that cannot be read is left out.
    """
    found: dict[str, UnavailableDataset] = {}
    for document in documents:
        for data in document.get("unavailable_datasets") or []:
            try:
                one = UnavailableDataset.model_validate(data)
            except ValidationError:
                continue
            found.setdefault(one.name, one)
    return found
