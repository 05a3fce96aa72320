"""A classifier in training. Everything random comes from (seed, epoch), so resuming needs no generator state."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from search.errors import SpecError
from search.loading import load_weights, read_registered
from search.models import build
from search.weights import Weights, weights_folder
from workers.datasets import DatasetError
from workers.datasets.loading import load
from workers.datasets.splitting import derived_seed
from workers.training.errors import DivergedError, StateError, TrainingError, WeightsError
from workers.training.loop import Images, epoch_batches, judge, make_optimizer, steps_per_epoch, train_epoch
from workers.training.request import EpochResult, TestResult, TrialRequest
from workers.training.schedule import learning_rates


class ClassificationSession:
    """One classifier in training, an epoch at a time.

    Raises SpecError for a request that does not fit together, DatasetError when the data set is not there or has
    changed since the request was written, WeightsError when the same is true of the weights to start from.
    """

    def __init__(self, request: TrialRequest) -> None:
        torch.set_num_threads(max(1, request.threads))
        self.request = request
        self.epoch = 0
        self._recipe = request.parsed_recipe()
        self._device = torch.device(request.device)
        self._splits = load(request.dataset, request.dataset_options, request.device)
        self._check_data()
        with self._randomness("weights"):
            network = self._network()
        self.network = network.to(self._device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._optimizer = make_optimizer(self.network, self._recipe)
        self._prepare = Images(self._splits)
        self._steps = steps_per_epoch(self._splits.train, self._recipe)
        self._rates = learning_rates(self._recipe, self._steps * request.epochs)

    def run_epoch(self) -> EpochResult:
        """Trains one epoch and validates; DivergedError when a loss is not finite."""
        if self.epoch >= self.request.epochs:
            raise TrainingError(f"All {self.request.epochs} epochs are done.")
        started = time.perf_counter()
        number = self.epoch + 1
        rates = self._rates[self.epoch * self._steps : number * self._steps]
        batches = epoch_batches(self._splits.train, self._recipe, self._generator("order", number))
        with self._randomness("epoch", number), self._deterministic():
            train_loss = train_epoch(self.network, self._optimizer, batches, self._prepare, rates, self._recipe)
        trained = time.perf_counter() - started
        if not math.isfinite(train_loss):
            raise DivergedError(number, "training loss")
        judged = judge(self.network, self._splits.validation, self._prepare, self._recipe)
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
            images_per_second=len(rates) * min(self._recipe.batch_size, len(self._splits.train)) / trained,
        )

    def evaluate_test(self) -> TestResult:
        """Judges on the test split; TrainingError unless the request allows it."""
        if not self.request.evaluate_test:
            raise TrainingError("This trial may not touch the test split.")
        judged = judge(self.network, self._splits.test, self._prepare, self._recipe)
        return TestResult(judged.loss, judged.top1, judged.top5)

    def state(self) -> dict[str, Any]:
        """Weights, optimiser and epoch; the tensors are copies on the CPU."""
        return {
            "key": self.request.key,
            "epoch": self.epoch,
            "network": _copied(self.network.state_dict()),
            "optimizer": _copied(self._optimizer.state_dict()),
        }

    def load(self, state: dict[str, Any]) -> None:
        """Goes on from `state`; StateError when it is of another trial or does not fit."""
        if state.get("key") != self.request.key:
            raise StateError("The checkpoint is of another trial.")
        try:
            self.network.load_state_dict(state["network"])
            self._optimizer.load_state_dict(state["optimizer"])
            self.epoch = int(state["epoch"])
        except (KeyError, RuntimeError, TypeError, ValueError) as error:
            raise StateError(f"The checkpoint does not fit: {error}") from error

    def _network(self) -> nn.Module:
        """The network as training starts. It is drawn whole also where weights are then put into its backbone, so
        that modules start from the same numbers either way."""
        request, architecture = self.request, self.request.parsed_architecture()
        network = build(architecture, request.task)
        if request.weights is not None:
            try:
                state = read_registered(Weights(request.weights, request.weights_fingerprint), weights_folder())
                load_weights(network, architecture, request.task, state)
            except SpecError as error:
                raise WeightsError(f"The weights {request.weights!r} cannot be used here: {error}") from error
        return network

    def _check_data(self) -> None:
        resolved, request = self._splits.resolved, self.request
        if request.fingerprint and resolved.fingerprint != request.fingerprint:
            raise DatasetError(f"{request.dataset}: the data has changed since this search was submitted")
        if resolved.task != request.task:
            raise DatasetError(f"{request.dataset}: has {resolved.task}, the trial expects {request.task}")

    def _generator(self, *purpose: object) -> torch.Generator:
        return torch.Generator().manual_seed(derived_seed(self.request.seed, *purpose) % 2**63)

    @contextmanager
    def _randomness(self, *purpose: object) -> Iterator[None]:
        """Torch's default generators seeded for `purpose` (initialisation and dropout use no other), restored after."""
        devices = [self._device] if self._device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(derived_seed(self.request.seed, *purpose) % 2**63)
            yield

    @contextmanager
    def _deterministic(self) -> Iterator[None]:
        """cuDNN picks deterministic algorithms, so that one seed gives one result on one machine."""
        with torch.backends.cudnn.flags(enabled=True, deterministic=True, benchmark=False):
            yield


def _copied(value: Any) -> Any:
    """`value` with every tensor in it copied to the CPU."""
    if isinstance(value, torch.Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, dict):
        return {key: _copied(item) for key, item in value.items()}
    return [_copied(item) for item in value] if isinstance(value, list) else value
