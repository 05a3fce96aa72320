"""The attention modules that attune knows: importing this package fills the registry (without torch)."""

from search.attention.entries import channel, convolutional
from search.attention.registry import ATTENTION, AttentionInfo

__all__ = ["ATTENTION", "AttentionInfo", "channel", "convolutional"]
