"""Every row of the bad-input list that is about the body, against the whole application."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from hypothesis import given
from hypothesis import strategies as st

from service.body import DEEPEST, LARGEST_BODY, MOST_VALUES, parse
from service.errors import ApiError
from tests.service.support import SPEC, opened


@pytest.fixture(scope="module")
def client(sqlite_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """One application for all rows: a refused body leaves nothing behind."""
    path = tmp_path_factory.mktemp("body") / "attune.db"
    path.write_bytes(sqlite_template.read_bytes())
    with opened(f"sqlite:///{path}") as found:
        yield found


PATHS = ("/api/v1/searches", "/api/v1/previews")
GOOD = json.dumps(SPEC)
JSON = {"Content-Type": "application/json"}


def searches_in(client: TestClient) -> int:
    return sum(client.get("/api/v1/cluster").json()["searches"].values())


def nested(depth: int) -> str:
    return "[" * depth + "]" * depth


BAD = {
    "NaN": GOOD[:-1] + ', "priority": NaN}',
    "Infinity": GOOD[:-1] + ', "priority": Infinity}',
    "minus Infinity": GOOD[:-1] + ', "priority": -Infinity}',
    "1e999": GOOD[:-1] + ', "priority": 1e999}',
    "truncated": GOOD[:-5],
    "trailing text": GOOD + " x",
    "two documents": GOOD + GOOD,
    "duplicate key": GOOD[:-1] + ', "name": "other"}',
    "duplicate key inside": GOOD[:-1] + ', "space": {"modules": ["se"], "modules": ["none"]}}',
    "invalid UTF-8": GOOD.encode()[:-1] + b', "owner": "\xff"}',
    "UTF-16": GOOD.encode("utf-16"),
    "UTF-16 without mark": GOOD.encode("utf-16-le"),
    "byte order mark": GOOD.encode("utf-8-sig"),
    "too deep": GOOD[:-1] + f', "space": {nested(DEEPEST)}}}',
    "far too deep": nested(200_000),
    "deep and never closed": "[" * 500_000,
    "too many values": GOOD[:-1] + f', "tags": {json.dumps([0] * MOST_VALUES)}}}',
    "lone surrogate": GOOD[:-1] + r', "owner": "\ud800"}',
    "lone surrogate as a key": GOOD[:-1] + r', "\udfff": 1}',
    "NUL": GOOD[:-1] + r', "owner": "a\u0000b"}',
    "raw control character": GOOD[:-1] + ', "owner": "a\nb"}',
    "5,000 digits": GOOD[:-1] + f', "priority": {"9" * 5000}}}',
    "5,000 digits after the point": GOOD[:-1] + f', "priority": 0.{"9" * 5000}}}',
    "2^63": GOOD[:-1] + f', "priority": {2**63}}}',
    "below -2^63": GOOD[:-1] + f', "priority": {-(2**63) - 1}}}',
    "empty": "",
    "blanks": " \n ",
    "single quotes": "{'name': 'x'}",
    "comment": GOOD + " // yes",
    "quotes that never end": '"' + '\\"' * 400_000,
}


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("name", BAD)
def test_bad_body_is_400_and_not_echoed(client: TestClient, path: str, name: str) -> None:
    content = BAD[name]
    before = searches_in(client)
    answer = client.post(path, content=content if isinstance(content, bytes) else content.encode(), headers=JSON)
    assert answer.status_code == 400, answer.text
    problem = answer.json()
    assert answer.headers["content-type"] == "application/problem+json"
    assert problem["status"] == 400
    assert problem["errors"][0]["message"] == problem["detail"]
    assert searches_in(client) == before


def test_path_of_what_is_wrong(client: TestClient) -> None:
    answer = client.post(PATHS[0], content=rb'{"name": "x", "tags": ["a", "\u0000"]}', headers=JSON)
    assert answer.json()["errors"][0]["field"] == "tags.1"


@pytest.mark.parametrize(
    "kind", [None, "text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "text/json",
             "application/json; charset=utf-16", "application/jsonp"],
)  # fmt: skip
def test_other_media_types_are_415(client: TestClient, kind: str | None) -> None:
    answer = client.post(PATHS[0], content=GOOD.encode(), headers={} if kind is None else {"Content-Type": kind})
    assert answer.status_code == 415, answer.text


@pytest.mark.parametrize("encoding", ["gzip", "br"])
def test_encoded_bodies_are_415(client: TestClient, encoding: str) -> None:
    answer = client.post(PATHS[0], content=GOOD.encode(), headers=JSON | {"Content-Encoding": encoding})
    assert answer.status_code == 415


@pytest.mark.parametrize(
    "kind", ["application/json", "application/json; charset=utf-8", "Application/JSON;charset=UTF-8"]
)
def test_json_in_utf8_is_read(client: TestClient, kind: str) -> None:
    assert client.post(PATHS[0], content=GOOD.encode(), headers={"Content-Type": kind}).status_code == 201


def test_10_mb_with_a_length_is_413(client: TestClient) -> None:
    answer = client.post(PATHS[0], content=b" " * 10_000_000, headers=JSON)
    assert answer.status_code == 413
    assert answer.headers["content-type"] == "application/problem+json"


def test_10_mb_in_chunks_is_413(client: TestClient) -> None:
    def chunks() -> Iterator[bytes]:
        for _ in range(100):
            yield b" " * 100_000

    assert client.post(PATHS[0], content=chunks(), headers=JSON).status_code == 413


def test_largest_body_is_read(client: TestClient) -> None:
    content = GOOD.encode().ljust(LARGEST_BODY)
    assert client.post(PATHS[0], content=content, headers=JSON).status_code == 201


LEAVES = st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)
LEAVES |= st.text(st.characters(exclude_characters="\0", exclude_categories=("Cs",)))
DOCUMENTS = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text("abc", max_size=3), inner)
)


@given(DOCUMENTS)
def test_reads_what_json_writes(value: Any) -> None:
    assert parse(json.dumps(value, ensure_ascii=False).encode()) == value


@given(st.binary(max_size=60) | st.text('[]{}",:0123456789eE+-\\u dntrufalse', max_size=60).map(str.encode))
def test_any_bytes_are_read_or_refused(raw: bytes) -> None:
    # ApiError is the only way to refuse; 400 the only status that parsing gives
    with suppress(ApiError):
        parse(raw)
