"""Initial weights: tensors only, put into backbones with attention without changing what they compute."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch import nn

from search.architecture import Architecture, Backbone, Module, Task, site_problems
from search.attention import ATTENTION
from search.errors import SpecError
from search.loading import check_fit, load_weights, read_registered, read_weights
from search.models import build
from search.sites import Site
from search.weights import Weights, fingerprint

TASK = Task((3, 32, 32), 6)


def small(site: str = "1.1.residual", *modules: Module) -> Architecture:
    return Architecture.make(Backbone.make("resnet8", width=8), {Site.parse(site): modules})


def trained(architecture: Architecture, task: Task = TASK) -> dict[str, torch.Tensor]:
    """The state of a network with BatchNorm statistics unlike the fresh ones."""
    torch.manual_seed(5)
    network = build(architecture, task).train()
    with torch.no_grad():
        for _ in range(3):
            network(torch.rand(8, *task.input_shape) * 2)
    return network.state_dict()


def logits(network: nn.Module, task: Task = TASK) -> torch.Tensor:
    x = torch.rand(4, *task.input_shape, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        return network.eval()(x)  # type: ignore[no-any-return]


IDENTITIES = [info.name for info in ATTENTION if info.identity_at_start]


def test_some_modules_start_as_the_identity() -> None:
    assert {"nonlocal", "danet_position", "danet_channel", "gc"} <= set(IDENTITIES)


@pytest.mark.parametrize("kind", IDENTITIES)
def test_modules_at_identity_keep_the_logits_at_step_zero(kind: str) -> None:
    """In every block of every stage, at every position where the module may go."""
    backbone = Backbone.make("resnet8", width=8)
    state, stages = trained(Architecture.make(backbone, {})), backbone.stages(TASK.input_shape)
    reference = build(Architecture.make(backbone, {}), TASK)
    reference.load_state_dict(state)
    info = ATTENTION.get(kind)
    module = Module.make(kind, **({"reduction": 4} if info.has_reduction else {}))
    tried = 0
    for position in info.positions:
        sites = [Site(s.number, n, position) for s in stages for n, b in enumerate(s.blocks, 1) if position in b.points]
        placed = {site: [module] for site in sites if not list(site_problems(stages, site, (module,)))}
        if placed:
            tried += 1
            architecture = Architecture.make(backbone, placed)
            network = build(architecture, TASK)
            loaded = load_weights(network, architecture, TASK, state)
            assert (loaded.head, loaded.unused) == ((), ())
            torch.testing.assert_close(logits(network), logits(reference), msg=f"{kind} at {position}")
    assert tried


def test_other_modules_change_the_logits_and_keep_their_drawn_weights() -> None:
    architecture = small("1.1.residual", Module.make("se", reduction=2))
    network = build(architecture, TASK)
    drawn = {name: value.clone() for name, value in network.state_dict().items() if ".residual." in name}
    state = trained(small())
    loaded = load_weights(network, architecture, TASK, state)
    assert set(loaded.new) == set(drawn)
    assert all(torch.equal(network.state_dict()[name], value) for name, value in drawn.items())
    assert all(torch.equal(network.state_dict()[name], value) for name, value in state.items())


def test_a_replaced_convolution_gets_the_kernel() -> None:
    architecture = small("2.1.conv", Module.make("aw", reduction=4))
    network, state = build(architecture, TASK), trained(small())
    loaded = load_weights(network, architecture, TASK, state)
    assert not loaded.unused
    assert torch.equal(network.state_dict()["layer2.0.conv2.weight"], state["layer2.0.conv2.weight"])
    assert all(name.startswith(("layer2.0.conv1.", "layer2.0.conv2.")) for name in loaded.new)


def test_a_classifier_of_other_classes_stays_as_drawn() -> None:
    architecture = small()
    network, state = build(architecture, TASK), trained(small(), Task((3, 32, 32), 1000))
    drawn = network.state_dict()["fc.weight"].clone()
    assert load_weights(network, architecture, TASK, state).head == ("fc.bias", "fc.weight")
    assert torch.equal(network.state_dict()["fc.weight"], drawn)
    assert torch.equal(network.state_dict()["conv1.weight"], state["conv1.weight"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("layer1.0.conv1.weight"), r"layer1\.0\.conv1\.weight is missing"),
        (lambda state: state.update(extra=torch.zeros(1)), "extra is not the backbone's"),
        (lambda state: state.update({"conv1.weight": torch.zeros(8, 1, 3, 3)}), r"conv1\.weight is 8 × 1 × 3 × 3"),
    ],
)
def test_weights_of_something_else_are_refused_and_change_nothing(change: Any, message: str) -> None:
    network, state = build(small(), TASK), trained(small())
    change(state)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    with pytest.raises(SpecError, match=message) as caught:
        load_weights(network, small(), TASK, state)
    assert caught.value.problems[0].field == "init.weights"
    assert all(torch.equal(network.state_dict()[name], value) for name, value in before.items())


def test_old_files_without_counters_load() -> None:
    state = {name: value for name, value in trained(small()).items() if not name.endswith("num_batches_tracked")}
    load_weights(build(small(), TASK), small(), TASK, state)


def test_torchvisions_published_densenet_names_load() -> None:
    """Its download says denselayer1.norm.1.weight for denselayer1.norm1.weight."""
    task, name = Task((3, 64, 64), 5), "densenet121"
    theirs = torchvision.models.densenet121(num_classes=5)
    old = {
        key.replace(".norm1.", ".norm.1.")
        .replace(".norm2.", ".norm.2.")
        .replace(".conv1.", ".conv.1.")
        .replace(".conv2.", ".conv.2."): value
        for key, value in theirs.state_dict().items()
    }
    assert "features.denseblock1.denselayer1.norm.1.weight" in old
    architecture = Architecture.make(Backbone.make(name), {})
    network = build(architecture, task)
    load_weights(network, architecture, task, old)
    torch.testing.assert_close(logits(network, task), logits(theirs, task))
    traced = Backbone.make("torchvision:densenet121").info.weight_name
    assert {traced(key) for key in old} == set(theirs.state_dict())


def test_files_are_read_as_they_are_written(tmp_path: Path) -> None:
    state = trained(small())
    save_file(state, tmp_path / "tensors.safetensors")
    torch.save({"state_dict": {f"module.{name}": value for name, value in state.items()}}, tmp_path / "wrapped.pth")
    for name in ("tensors.safetensors", "wrapped.pth"):
        read = read_weights(tmp_path / name)
        assert read.keys() == state.keys()
        assert all(torch.equal(read[key], value) for key, value in state.items())


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path("evil"),))


@pytest.mark.parametrize("content", [Evil(), {"a": Evil()}, [1, 2], {"a": 1}, {}])
def test_only_tensors_are_read(tmp_path: Path, content: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save(content, tmp_path / "bad.pth")
    with pytest.raises(SpecError, match="bad"):
        read_weights(tmp_path / "bad.pth")
    assert not (tmp_path / "evil").exists()


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_garbage_is_refused(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"bad{suffix}"
    path.write_bytes(b"\x00garbage" * 100)
    with pytest.raises(SpecError, match="bad"):
        read_weights(path)


def test_registered_weights_are_the_ones_that_were_meant(tmp_path: Path) -> None:
    torch.save(trained(small()), tmp_path / "mine.pt")
    meant = Weights("mine", fingerprint(tmp_path / "mine.pt"))
    assert read_registered(meant, tmp_path).keys() == trained(small()).keys()
    with pytest.raises(SpecError, match="There are no weights 'gone'"):
        read_registered(Weights("gone", meant.fingerprint), tmp_path)
    with pytest.raises(SpecError, match="cannot be read"):
        read_registered(meant, tmp_path / "nowhere")
    torch.save({**trained(small()), "fc.bias": torch.ones(6)}, tmp_path / "mine.pt")
    with pytest.raises(SpecError, match="another than the search's"):
        read_registered(meant, tmp_path)


def test_the_fit_is_told_without_building() -> None:
    state = trained(small())
    check_fit(small().backbone, TASK, state)
    with pytest.raises(SpecError, match="not of this backbone"):
        check_fit(Backbone.make("resnet8", width=16), TASK, state)
