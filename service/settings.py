"""What an operator sets for the API process (environment, `ATTUNE_…`)."""

from __future__ import annotations

from importlib import import_module
from typing import Self

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import SettingsConfigDict

from db.settings import DatabaseSettings
from service.hosts import bracketed, is_loopback


class ServiceSettings(DatabaseSettings):
    """Settings of the API; home and database_url are those of `db.settings`.

    host, port: where the server listens. token: bearer token that every route but health asks for.
    allowed_hosts: further values of the Host header ("attune.example,*" allows all), comma-separated.
    max_gpus: GPUs of one trial beyond which a search is refused; None: whatever the cluster may have one day.
    plugins: modules imported before the first request; they may register modules, backbones and strategies.
    hook_hosts: hosts that web hooks may reach though they are private or without https, comma-separated.
    upgrade: bring the database's schema up to date at start.
    """

    model_config = SettingsConfigDict(env_prefix="ATTUNE_", frozen=True, extra="ignore", hide_input_in_errors=True)

    host: str = "127.0.0.1"
    port: int = Field(default=8000, ge=0, le=65535)
    token: SecretStr | None = None
    allowed_hosts: str = ""
    max_gpus: float | None = Field(default=None, ge=0)
    plugins: str = ""
    hook_hosts: str = ""
    upgrade: bool = True
    busy_seconds: float = Field(default=5.0, gt=0, description="How long a request waits for a locked database.")
    event_poll_seconds: float = Field(default=0.5, gt=0, description="How often an event stream looks for news.")
    heartbeat_seconds: float = Field(default=15.0, gt=0, description="A sign of life on an idle event stream.")

    @field_validator("token")
    @classmethod
    def _no_blank_token(cls, value: SecretStr | None) -> SecretStr | None:
        """ATTUNE_TOKEN= (set to nothing) means no token."""
        return value if value is not None and value.get_secret_value().strip() else None

    @model_validator(mode="after")
    def _guarded(self) -> Self:
        if self.token is None and not is_loopback(self.host):
            raise ValueError("listening beyond this machine needs ATTUNE_TOKEN: set it to a long random text")
        return self

    @property
    def secret(self) -> str | None:
        """The token itself."""
        return None if self.token is None else self.token.get_secret_value()

    @property
    def hosts(self) -> frozenset[str]:
        """Values of the Host header that are answered, lower case, without port."""
        listed = {part.strip().lower() for part in self.allowed_hosts.split(",") if part.strip()}
        return frozenset(listed | {"localhost", "127.0.0.1", "[::1]", bracketed(self.host.lower())})

    def load_plugins(self) -> None:
        """Imports the operator's modules; an import error is the operator's to see."""
        for name in filter(None, (part.strip() for part in self.plugins.split(","))):
            import_module(name)
