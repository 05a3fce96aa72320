"""The published side of data sets: options are checked and resolved without any image."""

from __future__ import annotations

from typing import Any

import pytest

from search.architecture import Task
from search.datasets import DatasetEntry, DatasetOption, UnavailableDataset, find_dataset, unavailable_datasets
from search.errors import SpecError

ENTRY = DatasetEntry(
    name="letters",
    title="Letters",
    source="made up",
    input_shape=(3, 32, 32),
    classes=26,
    train_size=100,
    validation_size=20,
    test_size=20,
    fingerprint="f" * 64,
    options=(
        DatasetOption(name="size", type="int", default=32, minimum=8, maximum=64, doc="Size.", sets="image_size"),
        DatasetOption(name="noise", type="float", default=0.0, minimum=0, maximum=1, doc="Noise."),
        DatasetOption(name="case", type="choice", default="upper", choices=("upper", "lower"), doc="Case."),
        DatasetOption(name="mirror", type="bool", default=False, doc="Mirror."),
    ),
)


def test_defaults_are_filled_in() -> None:
    resolved = ENTRY.resolve()
    assert resolved.options == {"size": 32, "noise": 0.0, "case": "upper", "mirror": False}
    assert resolved.task == Task((3, 32, 32), 26)


def test_an_image_size_option_sets_the_shape() -> None:
    assert ENTRY.resolve({"size": 16}).input_shape == (3, 16, 16)


def test_the_fingerprint_depends_on_values_and_not_on_how_they_were_written() -> None:
    default = ENTRY.resolve().fingerprint
    assert ENTRY.resolve({"size": 32, "case": "upper"}).fingerprint == default
    assert ENTRY.resolve({"noise": 0}).fingerprint == default
    changed = [
        ENTRY.resolve(options).fingerprint
        for options in ({"size": 33}, {"noise": 0.1}, {"case": "lower"}, {"mirror": True})
    ]
    assert len({default, *changed}) == 5


@pytest.mark.parametrize(
    ("options", "field", "choice"),
    [
        ({"size": 65}, "dataset.size", "an integer from 8 to 64"),
        ({"size": "32"}, "dataset.size", "an integer from 8 to 64"),
        ({"size": 32.0}, "dataset.size", "an integer from 8 to 64"),
        ({"size": True}, "dataset.size", "an integer from 8 to 64"),
        ({"noise": float("nan")}, "dataset.noise", "a number from 0 to 1"),
        ({"noise": -0.1}, "dataset.noise", "a number from 0 to 1"),
        ({"case": "title"}, "dataset.case", "lower"),
        ({"mirror": 1}, "dataset.mirror", "false"),
        ({"path": "../../etc/passwd"}, "dataset.path", "size"),
    ],
)
def test_a_wrong_option_names_its_field_and_range(options: dict[str, Any], field: str, choice: str) -> None:
    with pytest.raises(SpecError) as caught:
        ENTRY.resolve(options)
    (problem,) = caught.value.problems
    assert problem.field == field
    assert choice in problem.choices


def test_all_wrong_options_are_told_at_once() -> None:
    with pytest.raises(SpecError) as caught:
        ENTRY.resolve({"size": 1, "noise": 2, "other": 3})
    assert [problem.field for problem in caught.value.problems] == ["dataset.size", "dataset.noise", "dataset.other"]


def test_an_entry_survives_json() -> None:
    again = DatasetEntry.model_validate_json(ENTRY.model_dump_json())
    assert again == ENTRY
    assert again.resolve({"noise": 0.5}) == ENTRY.resolve({"noise": 0.5})


def test_an_unknown_data_set_lists_the_known() -> None:
    with pytest.raises(SpecError) as caught:
        find_dataset({"letters": ENTRY}, "../../etc/passwd")
    assert caught.value.problems[0].choices == ("letters",)


def test_a_default_outside_its_range_is_refused() -> None:
    with pytest.raises(ValueError, match="not valid"):
        DatasetOption(name="size", type="int", default=4, minimum=8, doc="Size.")


def test_a_colour_sets_the_channels() -> None:
    colour = DatasetOption(
        name="colour", type="choice", default="rgb", choices=("grey", "rgb"), doc="Colour.", sets="channels"
    )
    entry = ENTRY.model_copy(update={"options": (*ENTRY.options, colour)})
    assert entry.resolve().input_shape == (3, 32, 32)
    assert entry.resolve({"colour": "grey", "size": 8}).input_shape == (1, 8, 8)
    with pytest.raises(ValueError, match="sets the channels"):
        DatasetOption(name="hue", type="choice", default="red", choices=("red",), doc="Hue.", sets="channels")


def test_a_data_set_that_cannot_be_used_says_what_it_needs_and_is_no_choice() -> None:
    one = UnavailableDataset(name="cifar10", title="CIFAR-10", reason="expected in /data: data_batch_1")
    known = unavailable_datasets(
        [
            {},
            {"unavailable_datasets": [one.model_dump(), {"name": "of a newer version"}]},
            {"unavailable_datasets": None},
        ]
    )
    assert known == {"cifar10": one}
    with pytest.raises(SpecError) as caught:
        find_dataset({"letters": ENTRY}, "cifar10", unavailable=known)
    (problem,) = caught.value.problems
    assert "expected in /data: data_batch_1" in problem.message
    assert problem.choices == ("letters",)
    assert find_dataset({"cifar10": ENTRY}, "cifar10", unavailable=known) is ENTRY
    with pytest.raises(SpecError, match="Unknown data set"):
        find_dataset({"letters": ENTRY}, "cifar100", unavailable=known)
