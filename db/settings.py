"""Where the database is, from the environment."""

from pathlib import Path

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict


class DatabaseSettings(BaseSettings):
    """`ATTUNE_DATABASE_URL` names the database; without it, a SQLite file in `ATTUNE_HOME` (default ~/.attune)."""

    model_config = SettingsConfigDict(env_prefix="ATTUNE_", frozen=True, extra="ignore")

    home: Path = Field(default_factory=lambda: Path.home() / ".attune")
    database_url: SecretStr | None = None  # may hold a password, which must not reach a log

    @property
    def url(self) -> str:
        """The URL to connect to, password included."""
        if self.database_url is not None:
            return self.database_url.get_secret_value()
        return f"sqlite:///{self.home.expanduser().absolute() / 'attune.db'}"
