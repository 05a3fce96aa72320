"""How large and how slow the dashboard's data are for a search of very many trials.

    python -m benchmarks.dashboard [--trials 100000] [--database postgresql://…]

Fills an empty database (by default a new SQLite file) with one finished search, and asks the API in this process,
once cold (the service has just started) and then warm: bytes of each answer, and the median and slowest time.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

from fastapi.testclient import TestClient

from db.engine import make_engine
from db.upgrades import upgrade
from service.app import create_app
from service.settings import ServiceSettings
from tests.service.many import fill_many

REPEATS = 20
PATHS = (
    "/api/v1/searches/{id}/front",
    "/api/v1/searches/{id}/front?architectures=false&x=params&y=top1",
    "/api/v1/searches/{id}/effects",
    "/live/searches/{id}/paths",
    "/live/searches/{id}/trials?sort=-top1",
    "/searches/{id}",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=100_000)
    parser.add_argument("--database", default="")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        url = arguments.database or f"sqlite:///{Path(folder) / 'many.db'}"
        engine = make_engine(url)
        upgrade(engine)
        search = fill_many(engine, arguments.trials)
        engine.dispose()
        measure(url, search, arguments.trials)


def measure(url: str, search: str, trials: int) -> None:
    """Prints a row for each answer."""
    print(f"{trials:,} trials, {url.partition(':')[0]}")
    print(f"{'answer':<60}{'bytes':>10}{'cold ms':>10}{'median ms':>11}{'slowest ms':>12}")
    for path in PATHS:
        # a service of its own for each, so that none is warmed up by the one before
        with TestClient(create_app(ServiceSettings(database_url=url)), base_url="http://localhost") as client:
            client.get("/healthz")
            times = [timed(client, path.format(id=search)) for _ in range(REPEATS + 1)]
            size = len(client.get(path.format(id=search)).content)
        cold, *warm = [1000 * seconds for seconds in times]
        print(f"{path:<60}{size:>10,}{cold:>10.0f}{statistics.median(warm):>11.1f}{max(warm):>12.1f}")


def timed(client: TestClient, path: str) -> float:
    """Seconds until the whole answer is there."""
    began = time.perf_counter()
    answer = client.get(path)
    answer.raise_for_status()
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
