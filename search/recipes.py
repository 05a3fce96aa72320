"""Training recipes: how a trial is trained, as data. Every field can be overridden and is stored with the trial."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from search.registry import Options, Registry, parse_options

EVALUATION_VERSION = 1
"""To be raised whenever training code changes results: a result is only reused, and only compared with others, under
the same version."""

Fraction = Annotated[float, Field(gt=0, lt=1)]


def _list_to_tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


class Recipe(Options):
    """All that decides how weights come from images, apart from architecture, data, epochs run and seed."""

    optimizer: Literal["sgd", "adamw"] = Field(
        default="sgd", description="SGD with momentum, or AdamW (decoupled weight decay)."
    )
    lr: float = Field(default=0.1, gt=0, le=10, description="Highest learning rate of the schedule.")
    momentum: float = Field(default=0.9, ge=0, lt=1, description="Momentum of SGD; beta 1 of AdamW.")
    nesterov: bool = Field(default=True, description="Nesterov momentum (SGD only; AdamW ignores it by definition).")
    weight_decay: float = Field(
        default=5e-4, ge=0, le=1, description="Weight decay of weights; biases and norms have none."
    )
    batch_size: int = Field(
        default=128, ge=2, le=65_536, description="Images per step; an incomplete last batch is left out."
    )
    schedule: Literal["cosine", "step", "onecycle", "constant"] = Field(
        default="cosine",
        description="Learning rate after warm-up: cosine to 0; × step_factor at milestones; linear to 0; constant.",
    )
    warmup: float = Field(
        default=0.1, ge=0, lt=1, description="Share of all steps in which the learning rate rises linearly."
    )
    milestones: Annotated[tuple[Fraction, ...], BeforeValidator(_list_to_tuple)] = Field(
        default=(1 / 3, 2 / 3), description="Schedule `step`: shares of all steps at which the learning rate drops."
    )
    step_factor: float = Field(default=0.1, gt=0, lt=1, description="Schedule `step`: what a milestone multiplies by.")
    decay_vectors: bool = Field(
        default=False, description="Decay biases and norms too, as training scripts of before 2018 do."
    )
    label_smoothing: float = Field(
        default=0.0, ge=0, lt=1, description="Share of the target spread over all classes (training only)."
    )
    class_weights: Literal["none", "balanced"] = Field(
        default="none", description="`balanced`: the training loss weighs each class by 1 / (classes × its share)."
    )
    augment: Literal["none", "shift", "flip", "shift_flip", "crop_flip", "trivial", "crop_trivial"] = Field(
        default="none",
        description="`shift`: each image moved at random, zeros moved in (a crop after padding); `flip`: mirrored left "
        "to right half of the time; `shift_flip`: both; `crop_flip`: a random part of 8 to 100 % of the image, resized "
        "(Szegedy et al. 2015, section 6), then flip; `trivial`, `crop_trivial`: `shift_flip` or `crop_flip`, then "
        "TrivialAugment's wide space (Müller and Hutter 2021, https://arxiv.org/abs/2103.10158).",
    )
    shift_pixels: int = Field(
        default=2, ge=1, le=64, description="Augmentations that shift: largest move in each direction, in pixels."
    )
    mixup: float = Field(
        default=0.0, ge=0, le=10, description="Alpha of mixup's Beta distribution (Zhang et al. 2018); 0: none."
    )
    cutmix: float = Field(
        default=0.0,
        ge=0,
        le=10,
        description="Alpha of CutMix's (Yun et al. 2019); 0: none. With mixup too, each batch gets one of them.",
    )
    ema: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="Decay per step of an exponential moving average of the weights, which is what is judged; 0: none.",
    )
    backbone_lr: float = Field(
        default=1.0,
        ge=0,
        le=1,
        description="What the learning rate of parameters from `init.weights` is multiplied by; new ones learn at 1.",
    )
    freeze_epochs: int = Field(
        default=0, ge=0, le=10_000, description="First epochs in which what comes from `init.weights` stays as it is."
    )
    accumulate: bool = Field(
        default=False,
        description="When memory runs out, compute a batch in halves (quarters, …) and add their gradients up, instead "
        "of failing. Batch norms then see the smaller parts.",
    )
    precision: Literal["fp32", "tf32", "bf16"] = Field(
        default="fp32",
        description="Of convolutions and products of matrices; weights stay fp32. tf32 is fp32 on processors; bf16: "
        "autocast.",
    )
    epochs: int = Field(
        default=8, ge=1, le=10_000, description="Passes over the training images, if the request gives none."
    )

    @property
    def crops(self) -> bool:
        """Whether training shows random parts of images."""
        return self.augment in ("crop_flip", "crop_trivial")

    @model_validator(mode="after")
    def _consistent(self) -> Recipe:
        if self.optimizer == "sgd" and self.nesterov and self.momentum == 0:
            raise ValueError("nesterov needs a momentum above 0")
        if list(self.milestones) != sorted(set(self.milestones)):
            raise ValueError("milestones must rise")
        return self


@dataclass(frozen=True)
class RecipeInfo:
    """A recipe with its name. source: paper and section, or how it was tuned."""

    name: str
    title: str
    source: str
    recipe: Recipe


RECIPES: Registry[RecipeInfo] = Registry("recipe", "attune.recipes")

DEFAULT_RECIPE = "quick"

RECIPES.add(
    RecipeInfo(
        name="quick",
        title="A few epochs on small images",
        source="One cycle as in L. Smith and N. Topin, Super-Convergence, 2017 (https://arxiv.org/abs/1708.07120); "
        "lr, batch size and epochs tuned on cluttered-digits with resnet14 at width 8.",
        recipe=Recipe(lr=0.2, batch_size=64, schedule="onecycle", warmup=0.25, label_smoothing=0.1, epochs=5),
    )
)
RECIPES.add(
    RecipeInfo(
        name="cifar-bam",
        title="CIFAR, 300 epochs in three steps",
        source="Augmentation of J. Park et al., BAM, 2018, section 4 (https://arxiv.org/abs/1807.06514): a crop after "
        "4 pixels of padding, and flips. The paper prints no schedule: these 300 epochs with drops at 1/2 and 3/4 are "
        "those of G. Huang et al., DenseNet, 2017, section 4.2 (https://arxiv.org/abs/1608.06993), with weight decay "
        "as in S. Zagoruyko and N. Komodakis, Wide Residual Networks, 2016, section 3 "
        "(https://arxiv.org/abs/1605.07146).",
        recipe=Recipe(
            lr=0.1,
            batch_size=128,
            schedule="step",
            warmup=0.0,
            milestones=(0.5, 0.75),
            weight_decay=5e-4,
            decay_vectors=True,
            augment="shift_flip",
            shift_pixels=4,
            epochs=300,
        ),
    )
)
RECIPES.add(
    RecipeInfo(
        name="imagenet-cbam",
        title="ImageNet, 90 epochs in three steps",
        source="S. Woo et al., CBAM, 2018, section 4.2 (https://arxiv.org/abs/1807.06521): 90 epochs, lr 0.1 dropped "
        "every 30; batch size, momentum and weight decay (of everything) of the authors' train_imagenet.py "
        "(https://github.com/Jongchan/attention-module).",
        recipe=Recipe(
            lr=0.1,
            nesterov=False,
            batch_size=256,
            schedule="step",
            warmup=0.0,
            weight_decay=1e-4,
            decay_vectors=True,
            augment="crop_flip",
            epochs=90,
        ),
    )
)
RECIPES.add(
    RecipeInfo(
        name="modern",
        title="Cosine, strong augmentation and averaged weights",
        source="The parts of R. Wightman et al., ResNet strikes back, 2021 (https://arxiv.org/abs/2110.00476), and of "
        "torchvision's new recipe (https://pytorch.org/blog/how-to-train-state-of-the-art-models-using-torchvision-"
        "latest-primitives/) that need no larger images: cosine with warm-up, label smoothing, TrivialAugment, mixup, "
        "CutMix, an average of the weights, no decay of norms; not tuned by us.",
        recipe=Recipe(
            lr=0.5,
            batch_size=256,
            schedule="cosine",
            warmup=0.05,
            weight_decay=2e-5,
            label_smoothing=0.1,
            augment="trivial",
            shift_pixels=4,
            mixup=0.2,
            cutmix=1.0,
            ema=0.999,
            precision="bf16",
            epochs=100,
        ),
    )
)
RECIPES.add(
    RecipeInfo(
        name="finetune",
        title="From pretrained weights, new modules first",
        source="S. Kornblith et al., Do better ImageNet models transfer better?, 2019, section 4.2 "
        "(https://arxiv.org/abs/1805.08974), shortened: SGD, cosine, a smaller rate for what is pretrained, which "
        "waits an epoch for the new modules; not tuned by us.",
        recipe=Recipe(
            lr=0.05,
            batch_size=64,
            warmup=0.1,
            weight_decay=1e-4,
            label_smoothing=0.1,
            augment="flip",
            backbone_lr=0.1,
            freeze_epochs=1,
            epochs=10,
        ),
    )
)


def resolve(name: str = DEFAULT_RECIPE, overrides: Mapping[str, Any] | None = None, field: str = "training") -> Recipe:
    """The recipe called `name` with `overrides` put over its fields.

    SpecError names `field`.recipe with the known recipes, or `field`.option with what is wrong with it.
    """
    info = RECIPES.get(name, f"{field}.recipe")
    return parse_options(Recipe, {**info.recipe.model_dump(), **(overrides or {})}, field)
