"""Where the operator keeps data sets, and how much memory, disk and how many processes they may take."""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path

from pydantic import ByteSize, Field
from pydantic_settings import BaseSettings, SettingsConfigDict

MOST_DECODERS = 16


class DataSettings(BaseSettings):
    """Settings of data sets (environment, `ATTUNE_…`), the same on every machine that runs trials.

    data: the folder of data sets; default: `data` in the home.
    data_memory: images of a data set that together take more are decoded in each epoch instead of kept in memory.
    data_cache: bytes that decoded images may take on disk (in the home's `cache`); the least recently used go first.
    data_workers: processes that decode images for one trial, and threads that decode once; default: the CPUs there
    are, less one.
    data_timeout: seconds without a decoded batch after which reading counts as hung.
    """

    model_config = SettingsConfigDict(env_prefix="ATTUNE_", frozen=True, extra="ignore")

    home: Path = Field(default_factory=lambda: Path.home() / ".attune")
    data: Path | None = None
    data_memory: ByteSize = Field(default=ByteSize(4 * 2**30), ge=0)
    data_cache: ByteSize = Field(default=ByteSize(32 * 2**30), ge=0)
    data_workers: int | None = Field(default=None, ge=1, le=256)
    data_timeout: float = Field(default=600.0, gt=0)

    @property
    def root(self) -> Path:
        """The folder of data sets, absolute; it need not be there."""
        return (self.data or self.home / "data").expanduser().absolute()

    @property
    def cache(self) -> Path:
        return self.home.expanduser().absolute() / "cache"

    @property
    def decoders(self) -> int:
        """Processes that decode for one trial."""
        return self.data_workers or max(1, min(MOST_DECODERS, _cpus() - 1))


def data_settings() -> DataSettings:
    """The settings as the environment has them now."""
    return DataSettings()


@lru_cache(maxsize=1)
def _cpus() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
