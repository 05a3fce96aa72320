"""How many trials share a GPU, by hand-made tables of measurements."""

from __future__ import annotations

import pytest

from search.spec import share_of_gpu
from workers.density import COUNTS, Choice, Measured, following, without_memory

GIB = 2**30


def chosen(
    speeds: dict[int, float], *, memory: float, device: float = 80, cpus: float = 64
) -> tuple[Choice, list[int]]:
    """What comes out for a device on which so many trials give such a speed, and what was measured on the way."""
    measured: list[Measured] = []
    while not isinstance(step := following(measured, int(device * GIB), cpus), Choice):
        measured.append(Measured(step, speeds[step], int(memory * GIB)))
    return step, [found.trials for found in measured]


@pytest.mark.parametrize(
    ("speeds", "memory", "cpus", "trials", "measured", "words"),
    [
        ({1: 100, 2: 190, 4: 350, 8: 600}, 1, 64, 8, [1, 2, 4, 8], "More than 8"),
        ({1: 100, 2: 190, 4: 350, 8: 380}, 1, 64, 4, [1, 2, 4, 8], "1.09 ×"),
        ({1: 100, 2: 190, 4: 200}, 1, 64, 2, [1, 2, 4], "1.05 ×"),
        ({1: 100, 2: 105}, 1, 64, 1, [1, 2], "1.05 ×"),
        ({1: 100, 2: 80}, 1, 64, 1, [1, 2], "0.80 ×"),  # they only disturb each other
        ({1: 100, 2: 110, 4: 121, 8: 134}, 1, 64, 8, [1, 2, 4, 8], "More than 8"),  # just enough each time
        ({1: 100}, 40, 64, 1, [1], "2 trials would need 96 GiB"),
        ({1: 100, 2: 200}, 20, 64, 2, [1, 2], "4 trials would need 96 GiB"),
        ({1: 100, 2: 200}, 1, 3, 2, [1, 2], "CPUs of its node are enough for 3 trials"),
        ({1: 100}, 1, 0.5, 1, [1], "CPUs of its node are enough for 1 trial on"),
    ],
)
def test_more_trials_share_a_gpu_as_long_as_it_pays(
    speeds: dict[int, float], memory: float, cpus: float, trials: int, measured: list[int], words: str
) -> None:
    choice, seen = chosen(speeds, memory=memory, cpus=cpus)
    assert (choice.trials, seen) == (trials, measured)
    assert words in choice.reason


def test_the_largest_trial_counts() -> None:
    measured = [Measured(1, 100.0, 30 * GIB), Measured(2, 200.0, 5 * GIB)]
    assert isinstance(following(measured, 80 * GIB, 64), Choice)


def test_where_memory_runs_out_the_last_number_that_ran_is_taken() -> None:
    assert without_memory([], 1).trials == 1
    assert without_memory([Measured(1, 1.0, 1), Measured(2, 2.0, 1)], 4) == Choice(2, "Memory ran out with 4 at once.")


def test_shares_of_a_gpu_add_up_to_one_at_most() -> None:
    assert [share_of_gpu(trials) for trials in COUNTS] == [1.0, 0.5, 0.25, 0.125]
    assert all(trials * share_of_gpu(trials) <= 1 for trials in range(1, 65))
