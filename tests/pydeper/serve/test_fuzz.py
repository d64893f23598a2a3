"""The interface against its own description: whatever fits it or not, nothing fails inside."""

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from pydeper.serve.app import make_app
from pydeper.serve.settings import Settings
from tests.pydeper.serve.running import Gateway

SCHEMA = schemathesis.openapi.from_dict(make_app(Settings(model="tiny")).openapi())
CHECKS = [not_a_server_error, content_type_conformance, response_schema_conformance, status_code_conformance]
HASTY = settings(
    max_examples=5,
    deadline=None,
    derandomize=True,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)


@pytest.fixture(scope="module")
def key(gateway: Gateway) -> str:
    with gateway.client("fuzzed") as client:
        return client.headers["authorization"]


@SCHEMA.parametrize()
@HASTY
def test_requests_that_fit_the_schema_or_not(case: schemathesis.Case, gateway: Gateway, key: str) -> None:
    case.call_and_validate(base_url=gateway.address, headers={"Authorization": key}, checks=CHECKS)


@pytest.mark.slow
@SCHEMA.parametrize()
@settings(HASTY, max_examples=400)
def test_many_requests_that_fit_the_schema_or_not(case: schemathesis.Case, gateway: Gateway, key: str) -> None:
    case.call_and_validate(base_url=gateway.address, headers={"Authorization": key}, checks=CHECKS)
