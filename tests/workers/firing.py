"""A dispatcher's scheduler and nothing else, until it is killed: python -m tests.workers.firing DATABASE_URL"""

from __future__ import annotations

import contextlib
import sys
import time

from db.engine import make_engine
from db.errors import DatabaseUnavailable
from workers.scheduling import Scheduler


def main(url: str) -> None:
    scheduler = Scheduler(make_engine(url))
    print("ready", flush=True)
    while True:
        with contextlib.suppress(DatabaseUnavailable):
            scheduler.tick()
        time.sleep(0.02)


if __name__ == "__main__":
    main(sys.argv[1])
