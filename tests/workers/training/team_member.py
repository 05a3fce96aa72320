"""One process of a team: `python -m tests.workers.training.team_member REQUEST RANK SIZE PORT EPOCHS [STATE]`.

Rank 0 prints the port and then, as every member, what each epoch has given. With STATE, a file, it goes on from there;
rank 0 writes its state there after the first epoch. A member with DIE in its environment dies in its second epoch.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict
from pathlib import Path

import torch

from workers.training.classification import ClassificationSession
from workers.training.request import TrialRequest
from workers.training.teams import host_team, join_team


def main(text: str, rank: int, size: int, port: int, epochs: int, state: str = "") -> None:
    request = TrialRequest.from_json(json.loads(text))
    if rank == 0:
        port, join = host_team(size, "cpu")
        print(port, flush=True)
        team = join()
    else:
        team = join_team("127.0.0.1", port, rank, size, "cpu")
    session = ClassificationSession(request, team)
    file = Path(state) if state else None
    if file is not None and file.exists():
        session.load(torch.load(file))
    while session.epoch < epochs:
        if session.epoch == 1 and "DIE" in os.environ:
            os._exit(9)
        print(json.dumps(asdict(session.run_epoch())), flush=True)
        if file is not None and rank == 0 and session.epoch == 1:
            torch.save(session.state(), file)
    if request.evaluate_test:
        print(json.dumps(asdict(session.evaluate_test())), flush=True)
    sums = {name: value.double().sum().item() for name, value in session.weights().items()}
    print(json.dumps(sums), flush=True)
    if request.latency and rank == 0:
        print(json.dumps(session.latency()), flush=True)
    session.close()


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:6]), *sys.argv[6:])  # type: ignore[arg-type]
