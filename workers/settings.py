"""What an operator sets for dispatchers, drivers and trial processes (environment, `ATTUNE_…`)."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, SecretStr, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict


class WorkerSettings(BaseSettings):
    """Settings of the workers; the database's are in db.settings.

    ray_address: a standing cluster ("host:6379"); without it the dispatcher starts a local Ray on loopback.
    slots: CPUs that a local Ray offers to trials; default: the machine's.
    lease_seconds: how long a search stays with a driver that gives no sign of life.
    epoch_timeout: seconds after which an epoch counts as hung and its process is ended.
    spare_drivers: 1 keeps a driver process ready, so that a search starts seconds sooner; 0 saves its memory.
    warm_processes: how many trial processes a driver starts before they are needed, at most its share of the slots and
        one for each CPU of a node; each takes about 0.45 GB while it waits. 0: every process starts when its first
        trial does.
    max_drivers: searches that a dispatcher runs at once at most; default: as many drivers as fit into half of
        its memory.
    driver_attempts: drivers of one search that may die before the search fails.
    outage_seconds: how long a driver waits for a database that is away before it ends and leaves its search to others.
    ray_patience: seconds without an answer from Ray after which a dispatcher ends its drivers and connects anew (Ray
        itself ends every process after 60).
    autoscale: whether to tell Ray's autoscaler what searches ask for, so that nodes come and go with them.
    ray_wait: seconds that a dispatcher waits for a standing cluster before it gives up.
    drain_seconds: how long live trials may take to end their epoch when a search is paused or handed back.
    storage: where checkpoints and weights are kept: a folder, or a URL that fsspec knows; default: HOME/storage.
    keep_days: how long weights that are on no front, and checkpoints of trials without a result, are kept.
    storage_gb: size of the store (10⁹ bytes) above which what is on no front goes, oldest first; None: no limit.
    janitor_seconds: between two rounds of tidying the store.
    hook_hosts: hosts that web hooks may reach though they are private or without https, comma-separated.
    smtp_host, smtp_port, smtp_user, smtp_password, smtp_from: the mail server, and whom letters come from.
    smtp_security: how the connection to it is encrypted.
    """

    model_config = SettingsConfigDict(env_prefix="ATTUNE_", frozen=True, extra="ignore", hide_input_in_errors=True)

    home: Path = Field(default_factory=lambda: Path.home() / ".attune")
    ray_address: str | None = None
    slots: int | None = Field(default=None, ge=1)
    lease_seconds: float = Field(default=15.0, gt=0.5)
    epoch_timeout: float = Field(default=3600.0, gt=0)
    spare_drivers: int = Field(default=1, ge=0, le=1)
    warm_processes: int = Field(default=4, ge=0, le=1024)
    max_drivers: int | None = Field(default=None, ge=1)
    driver_attempts: int = Field(default=5, ge=1)
    drain_seconds: float = Field(default=20.0, ge=0, le=25)
    outage_seconds: float = Field(default=300.0, ge=0)
    ray_patience: float = Field(default=15.0, gt=0, le=50)
    autoscale: bool = False
    ray_wait: float = Field(default=120.0, ge=0)

    storage: str | None = None
    keep_days: float = Field(default=14.0, ge=0)
    storage_gb: float | None = Field(default=None, gt=0)
    janitor_seconds: float = Field(default=300.0, gt=0)

    hook_hosts: str = ""
    smtp_host: str | None = None
    smtp_port: int = Field(default=587, ge=1, le=65535)
    smtp_user: str | None = None
    smtp_password: SecretStr | None = None
    smtp_from: str = "attune@localhost"
    smtp_security: Literal["starttls", "tls", "none"] = "starttls"

    @model_validator(mode="after")
    def _login_is_whole(self) -> Self:
        if (self.smtp_user is None) != (self.smtp_password is None):
            raise ValueError("ATTUNE_SMTP_USER and ATTUNE_SMTP_PASSWORD go together: set both or neither")
        return self

    @property
    def storage_url(self) -> str:
        """Where the store is, as any process of this machine may be told: a URL, or a folder's absolute path."""
        if self.storage is None:
            return str(self.home.expanduser().absolute() / "storage")
        if "://" in self.storage or "::" in self.storage:
            return self.storage
        return str(Path(self.storage).expanduser().absolute())

    @property
    def log_folder(self) -> Path:
        return self.home.expanduser().absolute() / "logs"
