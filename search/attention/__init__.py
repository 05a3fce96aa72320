"""The attention modules that attune knows: importing this package fills the registry (without torch)."""

from search.attention.entries import augmented, channel, convolutional, hourglass, relational
from search.attention.registry import ATTENTION, AttentionInfo

__all__ = ["ATTENTION", "AttentionInfo", "augmented", "channel", "convolutional", "hourglass", "relational"]
