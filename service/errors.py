"""Every error as RFC 9457 problem+json, turned into an answer in one place. Values of a request are not echoed."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from db.errors import Conflict, DatabaseUnavailable, NotFound, Stale
from search.errors import Problem, SpecError
from service import logs

MEDIA_TYPE = "application/problem+json"
RETRY_SECONDS = 1
LASTING_RETRY_SECONDS = 30
LONGEST_FIELD = 200


class ApiError(Exception):
    """An answer other than success.

    status: HTTP's. detail: a sentence for the user. problems: what is wrong with which field.
    """

    def __init__(
        self, status: int, detail: str, problems: Iterable[Problem] = (), headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.problems = tuple(problems)
        self.headers = dict(headers or {})


def bad_field(status: int, field: str, message: str, choices: Iterable[str] = ()) -> ApiError:
    """One field is wrong."""
    return ApiError(status, message, [Problem(field, message, tuple(choices))])


def problem_response(
    status: int,
    detail: str,
    problems: Iterable[Problem] = (),
    headers: Mapping[str, str] | None = None,
    **further: Any,
) -> Response:
    """The answer of RFC 9457; `errors` lists {field, message, choices}."""
    body: dict[str, Any] = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
    }
    errors = [_shown(problem) for problem in problems]
    if errors:
        body["errors"] = errors
    # ASCII: a lone surrogate in a field's name must not break the answer
    content = json.dumps(body | further, ensure_ascii=True).encode()
    return Response(content, status, headers=dict(headers or {}), media_type=MEDIA_TYPE)


def _shown(problem: Problem) -> dict[str, Any]:
    return {"field": problem.field[:LONGEST_FIELD], "message": problem.message, "choices": list(problem.choices)}


def install(app: FastAPI) -> None:
    """Makes `app` answer every foreseen error; unforeseen ones are the middleware's."""
    for kind, handler in _HANDLERS.items():
        app.add_exception_handler(kind, handler)


async def _api_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)
    return problem_response(error.status, error.detail, error.problems, error.headers)


async def _spec_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, SpecError)
    count = len(error.problems)
    first = str(error.problems[0])
    detail = first if count == 1 else f"{count} fields are wrong; the first: {first}"
    return problem_response(422, detail[:1000], error.problems)


async def _not_found(request: Request, error: Exception) -> Response:
    assert isinstance(error, NotFound)
    return problem_response(404, f"There is no such {error.what}.")


async def _conflict(request: Request, error: Exception) -> Response:
    text = str(error)
    return problem_response(412 if isinstance(error, Stale) else 409, f"{text[:1].upper()}{text[1:]}.")


async def _unavailable(request: Request, error: Exception) -> Response:
    assert isinstance(error, DatabaseUnavailable)
    log_outage(error)
    if not error.transient:
        request.app.state.service.room.doubt()
    seconds = RETRY_SECONDS if error.transient else LASTING_RETRY_SECONDS
    headers = {"Retry-After": str(seconds)}
    return problem_response(503, "The database cannot be used at the moment; try again later.", headers=headers)


def log_outage(error: DatabaseUnavailable) -> None:
    """One line with the class of the driver's error; its message may quote a password or what a request holds."""
    cause = getattr(error.__cause__, "orig", None) or error.__cause__
    logs.get("service").warning("database_unavailable", transient=error.transient, error=type(cause).__name__)


async def _invalid(request: Request, error: Exception) -> Response:
    """FastAPI's own findings, of which only parameters are left: the body has a parser of its own."""
    assert isinstance(error, RequestValidationError)
    problems = []
    for item in error.errors():
        place, *path = item["loc"]
        if place == "path":
            return problem_response(404, "Nothing is here.")
        if place == "header":
            name = str(path[0])
            return problem_response(400, f"The header {name} is not valid.", [Problem(name, f"{item['msg']}.")])
        problems.append(Problem(".".join(map(str, path)), f"{item['msg'].removeprefix('Value error, ')}."))
    return problem_response(422, f"{problems[0].field}: {problems[0].message}", problems)


async def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    details = {404: "Nothing is here.", 405: "This address does not know that method."}
    return problem_response(error.status_code, details.get(error.status_code, str(error.detail)), headers=error.headers)


_HANDLERS: dict[type[Exception], Any] = {
    ApiError: _api_error,
    SpecError: _spec_error,
    NotFound: _not_found,
    Conflict: _conflict,
    DatabaseUnavailable: _unavailable,
    RequestValidationError: _invalid,
    HTTPException: _http,
}
