"""A POST with an Idempotency-Key is done once: its effect and the answer for repeats are stored together."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Header
from sqlalchemy.orm import Session

from db import idempotency
from service.errors import ApiError, bad_field

Key = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=200,
        description="Repeating the request with the same key gives the same answer and changes nothing again.",
    ),
]


@dataclass(frozen=True)
class Answer:
    """replayed: the answer to an earlier request with the same key."""

    body: dict[str, Any]
    replayed: bool

    @property
    def headers(self) -> dict[str, str]:
        return {"Idempotency-Replayed": "true"} if self.replayed else {}


def check_key(key: str | None) -> None:
    """ApiError 400 for a key that is not plain text."""
    if key is not None and not (key.isascii() and key.isprintable()):
        raise bad_field(400, "Idempotency-Key", "Idempotency-Key holds characters that cannot be printed.")


def once(
    session: Session, scope: str, key: str | None, payload: Any, status: int, work: Callable[[], dict[str, Any]]
) -> Answer:
    """What `work` answers, or what it has answered to `key` before. Its errors leave the key free.

    To be called in the transaction that holds the work's own writes. scope: who the key is for. payload: decoded JSON.
    Raises ApiError 409 while another request with the key is being answered, 422 for another payload.
    """
    if key is None:
        return Answer(work(), replayed=False)
    begun = idempotency.begin(session, scope, key, payload_hash(payload))
    if isinstance(begun, idempotency.Replay):
        return Answer(begun.body, replayed=True)
    if isinstance(begun, idempotency.InFlight):
        raise ApiError(409, "A request with this Idempotency-Key is being answered.", headers={"Retry-After": "1"})
    if isinstance(begun, idempotency.Mismatch):
        raise ApiError(422, "This Idempotency-Key belongs to another request.")
    body = work()
    idempotency.finish(session, scope, key, status=status, body=body)
    return Answer(body, replayed=False)


def payload_hash(data: Any) -> str:
    """SHA-256 of the payload's meaning: spaces and the order of keys do not matter."""
    return hashlib.sha256(json.dumps(data, sort_keys=True, ensure_ascii=True).encode()).hexdigest()
