"""How many channels an attention-augmented convolution gives to keys and values (torch-free, shared by its check)."""

from __future__ import annotations


def augmented_widths(outputs: int, key_ratio: float, value_ratio: float, heads: int, min_key: int) -> tuple[int, int]:
    """d_k, d_v for C₂ = outputs channels: κ C₂ and υ C₂, rounded to a multiple of the heads.

    A head has at least min_key key channels and one value channel (Bello 2019, section 4).
    """
    keys = heads * max(min_key, round(key_ratio * outputs / heads))
    values = heads * max(1, round(value_ratio * outputs / heads))
    return keys, values
