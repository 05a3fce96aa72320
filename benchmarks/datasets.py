"""Reading data sets: start-up with many files, and whether decoding keeps up with training.

    python -m benchmarks.datasets listing --files 100000
    python -m benchmarks.datasets streaming --files 2000 --size 500x400 --workers 2

Random images of the right shape stand in for photographs: they are smooth (enlarged from 32 × 32 random colours), so
that a JPEG of them has about the size of a photograph's.
"""

from __future__ import annotations

import argparse
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

ENTRY = """
import json, sys, time
start = time.perf_counter()
from workers.datasets.folders import ImageFolder
imported = time.perf_counter() - start
dataset = ImageFolder("many")
times = []
for _ in range(3):
    start = time.perf_counter()
    entry = dataset.entry()
    times.append(time.perf_counter() - start)
view = dataset.view()
print(json.dumps({"entry_s": times, "listing_s": view.listing.seconds, "fingerprint": entry.fingerprint[:12]}))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    listing = commands.add_parser("listing")
    listing.add_argument("--files", type=int, default=100_000)
    streaming = commands.add_parser("streaming")
    streaming.add_argument("--files", type=int, default=1000)
    streaming.add_argument("--size", default="500x400", help="of the files, width x height")
    streaming.add_argument("--workers", type=int, default=None)
    streaming.add_argument("--batch", type=int, default=128)
    streaming.add_argument("--step", type=float, default=0.0, help="seconds that a training step is to take")
    asked = parser.parse_args()
    print(f"{platform.machine()}, {len(os.sched_getaffinity(0))} CPUs, load {os.getloadavg()[0]:.1f}")
    with tempfile.TemporaryDirectory() as folder:
        os.environ |= {"ATTUNE_HOME": folder, "ATTUNE_DATA": f"{folder}/data"}
        if asked.command == "listing":
            measure_listing(Path(folder), asked.files)
        else:
            width, height = map(int, asked.size.split("x"))
            measure_streaming(Path(folder), asked.files, (width, height), asked.workers, asked.batch, asked.step)


def measure_listing(folder: Path, files: int) -> None:
    """Time of entry() in a process that has never read the files, in one that finds their hashes, and when repeated."""
    classes = 100
    for number in range(classes):
        place = folder / "data" / "many" / f"class {number:03d}"
        place.mkdir(parents=True)
        for index in range(files // classes):
            header = f"P5 8 8 255\n# {number} {index}\n".encode()
            (place / f"{index:06d}.pgm").write_bytes(header + os.urandom(64))
    time.sleep(2.5)  # hashes of files that have just changed are not remembered
    for what in ("first process, every file read", "second process, hashes remembered"):
        start = time.perf_counter()
        done = subprocess.run([sys.executable, "-c", ENTRY], capture_output=True, text=True, check=True)
        print(f"{what}: {done.stdout.strip()}, with imports {time.perf_counter() - start:.2f} s")
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    print(f"{files} files; peak memory of a process {peak:.0f} MB")


def measure_streaming(
    folder: Path, files: int, size: tuple[int, int], workers: int | None, batch: int, step: float
) -> None:
    """Images/s of one process that decodes, of the workers, and the share of time that a trainer waits."""
    rng = np.random.default_rng(0)
    for part, count in (("train", files), ("val", 64), ("test", 64)):
        for index in range(count):
            place = folder / "data" / "photos" / part / "ab"[index % 2]
            place.mkdir(parents=True, exist_ok=True)
            small = Image.fromarray(rng.integers(0, 256, (32, 32, 3), np.uint8))
            small.resize(size, Image.Resampling.BICUBIC).save(place / f"{index:06d}.jpg", quality=90)
    os.environ["ATTUNE_DATA_MEMORY"] = "0"
    import torch

    from workers.datasets.decoding import RandomCrop
    from workers.datasets.loading import open_dataset
    from workers.datasets.sources import training_batches
    from workers.datasets.streaming import Decoding, Plan

    opened = open_dataset("photos", {"normalisation": "imagenet", "image_size": 224})
    listing = opened.train.listing  # type: ignore[union-attr]
    mean_size = listing.status[:, 0].mean() / 1000
    decoding = Decoding(str(listing.place.path), opened.frame, RandomCrop())  # type: ignore[union-attr]
    chunks = list(Plan(opened.train, batch, 0, True, True, None))[:4]  # type: ignore[arg-type]
    torch.set_num_threads(1)  # as in a worker
    start = time.process_time()
    for chunk in chunks:
        decoding.__getitems__(chunk)
    one = sum(map(len, chunks)) / (time.process_time() - start)
    print(f"{size[0]} x {size[1]} JPEG of {mean_size:.0f} kB to 224: {one:.0f} images per second of processor time")
    source = training_batches(opened, batch, seed=0, crop=RandomCrop(), epochs=3, workers=workers)
    for epoch in (1, 2, 3):
        start, first, count = time.perf_counter(), 0.0, 0
        for images, _ in source.epoch(epoch):
            first = first or time.perf_counter() - start
            count += len(images)
            time.sleep(step)
        seconds = time.perf_counter() - start
        print(
            f"epoch {epoch}: {count / seconds:.0f} images/s, first batch after {first:.2f} s, "
            f"steps of {step:g} s, waited {source.wait_share:.1%} of the time"
        )
    source.close()


if __name__ == "__main__":
    main()
