"""What decides the result of a trial, and the key under which it is shared between searches."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from search.architecture import Architecture
from search.plan import SearchPlan
from search.recipes import EVALUATION_VERSION
from workers.orders import Order
from workers.training.request import TrialRequest


def conditions(plan: SearchPlan, *, seed: int, epochs: int, test: bool) -> dict[str, Any]:
    """Everything but the architecture that decides a result. test: whether the test split is evaluated too."""
    return {
        "dataset": plan.dataset.fingerprint,
        "dataset_options": plan.dataset.options,
        "input_shape": list(plan.task.input_shape),
        "classes": plan.task.classes,
        "recipe": {**plan.recipe.model_dump(mode="json"), "epochs": epochs},
        "weights": plan.weights and plan.weights.fingerprint,
        "seed": seed,
        "test": test,
        "version": EVALUATION_VERSION,
        # results of searches that do not ask for it lack it
        **({"latency": True} if plan.measures_latency else {}),
    }


def conditions_of(plan: SearchPlan, order: Order) -> dict[str, Any]:
    return conditions(plan, seed=order.seed, epochs=order.epochs, test=order.phase == "confirm")


def evaluation_key(plan: SearchPlan, architecture: Architecture, *, seed: int, epochs: int, test: bool) -> str:
    """SHA-256 (hex) of the architecture's key and the conditions."""
    what = {"architecture": architecture.key, **conditions(plan, seed=seed, epochs=epochs, test=test)}
    return hashlib.sha256(json.dumps(what, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def request_of(plan: SearchPlan, order: Order, threads: int) -> TrialRequest:
    """What the trial process is asked to do; it chooses the device itself."""
    return TrialRequest(
        architecture=order.architecture.to_json(),
        task=plan.task,
        dataset=plan.dataset.name,
        dataset_options=dict(plan.dataset.options),
        fingerprint=plan.dataset.fingerprint,
        weights=plan.weights.name if plan.weights else None,
        weights_fingerprint=plan.weights.fingerprint if plan.weights else "",
        recipe={**plan.recipe.model_dump(mode="json"), "epochs": order.epochs},
        epochs=order.epochs,
        seed=order.seed,
        threads=threads,
        evaluate_test=order.phase == "confirm",
        latency=plan.measures_latency,
        compile=plan.spec.resources.compile,
    )
