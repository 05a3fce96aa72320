"""Where the example requests are: beside the packages in a checkout, inside `service` once installed."""

from __future__ import annotations

from pathlib import Path

_HERE = Path(__file__).resolve().parent
FOLDERS = (_HERE / "example_requests", _HERE.parent / "examples")


def find(name: str) -> Path:
    """The file of the example called `name`; FileNotFoundError when it was not shipped."""
    for folder in FOLDERS:
        path = folder / f"{name}.yaml"
        if path.is_file():
            return path
    raise FileNotFoundError(f"example {name!r} is not in {' or '.join(map(str, FOLDERS))}")
