"""The description against the service: no generated request may cause an error of ours, nor an undescribed answer."""

from __future__ import annotations

from pathlib import Path

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import content_type_conformance, response_schema_conformance

from db.engine import make_engine
from db.upgrades import upgrade
from service.app import create_app
from service.settings import ServiceSettings
from tests.service.support import publish_digits


@pytest.fixture
def described(tmp_path: Path) -> schemathesis.BaseSchema:
    url = f"sqlite:///{tmp_path / 'attune.db'}"
    engine = make_engine(url)
    upgrade(engine)
    publish_digits(engine)
    engine.dispose()
    return schemathesis.openapi.from_asgi("/openapi.json", create_app(ServiceSettings(database_url=url)))


schema = schemathesis.pytest.from_fixture("described")


@pytest.mark.slow
@pytest.mark.timeout(600)
@schema.exclude(path_regex="/events$|^/login").parametrize()
@settings(
    max_examples=12, deadline=None, phases=(Phase.explicit, Phase.generate), suppress_health_check=list(HealthCheck)
)
def test_any_request(case: schemathesis.Case) -> None:
    case.headers["Host"] = "localhost"
    checks = [not_a_server_error, content_type_conformance, response_schema_conformance]
    case.call_and_validate(checks=checks)
