"""Smaller stored forms of weights, and back: `bf16` halves a file, `int8` makes it a quarter.

Only tensors of two or more axes (convolutions, linear layers) are packed; biases and normalisation are small and
sensitive, and stay as they are. int8 keeps two tensors for `X`: `X.int8` and `X.scale`, one scale per channel. The
channel axis is the one of the first two that loses less, since transposed convolutions keep their outputs second.
Error bounds, per value: bf16 2^-8 of the value; int8 half of its channel's scale, which is max|channel| / 127.
"""

from __future__ import annotations

import torch
from torch import Tensor

FORMS = ("bf16", "int8")


def pack(state: dict[str, Tensor], form: str) -> dict[str, Tensor]:
    """A float32 state dict as it is stored; `form` is one of FORMS. The result saves as safetensors."""
    if form not in FORMS:
        raise ValueError(f"weights are stored as {' or '.join(FORMS)}, not as {form!r}")
    packed: dict[str, Tensor] = {}
    for key, value in state.items():
        value = value.detach().cpu().contiguous()
        if value.ndim < 2 or not value.is_floating_point():
            packed[key] = value
        elif form == "bf16":
            packed[key] = value.to(torch.bfloat16)
        else:
            packed[f"{key}.int8"], packed[f"{key}.scale"] = _quantise(value.float())
    return packed


def unpack(stored: dict[str, Tensor]) -> dict[str, Tensor]:
    """The state dict of stored tensors: all floats float32, integers as they are.

    Raises ValueError where one half of an int8 pair is missing or the two do not fit together.
    """
    state: dict[str, Tensor] = {}
    for key, value in stored.items():
        name, _, part = key.rpartition(".")
        if part == "int8":
            scale = stored.get(f"{name}.scale")
            if scale is None:
                raise ValueError(f"{key} has no {name}.scale beside it")
            one_per_channel = scale.ndim == value.ndim and all(
                n in (1, m) for n, m in zip(scale.shape, value.shape, strict=True)
            )
            if not one_per_channel:
                raise ValueError(f"{name}.scale {tuple(scale.shape)} does not fit {key} {tuple(value.shape)}")
            state[name] = value.float() * scale.float()
        elif part == "scale" and f"{name}.int8" in stored:
            continue
        else:
            state[key] = value.float() if value.is_floating_point() else value
    return state


def _quantise(value: Tensor) -> tuple[Tensor, Tensor]:
    """int8 values and their scales (1 on every axis but the channels'), by the better of the first two axes."""

    def along(axis: int) -> tuple[Tensor, Tensor]:
        others = [i for i in range(value.ndim) if i != axis]
        scale = value.abs().amax(dim=others, keepdim=True) / 127
        scale = torch.where(scale > 0, scale, torch.ones_like(scale))
        return (value / scale).round().clamp(-127, 127).to(torch.int8), scale

    def loss(pair: tuple[Tensor, Tensor]) -> float:
        return float((pair[0].float() * pair[1] - value).square().sum())

    return min(along(0), along(1), key=loss)
