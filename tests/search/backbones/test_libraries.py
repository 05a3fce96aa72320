"""Traced networks against attune's own of the same name, and what tracing must refuse."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
import torchvision
from torch import nn

from search.architecture import Architecture, Backbone, Module, Task
from search.backbones import libraries
from search.backbones.libraries import paths
from search.backbones.tracing import find_structure
from search.cost import Cost, CostTable
from search.datasets import DatasetEntry
from search.errors import SpecError
from search.models import build
from search.plan import make_plan
from search.sites import Shape, Site
from search.spec import SearchSpec

IMAGE: Shape = (3, 64, 96)


def points(name: str, positions: tuple[str, ...]) -> dict[str, Any]:
    stages = Backbone.make(name).stages(IMAGE)
    return {
        f"{stage.number}.{number}.{position}": values
        for stage in stages
        for number, block in enumerate(stage.blocks, start=1)
        for position, values in block.points.items()
        if position in positions
    }


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "resnext50_32x4d"])
def test_the_trace_of_a_resnet_finds_what_we_wrote_down(name: str) -> None:
    positions = ("residual", "post", "conv", "stage_end")
    assert points(f"torchvision:{name}", positions) == points(name, positions)


def test_the_trace_of_mobilenet_v2_finds_its_blocks_and_the_branches_that_are_added() -> None:
    ours, theirs = (points(name, ("post", "stage_end")) for name in ("mobilenet_v2", "torchvision:mobilenet_v2"))
    assert theirs == ours
    added, found = points("mobilenet_v2", ("identity",)), points("torchvision:mobilenet_v2", ("residual",))
    assert {site.replace("identity", "residual") for site in added} == set(found)


@pytest.mark.parametrize(("position", "at"), [("residual", (2, 1)), ("post", (3, 2)), ("stage_end", (4, 2))])
def test_modules_in_a_traced_network_act_as_in_ours(position: Any, at: tuple[int, int]) -> None:
    """Same weights, same SE, same place: same logits."""
    placement = {Site(*at, position): [Module.make("se")]}
    theirs, ours = (
        build(Architecture.make(Backbone.make(name), placement), Task(IMAGE, 5)).eval()
        for name in ("torchvision:resnet18", "resnet18")
    )
    state = theirs.state_dict()
    mine = {
        name.replace("attune." + str(Site(*at, position)).replace(".", "_"), slot_of(at, position)): value
        for name, value in state.items()
    }
    ours.load_state_dict(mine)
    x = torch.rand(2, *IMAGE)
    with torch.no_grad():
        torch.testing.assert_close(theirs(x), ours(x))


def slot_of(at: tuple[int, int], position: str) -> str:
    return f"stage_ends.{at[0] - 1}" if position == "stage_end" else f"layer{at[0]}.{at[1] - 1}.{position}"


@pytest.mark.parametrize("library", ["torchvision:resnet18", "timm:resnet18"])
def test_names_of_parameters_stay_and_modules_cost_the_same(library: str) -> None:
    backbone, task = Backbone.make(library), Task(IMAGE, 5)
    network = build(Architecture.make(backbone, {}), task)
    names = set(torchvision.models.resnet18(num_classes=5).state_dict())
    assert set(network.state_dict()) == names
    site, se = Site(3, 1, "residual"), [Module.make("se")]
    ours, theirs = CostTable(Backbone.make("resnet18"), task), CostTable(backbone, task)
    assert theirs.backbone() == ours.backbone()
    assert theirs.site(site, se) == ours.site(site, se) != Cost()


def test_a_copy_has_its_own_slots() -> None:
    placement = {Site(1, 1, "residual"): [Module.make("se")]}
    network: Any = build(Architecture.make(Backbone.make("torchvision:resnet18"), placement), Task(IMAGE, 5)).eval()
    for twin in (copy.deepcopy(network), pickle.loads(pickle.dumps(network))):
        for parameter in twin.attune.parameters():
            parameter.data.fill_(-9)
        x = torch.rand(1, *IMAGE)
        with torch.no_grad():
            assert not torch.allclose(twin(x), network(x))
        ((parent, name),) = twin.slots(Site(1, 1, "residual"))
        assert getattr(parent, name) is twin.attune["1_1_residual"]


@pytest.mark.parametrize(
    ("name", "blocks"),
    [
        ("torchvision:efficientnet_b0", [1, 2, 2, 6, 5]),  # Tan 2019, table 1: 16; 24; 40; 80 and 112; 192 and 320
        ("torchvision:regnet_y_400mf", [1, 3, 6, 6]),  # Radosavovic 2020, depths of RegNetY-400MF
        ("torchvision:convnext_tiny", [3, 3, 9, 3]),  # Liu 2022, section 3
        ("timm:convnext_atto", [2, 2, 6, 2]),
        ("torchvision:squeezenet1_1", [2, 2, 4]),
        ("timm:resnetv2_50", [3, 4, 6, 3]),
        ("timm:ghostnet_100", [1, 2, 2, 6, 5]),
    ],
)
def test_blocks_of_other_families(name: str, blocks: list[int]) -> None:
    assert [len(stage.blocks) for stage in Backbone.make(name).stages(IMAGE)] == blocks


def test_the_report_names_modules() -> None:
    found = paths("torchvision:resnet18")
    assert found[Site(2, 1, "residual")] == ("layer2.0.bn2",)
    assert found[Site(2, 1, "conv")] == ("layer2.0.conv1", "layer2.0.conv2")
    assert found[Site(4, 2, "stage_end")] == ("layer4.1",)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("torchvision:vit_b_16", "no blocks of convolutions"),
        ("torchvision:swin_t", "no blocks of convolutions"),
        ("torchvision:resnet19", "torchvision:resnet18"),
        ("torchvision:fasterrcnn_resnet50_fpn", "has no network"),
        ("timm:hf_hub:somebody/something", "has no network"),
        ("timm:hrnet_w18_small", "does not read its output"),
        ("other:resnet18", "Unknown backbone"),
    ],
)
def test_what_is_not_understood_is_an_error(name: str, message: str) -> None:
    with pytest.raises(SpecError, match=message) as caught:
        Backbone.make(name).stages(IMAGE)
    assert caught.value.problems[0].field == "backbone.name"


def test_other_errors_name_the_input() -> None:
    with pytest.raises(SpecError, match="take 3 channels"):
        Backbone.make("torchvision:resnet18").stages((1, 32, 32))
    with pytest.raises(SpecError, match="does not run on images of"):
        Backbone.make("torchvision:densenet121").stages((3, 8, 8))


class Unit(nn.Module):
    def __init__(self, stride: int = 1) -> None:
        super().__init__()
        self.a = nn.Conv2d(4, 4, 3, stride, 1)
        self.b = nn.Conv2d(4, 4, 3, 1, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.b(self.a(x))
        return out


class Net(nn.Module):
    """`wiring` says what happens between two units."""

    def __init__(self, wiring: str) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, 2, 1)
        self.one, self.two = Unit(), Unit()
        self.fc = nn.Linear(4, 2)
        self.wiring = wiring

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        first = self.one(x)
        match self.wiring:
            case "parallel":
                x = first + self.two(x)
            case "changed in between":
                x = self.two(first.relu_())
            case "growing":
                x = self.two(nn.functional.interpolate(first, scale_factor=2.0))
            case "twice":
                x = self.two(self.two(first))
            case _:
                x = self.two(first)
        out: torch.Tensor = self.fc(x.mean((2, 3)))
        return out


@pytest.mark.parametrize(
    ("wiring", "message"),
    [
        ("parallel", "two has the resolution of one and does not read its output"),
        ("changed in between", "does not read its output"),
        ("growing", "resolution grows from one to two"),
        ("twice", "no blocks"),
    ],
)
def test_wirings_that_are_refused(wiring: str, message: str) -> None:
    with torch.device("meta"):
        net = Net(wiring)
    with pytest.raises(SpecError, match=message):
        find_structure("mine", net, (3, 16, 16))


def test_a_plain_chain_is_understood_without_a_residual() -> None:
    with torch.device("meta"):
        (stage,) = find_structure("mine", Net("chain"), (3, 16, 16))
    assert [(block.path, block.residual, block.convs) for block in stage] == [
        ("one", None, ("one.a", "one.b")),
        ("two", None, ("two.a", "two.b")),
    ]


def test_what_a_library_lacks_is_told_at_the_name(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = DatasetEntry(
        name="d", title="", source="", input_shape=(3, 32, 32), classes=10, train_size=1, validation_size=1,
        test_size=1, fingerprint="f" * 64,
    )  # fmt: skip

    def refused(backbone: str, **space: Any) -> tuple[str, str]:
        request = {"name": "x", "dataset": {"name": "d"}, "backbone": {"name": backbone}, "space": space}
        with pytest.raises(SpecError) as caught:
            make_plan(SearchSpec.parse(request), {"d": entry})
        return caught.value.problems[0].field, caught.value.problems[0].message

    assert refused("torchvision:resnet5") == ("backbone.name", "torchvision has no network 'resnet5'.")
    field, message = refused("torchvision:vit_b_16")
    assert (field, message.partition(":")[2].partition(":")[0]) == ("backbone.name", "vit_b_16' cannot be searched")
    space = {"modules": [{"kind": "se", "reduction": 4, "position": "identity"}]}
    assert refused("torchvision:resnet18", **space) == (
        "space.modules.0.position",
        "Stage 1, module 'se': Block 1 has no position 'identity'.",
    )
    monkeypatch.setattr(libraries, "find_spec", lambda name: None)
    field, message = refused("timm:resnet26t")
    assert field == "backbone.name"
    assert "attune[timm]" in message
