"""Trial processes see what they need of the environment, and no more of attune's own than is listed."""

from __future__ import annotations

from workers.datasets.settings import DataSettings
from workers.trial_environment import PASSED, hidden_variables, strip_environment


def test_secrets_are_hidden_also_those_that_nobody_has_thought_of_yet() -> None:
    environment = {
        "ATTUNE_DATABASE_URL": "postgresql://user:secret@host/name",
        "ATTUNE_TOKEN": "secret",
        "ATTUNE_SECRET_OF_TOMORROW": "secret",
        "PGPASSWORD": "secret",
        "PGPASSFILE": "/secret",
        "POSTGRES_PASSWORD": "secret",
        "DATABASE_URL": "postgresql://user:secret@host/name",
        "ATTUNE_PLUGINS": "mine",
        "ATTUNE_HOME": "/home",
        "PATH": "/bin",
        "AWS_SECRET_ACCESS_KEY": "the store needs it",
        "CUDA_VISIBLE_DEVICES": "0",
    }
    assert sorted(hidden_variables(environment)) == sorted(list(environment)[:7])
    strip_environment(environment)
    assert list(environment) == [
        "ATTUNE_PLUGINS",
        "ATTUNE_HOME",
        "PATH",
        "AWS_SECRET_ACCESS_KEY",
        "CUDA_VISIBLE_DEVICES",
    ]


def test_what_data_sets_are_set_by_reaches_them() -> None:
    assert {f"ATTUNE_{name.upper()}" for name in DataSettings.model_fields} <= PASSED
