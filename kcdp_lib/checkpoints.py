"""Checkpoints of a training, each one safetensors file with tensors and numbers together.

Each replaces the last as a whole: a killed training finds one or the other, never a part.
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from kcdp_lib.paths import atomic_save

State = dict[str, torch.Tensor]


def save(
    path: Path, about: dict[str, str], optimizer: torch.optim.Optimizer, **states: State
) -> None:
    """Write named states, the optimizer's, and `about`. Raises OSError if the disk is full."""
    for i, state in optimizer.state_dict()["state"].items():
        states[f"optimizer.{i}"] = state
    tensors = {
        f"{part}.{name}": value for part, state in states.items() for name, value in state.items()
    }
    atomic_save(path, tensors, about)


def read(path: Path) -> tuple[dict[str, str], State]:
    """Return `about` and all tensors of a checkpoint, on the CPU; empty without a whole file."""
    try:
        with safe_open(path, "pt") as file:
            return file.metadata(), {name: file.get_tensor(name) for name in file.keys()}
    except (OSError, SafetensorError):
        return {}, {}


def part_of(tensors: State, part: str) -> State:
    """Return the state that was saved under this name."""
    start = f"{part}."
    return {
        name.removeprefix(start): value for name, value in tensors.items() if name.startswith(start)
    }


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: State) -> None:
    """Restore an optimizer's state, laid out in memory as its parameters are.

    A file does not store channels-last, and a fused step reads moments and weights in memory order.
    """
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    state: dict[int, State] = {}
    for name, value in part_of(tensors, "optimizer").items():
        i, kind = name.split(".", 1)
        if value.ndim:
            like = torch.empty_like(parameters[int(i)], dtype=value.dtype, device=value.device)
            value = like.copy_(value)
        state.setdefault(int(i), {})[kind] = value
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": state, "param_groups": groups})
