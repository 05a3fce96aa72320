"""When compiling pays, by hand-made tables; what a process remembers."""

from __future__ import annotations

import pytest

from workers.training.compiling import GUESSES, Expected, Mode, Record, StepTime, decide, fitting_mode


@pytest.mark.parametrize(
    ("milliseconds", "waiting", "left", "expected", "pays", "words"),
    [
        # 1,000 steps of 0.1 s take 100 s, at twice the speed 50 s: 50 s saved
        (100, 0, 1000, Expected(40, 2.0, 3), True, "save 50 s and to take 40 s (measured on 3 here)"),
        (100, 0, 1000, Expected(60, 2.0, 3), False, "save 50 s and to take 60 s"),
        (100, 0, 1000, Expected(50, 2.0, 3), False, "save 50 s and to take 50 s"),  # no gain is not enough
        (100, 0, 1200, Expected(50, 2.0, 0), True, "(a guess)"),
        (100, 0, 10_000_000, Expected(1, 1.0, 1), False, "save 0 s"),  # not a bit faster, or it has failed
        (100, 0, 10_000_000, Expected(1, 0.5, 1), False, "save 0 s"),  # slower
        (100, 0, 0, Expected(1, 2.0, 1), False, "0 steps"),
        (100, 100, 1_000_000, Expected(1, 2.0, 1), False, "waits 50% of its time for images"),
        (100, 10, 1_000_000, Expected(1, 2.0, 1), True, "1000000 steps of 100 ms"),
    ],
)
def test_compiling_is_chosen_where_it_saves_more_than_it_takes(
    milliseconds: float, waiting: float, left: int, expected: Expected, pays: bool, words: str
) -> None:
    steps = StepTime(milliseconds / 1000, 0.0, waiting / 1000)
    for mode in ("compiled", "cuda_graphs"):
        decision = decide(steps, left, mode, expected)
        assert decision.mode == (mode if pays else "eager")
        assert words in decision.reason


@pytest.mark.parametrize(
    ("total", "issuing", "graphs", "mode"),
    [(1.0, 0.95, True, "cuda_graphs"), (1.0, 0.3, True, "compiled"), (1.0, 1.0, False, "compiled")],
)
def test_graphs_are_for_steps_that_wait_for_the_cpu(total: float, issuing: float, graphs: bool, mode: Mode) -> None:
    assert fitting_mode(StepTime(total, issuing), graphs=graphs) == mode


def test_what_was_measured_takes_the_place_of_the_guess() -> None:
    record = Record()
    assert record.expected("resnet", "compiled") == GUESSES["compiled"]
    for seconds, speedup in ((10, 1.5), (30, 1.1), (20, 1.2)):
        record.add("resnet", "compiled", seconds, speedup)
    assert record.expected("resnet", "compiled") == Expected(20, 1.2, 3)
    assert record.expected("resnet", "cuda_graphs") == GUESSES["cuda_graphs"]
    assert record.expected("vgg", "compiled") == GUESSES["compiled"]
