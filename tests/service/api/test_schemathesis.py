"""The description against the service: no generated request may cause an error of ours, nor an undescribed answer."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import content_type_conformance, response_schema_conformance

from db.engine import make_engine
from service.app import create_app
from service.settings import ServiceSettings
from tests.service.support import publish_digits

CHECKS = [not_a_server_error, content_type_conformance, response_schema_conformance]
LEFT_OUT = ("/api/v1/searches/{search_id}/events", "/login")  # a stream, and a redirect to the pages


@pytest.fixture
def described(sqlite_url: str) -> schemathesis.BaseSchema:
    engine = make_engine(sqlite_url)
    publish_digits(engine)
    engine.dispose()
    app = create_app(ServiceSettings(database_url=sqlite_url, allowed_hosts="*"))
    return schemathesis.openapi.from_asgi("/openapi.json", app)


def operations(schema: schemathesis.BaseSchema) -> Iterator[schemathesis.APIOperation]:
    for result in schema.get_all_operations():
        operation = result.ok()
        if operation.path not in LEFT_OUT:
            yield operation


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_any_request(described: schemathesis.BaseSchema) -> None:
    # not by schemathesis' pytest plugin, whose items the current pytest does not take
    found = list(operations(described))
    assert len(found) >= 20
    for operation in found:

        @settings(max_examples=15, deadline=None, database=None, suppress_health_check=list(HealthCheck))
        @given(case=operation.as_strategy())
        def test(case: schemathesis.Case) -> None:
            case.call_and_validate(checks=CHECKS, timeout=600)  # costs are counted for the first time

        test()
