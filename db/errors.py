"""What the functions of this package raise; the service turns them into answers, the workers into decisions."""


class DatabaseError(Exception):
    """Base of this package's errors."""


class NotFound(DatabaseError):  # noqa: N818  (named for what happened)
    """No such row."""

    def __init__(self, what: str, key: str) -> None:
        super().__init__(f"no {what} {key!r}")
        self.what = what
        self.key = key


class Conflict(DatabaseError):  # noqa: N818  (named for what happened)
    """The row's state or a unique name does not allow the change; the message is meant for users."""


class Stale(Conflict):
    """The row has changed since the caller read it (If-Match does not match)."""


class Fenced(DatabaseError):  # noqa: N818  (named for what happened)
    """Another attempt has taken the search over: the caller is a zombie and must stop without another write."""

    def __init__(self, search_id: str, attempt: int) -> None:
        super().__init__(f"attempt {attempt} does not hold search {search_id} any more")
        self.search_id = search_id
        self.attempt = attempt


class DatabaseUnavailable(DatabaseError):  # noqa: N818  (named for what happened)
    """The database is away, locked or full. Nothing is known of the last commit, so repeat the whole write.

    `transient` tells whether waiting a moment may help (a full disk does not empty itself).
    """

    def __init__(self, message: str, *, transient: bool) -> None:
        super().__init__(message)
        self.transient = transient
