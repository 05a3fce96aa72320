"""A classifier in training. Everything random comes from (seed, epoch), so resuming needs no generator state."""

from __future__ import annotations

import copy
import gc
import json
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from itertools import chain, islice
from typing import Any

import torch
from torch import nn

from search.errors import SpecError
from search.loading import load_weights, read_registered
from search.models import build
from search.weights import Weights, weights_folder
from workers.datasets import ChangedDataError, DatasetError
from workers.datasets.batches import Batch, BatchSource
from workers.datasets.loading import open_dataset
from workers.datasets.sources import evaluation_batches
from workers.datasets.splitting import derived_seed
from workers.training.averaging import MovingAverage
from workers.training.errors import DivergedError, StateError, TrainingError, WeightsError
from workers.training.execution import Executor
from workers.training.feeding import training_feed
from workers.training.latency import fused, latency
from workers.training.loop import EVAL_BATCH, Images, Judged, Trainer, autocast, judge
from workers.training.mixing import mixer
from workers.training.optimizers import freeze, frozen_norms, make_optimizer
from workers.training.request import EpochResult, TestResult, TrialRequest
from workers.training.schedule import learning_rates
from workers.training.teams import ALONE, Team, sync_norms, unsync_norms

LARGE_BATCH = 64
"""Images in the larger of the two batches that are timed."""
PROBED_AT_ONCE = 10
"""Steps of a probe before it waits for the device and looks at the clock."""


class ClassificationSession:
    """One classifier in training, an epoch at a time.

    Raises SpecError for a request that does not fit together, DatasetError when the data set is not there or has
    changed since the request was written, WeightsError when the same is true of the weights to start from. team: who
    trains it too; all members make the same calls in the same order, but for `latency` and `state`.
    """

    shares_work = True

    def __init__(self, request: TrialRequest, team: Team = ALONE) -> None:
        torch.set_num_threads(max(1, request.threads))
        self.request = request
        self.epoch = 0
        self._team = team
        self._recipe = recipe = request.parsed_recipe()
        self._device = torch.device(request.device)
        self._splits = open_dataset(request.dataset, request.dataset_options, request.device)
        self._check_data()
        with self._randomness("weights"):
            network, self._pretrained = self._network()
        self.network = network.to(self._device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        if team.size > 1:
            sync_norms(self.network)
        self._executor = Executor(self.network, request.compile, self._kind(), threads=max(1, request.threads),
                                  alone=team.size == 1)  # fmt: skip
        self._trainer = Trainer(
            self.network,
            make_optimizer(self.network, recipe, self._pretrained),
            Images(self._splits),
            recipe,
            mixer(recipe, request.task.classes),
            self._splits.class_weights() if recipe.class_weights == "balanced" else None,
            MovingAverage(self.network, recipe.ema) if recipe.ema else None,
            executor=self._executor,
            team=team,
        )
        self._feed = training_feed(self._splits, recipe, request.seed, request.epochs, team)
        self._validation = evaluation_batches(
            self._splits, "validation", EVAL_BATCH, epochs=request.epochs, share=team.share
        )
        self._steps = len(self._feed)
        self._rates = learning_rates(recipe, self._steps * request.epochs)
        self._judged: Judged | None = None
        self._frozen: bool | None = None

    def run_epoch(self) -> EpochResult:
        """Trains one epoch and validates; DivergedError when a loss is not finite."""
        if self.epoch >= self.request.epochs:
            raise TrainingError(f"All {self.request.epochs} epochs are done.")
        started = time.perf_counter()
        number = self.epoch + 1
        rates = self._rates[self.epoch * self._steps : number * self._steps]
        frozen = number <= self._recipe.freeze_epochs and bool(self._pretrained)
        self._freeze(frozen)
        self._executor.begin(len(self._rates) - self.epoch * self._steps, frozen=frozen)
        with self._randomness("epoch", number), self._arithmetic():
            train_loss = self._trainer.epoch(self._feed.epoch(number), rates)
        trained = time.perf_counter() - started
        if not math.isfinite(train_loss):
            raise DivergedError(number, "training loss")
        judged = self._judged = self._judge(self._validation, number)
        if not math.isfinite(judged.loss):
            raise DivergedError(number, "validation loss")
        self.epoch = number
        return EpochResult(
            epoch=number,
            train_loss=train_loss,
            val_loss=judged.loss,
            top1=judged.top1,
            top5=judged.top5,
            lr=rates[-1],
            seconds=time.perf_counter() - started,
            images_per_second=len(rates) * self._feed.batch_size / trained,
            wait_share=self._feed.wait_share,
            batch_parts=self._trainer.parts,
        )

    def evaluate_test(self) -> TestResult:
        """Judges on the test split; TrainingError unless the request allows it."""
        if not self.request.evaluate_test:
            raise TrainingError("This trial may not touch the test split.")
        test = evaluation_batches(self._splits, "test", EVAL_BATCH, share=self._team.share)
        try:
            judged = self._judge(test, 1)
        finally:
            test.close()
        return TestResult(judged.loss, judged.top1, judged.top5)

    def metrics(self) -> dict[str, float]:
        """All that is known of the validation split after the last epoch, by metric name."""
        if self._judged is None:
            raise TrainingError("No epoch has been trained yet.")
        judged = self._judged
        return {"top1": judged.top1, "top5": judged.top5, "loss": judged.loss, **asdict(judged.classes)}

    def latency(self) -> dict[str, float]:
        """How long the network that is judged takes on this device, by metric name, in ms."""
        network = self._judged_network
        if self._team.size > 1:
            network = unsync_norms(copy.deepcopy(network))
        found: dict[str, float] = {}
        with self._arithmetic(fastest=True):
            images = [self._trainer.prepare(self._any_images(batch)) for batch in (1, LARGE_BATCH)]
            ready = fused(network, images[0])
            for batch, name in zip(images, ("latency", "latency_64"), strict=True):
                timed = latency(ready, batch, lambda: autocast(self._recipe, self._device))
                found |= {f"{name}_ms": timed.median, f"{name}_p95_ms": timed.p95}
        return found

    def pace(self, seconds: float, ready: Callable[[], None]) -> float:
        """Images per second over so many seconds of training steps, from when `ready` returns: by then all memory that
        training and judging take has been taken. For probes: the session is of no use as a trial afterwards."""
        batches = chain.from_iterable(self._feed.epoch(number) for number in range(1, self.request.epochs + 1))
        with self._randomness("probe"), self._arithmetic():
            self._steps_of(batches)
            some = islice(self._validation.epoch(1), 1)
            judge(self._judged_network, some, self._trainer.prepare, self._recipe)
            ready()
            started, steps = time.perf_counter(), 0
            while (spent := time.perf_counter() - started) < seconds and (done := self._steps_of(batches)):
                steps += done
        return steps * self._feed.batch_size / spent

    def _steps_of(self, batches: Iterator[Batch]) -> int:
        """Trains on the next few batches and waits for the device; their number."""
        some = list(islice(batches, PROBED_AT_ONCE))
        if some:
            self._trainer.epoch(some, self._rates[: len(some)])
        return len(some)

    def execution(self) -> dict[str, Any]:
        """How the steps of training were computed until now, and why: see `workers.training.execution.Execution`."""
        return self._executor.used.to_json()

    def _any_images(self, count: int) -> torch.Tensor:
        """Noise: what is in an image does not change how long it takes."""
        shape = (count, *self.request.task.input_shape)
        generator = torch.Generator().manual_seed(0)
        return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator).to(self._device)

    def weights(self) -> dict[str, torch.Tensor]:
        """The weights that are judged (the moving average, if there is one), copied to the CPU, contiguous."""
        copied: dict[str, torch.Tensor] = _copied(self._judged_network.state_dict())
        return {name: value.contiguous() for name, value in copied.items()}

    def close(self) -> None:
        """Ends the processes that decode images, if there are any, and forgets what was compiled; the session trains no
        further."""
        self._executor.close()
        self._trainer.forward = None
        self._team.leave()
        self._feed.close()
        self._validation.close()

    def state(self) -> dict[str, Any]:
        """Weights, optimiser and epoch; the tensors are copies on the CPU."""
        state = {
            "key": self.request.key,
            "epoch": self.epoch,
            "parts": self._trainer.parts,
            "network": _copied(self.network.state_dict()),
            "optimizer": _copied(self._trainer.optimizer.state_dict()),
        }
        if self._trainer.average is not None:
            state["average"] = _copied(self._trainer.average.state_dict())
        return state

    def load(self, state: dict[str, Any]) -> None:
        """Goes on from `state`; StateError when it is of another trial or does not fit."""
        if state.get("key") != self.request.key:
            raise StateError("The checkpoint is of another trial.")
        try:
            self.network.load_state_dict(state["network"])
            self._trainer.optimizer.load_state_dict(state["optimizer"])
            if self._trainer.average is not None:
                self._trainer.average.load_state_dict(state["average"])
            self._trainer.parts = int(state["parts"])
            self.epoch = int(state["epoch"])
        except (KeyError, RuntimeError, TypeError, ValueError) as error:
            raise StateError(f"The checkpoint does not fit: {error}") from error

    @property
    def _judged_network(self) -> nn.Module:
        return self.network if self._trainer.average is None else self._trainer.average.network

    def _judge(self, source: BatchSource, number: int) -> Judged:
        with self._arithmetic():
            return judge(self._judged_network, source.epoch(number), self._trainer.prepare, self._recipe, self._team)

    def _freeze(self, frozen: bool) -> None:
        """Lets the pretrained parameters rest, or learn."""
        freeze(self.network, self._pretrained, frozen)
        self._trainer.resting = frozen_norms(self.network)
        if self._team.size > 1 and frozen is not self._frozen:
            self._trainer.forward = None
            gc.collect()  # the one before hangs on the parameters until it is gone
            self._trainer.forward = self._team.together(self.network)
        self._frozen = frozen

    def _network(self) -> tuple[nn.Module, frozenset[str]]:
        """The network as training starts, and the names of its parameters that come from initial weights. It is drawn
        whole also where weights are then put into its backbone, so that modules start from the same numbers."""
        request, architecture = self.request, self.request.parsed_architecture()
        network = build(architecture, request.task)
        if request.weights is None:
            return network, frozenset()
        try:
            state = read_registered(Weights(request.weights, request.weights_fingerprint), weights_folder())
            loaded = load_weights(network, architecture, request.task, state)
        except SpecError as error:
            raise WeightsError(f"The weights {request.weights!r} cannot be used here: {error}") from error
        drawn = {*loaded.new, *loaded.head}
        return network, frozenset(name for name, _ in network.named_parameters() if name not in drawn)

    def _kind(self) -> str:
        """What networks have in common that cost alike to compile: wherever their modules are."""
        backbone = self.request.parsed_architecture().backbone.to_json()
        shape = [self._recipe.batch_size, *self.request.task.input_shape]
        return json.dumps([backbone, shape, self._recipe.precision], sort_keys=True)

    def _check_data(self) -> None:
        resolved, request = self._splits.resolved, self.request
        if request.fingerprint and resolved.fingerprint != request.fingerprint:
            raise ChangedDataError(f"{request.dataset}: the data has changed since this search was submitted")
        if resolved.task != request.task:
            raise DatasetError(f"{request.dataset}: has {resolved.task}, the trial expects {request.task}")

    @contextmanager
    def _randomness(self, *purpose: object) -> Iterator[None]:
        """Torch's default generators seeded for `purpose` (initialisation and dropout use no other), restored after."""
        devices = [self._device] if self._device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(derived_seed(self.request.seed, *purpose) % 2**63)
            yield

    @contextmanager
    def _arithmetic(self, *, fastest: bool = False) -> Iterator[None]:
        """cuDNN picks deterministic algorithms, so that one seed gives one result on one machine, or the `fastest`;
        fp32 means fp32: TF32 only where the recipe allows it."""
        tf32 = self._recipe.precision != "fp32"
        before = torch.backends.cuda.matmul.allow_tf32
        torch.backends.cuda.matmul.allow_tf32 = tf32
        try:
            with torch.backends.cudnn.flags(
                enabled=True, deterministic=not fastest, benchmark=fastest, allow_tf32=tf32
            ):
                yield
        finally:
            torch.backends.cuda.matmul.allow_tf32 = before


def _copied(value: Any) -> Any:
    """`value` with every tensor in it copied to the CPU."""
    if isinstance(value, torch.Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, dict):
        return {key: _copied(item) for key, item in value.items()}
    return [_copied(item) for item in value] if isinstance(value, list) else value
