"""What dispatch costs: sleeping trials through attune's service and through plain Ray Tune, in one run.

    python -m benchmarks.dispatch [PART ...] [--trials 64] [--seconds 1.0] [--slots 2] [--searches 2]

Parts (all of them by default):
    long      trials of --seconds: POST to first result, to the end, and the steady state
    short     trials of 0.05 s: how many a second in the steady state
    cancel    POST of the command until the search is cancelled, during an epoch of 60 s
    takeover  dispatcher and driver killed (SIGKILL) until the search runs again; the lease is printed beside it
    fair      two searches on 4 slots: slots that each keeps busy while both run
    tune      the long trials through plain Ray Tune (function trainable, defaults), for comparison

Both sides import torch in their trials, as real ones do. "ideal" is trials × seconds ÷ slots. The first search comes
right after the service's start; the others when the service has come to rest.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence

from benchmarks.serving import Service, moment, service, until

LEASE_SECONDS = 15.0
FAIR_SLOTS = 4
HANDED_OVER_SECONDS, MEASURED_SECONDS = 3.0, 10.0
PARTS = ("long", "short", "cancel", "takeover", "fair", "tune")


def one_search(running: Service, trials: int, seconds: float, seed: int) -> dict[str, float]:
    """Seconds from the POST to the first result and to the end; trials per second and their mean overhead between the
    first quarter's last end and the last end."""
    posted = time.time()
    search_id = running.submit(trials, seconds, seed=seed)
    finished = moment(running.ended(search_id)["finished_at"]) - posted
    ends = [end for _, end in running.intervals(search_id)]
    quarter = len(ends) // 4
    return {
        "first": ends[0] - posted,
        "finished": finished,
        "rate": (len(ends) - 1 - quarter) / (ends[-1] - ends[quarter]),
    }


def load() -> str:
    return f"load average {os.getloadavg()[0]:.1f}"


def long_trials(running: Service, trials: int, seconds: float, slots: int, searches: int) -> float:
    """Prints each search and the median of those that found a rested service; its seconds from POST to finished."""
    ideal = trials * seconds / slots
    print(f"{trials} trials of {seconds} s on {slots} slots; ideal {ideal:.1f} s")
    runs = []
    for seed in range(searches):
        if seed:
            running.settle()
        runs.append(one_search(running, trials, seconds, seed))
        print(f"  {'rested' if seed else 'right after the start'}: {_described(runs[-1], seconds, slots, ideal)}; "
              f"{load()}", flush=True)  # fmt: skip
    rested = runs[1:] or runs
    median = {name: statistics.median(run[name] for run in rested) for name in rested[0]}
    print(f"  median of the rested: {_described(median, seconds, slots, ideal)}")
    return median["finished"]


def _described(run: dict[str, float], seconds: float, slots: int, ideal: float) -> str:
    return (
        f"POST to first result {run['first']:.1f} s, to finished {run['finished']:.1f} s "
        f"({ideal / run['finished']:.3f} of the ideal); steady state {run['rate']:.2f} trials/s, "
        f"{run['rate'] * seconds / slots:.3f} of the ideal"
    )


def short_trials(running: Service, trials: int, slots: int) -> None:
    running.settle()
    run = one_search(running, trials, 0.05, seed=100)
    print(f"{trials} trials of 0.05 s on {slots} slots: {run['rate']:.1f} trials/s in the steady state "
          f"(ideal {slots / 0.05:.0f}); {load()}", flush=True)  # fmt: skip


def cancel(running: Service) -> None:
    running.settle()
    search_id = running.submit(8, 60.0)
    until(lambda: running.client.search(search_id)["counts"]["running"] > 0, 120)
    time.sleep(5.0)
    asked = time.monotonic()
    running.client.cancel(search_id)
    until(lambda: running.client.search(search_id)["status"] == "cancelled", 120, every=0.05)
    print(f"cancel during an epoch of 60 s: {time.monotonic() - asked:.1f} s; {load()}", flush=True)


def takeover(running: Service) -> None:
    running.settle()
    search_id = running.submit(400, 1.0, seed=200)
    until(lambda: running.client.search(search_id)["counts"]["succeeded"] >= 4, 120)
    killed = time.time()
    for process in (*running.processes("workers.dispatcher"), *running.processes("workers.driver")):
        process.kill()
    until(lambda: running.client.search(search_id)["attempt"] == 2, 120)
    claimed = time.time() - killed
    until(lambda: any(start > killed for start, _ in running.intervals(search_id)), 120)
    first = min(end for start, end in running.intervals(search_id) if start > killed) - killed
    running.client.cancel(search_id)
    until(lambda: running.client.search(search_id)["status"] == "cancelled", 60)
    print(f"dispatcher and driver killed: claimed again after {claimed:.1f} s (lease {LEASE_SECONDS:.0f} s), "
          f"first result after {first:.1f} s; {load()}", flush=True)  # fmt: skip


def fair(trials: int) -> None:
    """Two searches on a service of their own, the second when the first has all slots."""
    with service(FAIR_SLOTS) as running:
        running.settle()
        searches = [running.submit(trials, 1.0, seed=300)]
        until(lambda: running.client.search(searches[0])["counts"]["succeeded"] >= FAIR_SLOTS, 120)
        searches.append(running.submit(trials, 1.0, seed=301))
        for search_id in searches:
            running.ended(search_id)
        busy, window = _busy([running.intervals(search_id) for search_id in searches])
    print(f"two searches on {FAIR_SLOTS} slots, {window:.0f} s together: {busy[0]:.2f} and {busy[1]:.2f} slots busy, "
          f"ratio {min(busy) / max(busy):.3f}; {load()}", flush=True)  # fmt: skip


def _busy(searches: Sequence[list[tuple[float, float]]]) -> tuple[list[float], float]:
    """Slots that each search keeps busy on average while both run, and the length of that time: from a little after the
    second one's first result, when slots have changed hands, to the first one's last result."""
    begin = max(intervals[0][1] for intervals in searches) + HANDED_OVER_SECONDS
    end = min(intervals[-1][1] for intervals in searches)
    if end - begin < MEASURED_SECONDS:
        raise RuntimeError(f"they have run together for {end - begin:.0f} s only: ask for more --fair-trials")
    seconds = [sum(max(0.0, min(b, end) - max(a, begin)) for a, b in intervals) for intervals in searches]
    return [one / (end - begin) for one in seconds], end - begin


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
    """The same trials by plain Ray Tune, from ray.init to the end."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-c", PLAIN, str(trials), str(seconds), str(slots), folder]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(done.stdout.split("SECONDS")[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--trials", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--slots", type=int, default=2)
    parser.add_argument("--searches", type=int, default=3, help="of long trials, one after the other")
    parser.add_argument("--short-trials", type=int, default=400)
    parser.add_argument("--fair-trials", type=int, default=200, help="of 1 s, of each of the two searches")
    asked = parser.parse_args()
    parts = asked.parts or PARTS
    if wrong := set(parts) - set(PARTS):
        parser.error(f"no such part: {', '.join(sorted(wrong))}; there are {', '.join(PARTS)}")
    ours: float | None = None
    if {"long", "short", "cancel", "takeover"} & set(parts):
        with service(asked.slots, ATTUNE_LEASE_SECONDS=str(LEASE_SECONDS)) as running:
            if "long" in parts:
                ours = long_trials(running, asked.trials, asked.seconds, asked.slots, asked.searches)
            if "short" in parts:
                short_trials(running, asked.short_trials, asked.slots)
            if "cancel" in parts:
                cancel(running)
            if "takeover" in parts:
                takeover(running)
    if "fair" in parts:
        fair(asked.fair_trials)
    if "tune" in parts:
        plain = through_tune(asked.trials, asked.seconds, asked.slots)
        ratio = "" if ours is None else f"; attune is {plain / ours:.2f} times as fast"
        print(f"plain Ray Tune (function trainable, defaults): {plain:.1f} s{ratio}; {load()}")


if __name__ == "__main__":
    main()
