"""Opaque, signed cursors: where the next page of a list begins. One from another list or filter is refused."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from itsdangerous import BadData, URLSafeSerializer

from db.paging import Cursor
from service.errors import bad_field


class Cursors:
    """Writes and reads cursors. secret: shared by all API processes of one database."""

    def __init__(self, secret: str | None) -> None:
        self._serializer = URLSafeSerializer(secret or "attune", salt="attune.cursor")

    def write(self, cursor: Cursor | None, filters: Mapping[str, Any]) -> str | None:
        """The text for `next_cursor`; None on the last page. filters: everything that decides the list's order."""
        if cursor is None:
            return None
        return str(self._serializer.dumps([[_plain(value) for value in cursor], _digest(filters)]))

    def read(self, text: str | None, filters: Mapping[str, Any]) -> Cursor | None:
        """The inverse of `write`. ApiError 400 for a forged cursor and one of another list."""
        if text is None:
            return None
        try:
            (value, last), digest = self._serializer.loads(text)
        except BadData:
            raise bad_field(400, "cursor", "The cursor is not one of this service.") from None
        if digest != _digest(filters):
            raise bad_field(400, "cursor", "The cursor belongs to another list or to other filters.")
        return _rich(value), last


def _plain(value: Any) -> Any:
    return {"time": value.isoformat()} if isinstance(value, datetime) else value


def _rich(value: Any) -> Any:
    return datetime.fromisoformat(value["time"]) if isinstance(value, dict) else value


def _digest(filters: Mapping[str, Any]) -> str:
    text = json.dumps({name: value for name, value in filters.items() if value is not None}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
