"""Requests written as YAML."""

from __future__ import annotations

import pytest

from service import yaml_text


def test_yaml_holds_json() -> None:
    assert yaml_text.load('{"a": [1, {"b": null}]}') == {"a": [1, {"b": None}]}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\na: 2\n", "Line 2: the key 'a' is written twice."),
        ("x: {1: 1, 0x1: 2}", "Line 1: the key 1 is written twice."),
        ("a: &a [1]\nb: *a", "Line 2: aliases are not allowed."),
        ("? [1]\n: 2", "unhashable"),
        ("a: !!python/object:os.system x", "Line 1: could not determine a constructor"),
        ("[" * 5000, "not YAML"),
        ("\x07", "not YAML"),
    ],
)
def test_what_cannot_be_a_request_is_told_with_its_line(text: str, message: str) -> None:
    with pytest.raises(ValueError) as told:
        yaml_text.load(text)
    assert message in str(told.value)
    assert "\n" not in str(told.value)


def test_a_file_of_ones_own_may_use_aliases() -> None:
    assert yaml_text.load("a: &a [1]\nb: *a", aliases=True) == {"a": [1], "b": [1]}
