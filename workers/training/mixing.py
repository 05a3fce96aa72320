"""mixup and CutMix on batches, by torchvision."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from search.recipes import Recipe

Mixer = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


def mixer(recipe: Recipe, classes: int) -> Mixer | None:
    """What turns images (N × C × H × W, float) and labels (N) into mixed images and shares of classes (N × classes);
    None if the recipe mixes nothing. It draws from torch's default CPU generator.

    H. Zhang et al., mixup, 2018 (https://arxiv.org/abs/1710.09412); S. Yun et al., CutMix, 2019
    (https://arxiv.org/abs/1905.04899).
    """
    if not recipe.mixup and not recipe.cutmix:
        return None
    # imported on use: torchvision's transforms take long to import
    from torchvision.transforms import v2

    chosen: list[Mixer] = [
        make(alpha=alpha, num_classes=classes)
        for make, alpha in ((v2.MixUp, recipe.mixup), (v2.CutMix, recipe.cutmix))
        if alpha
    ]
    if len(chosen) == 1:
        return chosen[0]
    either: Mixer = v2.RandomChoice(chosen)
    return either
