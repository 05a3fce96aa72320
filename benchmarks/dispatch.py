"""What dispatch costs: sleeping trials on 2 slots through attune's service and through plain Ray Tune, in one run.

    python -m benchmarks.dispatch [--trials 64] [--seconds 1.0] [--slots 2] [--no-tune]

Both sides import torch in their trials, as real ones do. "ideal" is trials × seconds ÷ slots.
"""

from __future__ import annotations

import argparse
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx


@contextmanager
def service(slots: int, home: Path) -> Iterator[str]:
    """attune's API and dispatcher as processes of their own; gives the API's address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {
        **os.environ,
        "ATTUNE_HOME": str(home),
        "ATTUNE_SLOTS": str(slots),
        "ATTUNE_PLUGINS": "benchmarks.sleeping",
        "PYTHONPATH": str(Path(__file__).parents[1]),
    }
    environment.pop("ATTUNE_TOKEN", None)
    command = [sys.executable, "-m", "service.cli.main", "serve", "--port", str(port)]
    with (home / "serve.log").open("wb") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    url = f"http://127.0.0.1:{port}"
    try:
        until(lambda: "sleep" in _datasets(url), 120)
        yield url
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=60)


def _datasets(url: str) -> list[str]:
    try:
        answer = httpx.get(f"{url}/api/v1/catalog/datasets", timeout=5)
    except httpx.HTTPError:
        return []
    return [item["name"] for item in answer.json().get("items", [])] if answer.status_code == 200 else []


def until(condition: Any, seconds: float, every: float = 0.1) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError("the service did not get there")
        time.sleep(every)


def through_attune(url: str, trials: int, seconds: float, seed: int = 0) -> dict[str, float]:
    """POSTs a search of `trials` sleeping trials; seconds from the POST to the first result and to the end, and the
    trials per second between the first and the last quarter's ends."""
    spec = {
        "name": "sleep",
        "dataset": {"name": "sleep", "seconds": seconds},
        "backbone": {"name": "resnet14", "width": 64},
        "space": {"reduction": [2, 4, 8, 16], "pattern": ["every", "first", "last"]},
        "controls": False,
        "training": {"epochs": 1},
        "strategy": {"name": "random", "seed": seed},
        "budget": {"trials": trials - 1},  # and the baseline
    }
    started = time.monotonic()
    answer = httpx.post(f"{url}/api/v1/searches", json=spec, timeout=60)
    answer.raise_for_status()
    search_id = answer.json()["id"]
    ends: list[float] = []
    status = "queued"
    while status in ("queued", "running"):
        time.sleep(0.05)
        search = httpx.get(f"{url}/api/v1/searches/{search_id}", timeout=60).json()
        status = search["status"]
        done = search["counts"].get("succeeded", 0)
        ends += [time.monotonic() - started] * (done - len(ends))
    if status != "succeeded":
        raise RuntimeError(f"the search {status}: {search['error']}")
    quarter = len(ends) // 4
    return {
        "first result": ends[0],
        "finished": time.monotonic() - started,
        "rate": (len(ends) - 1 - quarter) / (ends[-1] - ends[quarter]),
    }


PLAIN = """
import sys, time
def trial(config):
    import torch
    time.sleep(config["seconds"])
    return {"top1": 0.5}
import ray
from ray import tune
trials, seconds, slots = int(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3])
started = time.monotonic()
ray.init(num_cpus=slots, include_dashboard=False, log_to_driver=False)
tuner = tune.Tuner(trial, param_space={"seconds": seconds}, tune_config=tune.TuneConfig(num_samples=trials),
                   run_config=tune.RunConfig(verbose=0, storage_path=sys.argv[4]))
results = tuner.fit()
assert len(results) == trials and not results.errors
print("SECONDS", time.monotonic() - started)
"""


def through_tune(trials: int, seconds: float, slots: int) -> float:
    """The same trials by plain Ray Tune (function trainable, defaults), from ray.init to the end."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-c", PLAIN, str(trials), str(seconds), str(slots), folder]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(done.stdout.split("SECONDS")[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--slots", type=int, default=2)
    parser.add_argument("--searches", type=int, default=2, help="one after the other; the median is printed")
    parser.add_argument("--no-tune", action="store_true")
    asked = parser.parse_args()
    ideal = asked.trials * asked.seconds / asked.slots
    with tempfile.TemporaryDirectory(prefix="attune-bench-") as folder, service(asked.slots, Path(folder)) as url:
        runs = [through_attune(url, asked.trials, asked.seconds, seed) for seed in range(asked.searches)]
    median = {name: statistics.median(run[name] for run in runs) for name in runs[0]}
    steady = median["rate"] * asked.seconds / asked.slots
    print(f"{asked.trials} trials of {asked.seconds} s on {asked.slots} slots; ideal {ideal:.1f} s")
    print(f"attune: POST to first result {median['first result']:.1f} s; POST to finished {median['finished']:.1f} s")
    print(f"attune: steady state {median['rate']:.2f} trials/s, {steady:.3f} of the ideal; "
          f"finished {ideal / median['finished']:.3f} of the ideal")  # fmt: skip
    if not asked.no_tune:
        plain = through_tune(asked.trials, asked.seconds, asked.slots)
        print(f"plain Ray Tune (function trainable, defaults): {plain:.1f} s; attune is "
              f"{plain / median['finished']:.2f} times as fast")  # fmt: skip


if __name__ == "__main__":
    main()
