"""The backbones that attune knows: importing this package fills the registry (without torch)."""

from search.backbones.entries import densenet, mobilenet, preact, resnet, resnext, vgg
from search.backbones.registry import BACKBONES, BackboneInfo

__all__ = ["BACKBONES", "BackboneInfo", "densenet", "mobilenet", "preact", "resnet", "resnext", "vgg"]
