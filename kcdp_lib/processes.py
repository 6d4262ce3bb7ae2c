"""One training in several processes (chapter "Full size").

Accelerate runs the processes; four reductions make them compute what one process would. Each
process takes its share of every batch. No model is wrapped: a step has two losses, often with a
backward pass each, and gradients are averaged once, after the last. In a single process the
reductions do nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.distributed.nn.functional as differentiable
from accelerate import Accelerator, PartialState
from accelerate.state import AcceleratorState
from accelerate.utils import gather_object, reduce
from torch import nn

from kcdp_lib.errors import KCDPError


def accelerator(precision: str, device: str) -> Accelerator:
    """Return an Accelerator for precision "no", "bf16" or "fp16" (with its loss scaling)."""
    # Otherwise a session's second training could not have another precision or device.
    AcceleratorState._reset_state(reset_partial_state=PartialState().num_processes == 1)
    return Accelerator(mixed_precision=precision, cpu=torch.device(device).type == "cpu")


def shares(rows: torch.Tensor, accumulation: int = 1) -> list[tuple[torch.Tensor, float]]:
    """Return this process's part of a batch, int64 rows [B], in pieces, each with its weight.

    There are `accumulation` pieces, fewer if the batch is small. The mean over all processes of the
    sum of weighted means is the mean over the batch. KCDPError if a process would get no row.
    """
    state = PartialState()
    if len(rows) < state.num_processes:
        raise KCDPError(
            f"A batch of {len(rows)} pictures cannot be shared by {state.num_processes} processes; "
            "start fewer."
        )
    mine = rows.tensor_split(state.num_processes)[state.process_index]
    pieces = mine.tensor_split(min(accumulation, len(rows) // state.num_processes))
    return [(piece, state.num_processes * len(piece) / len(rows)) for piece in pieces]


def summed(values: torch.Tensor) -> torch.Tensor:
    """Return the sum over all processes of values [E], of any shape, with its gradient.

    Without gradients the values are unchanged, because each process evaluates batches of its own.
    """
    alone = PartialState().num_processes == 1 or not torch.is_grad_enabled()
    return values if alone else differentiable.all_reduce(values)


def gathered(*values: torch.Tensor) -> tuple[list[torch.Tensor], slice]:
    """Concatenate tensors [B, ...] of all processes, and return where this process's rows are."""
    state = PartialState()
    if state.num_processes == 1:
        return list(values), slice(None)
    parts = gather_object([[value.cpu() for value in values]])
    start = sum(len(part[0]) for part in parts[: state.process_index])
    together = [torch.cat(column).to(values[0].device) for column in zip(*parts, strict=True)]
    return together, slice(start, start + len(values[0]))


def mean_of(numbers: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return the mean of each number [] over the processes."""
    if PartialState().num_processes == 1:
        return numbers
    means = reduce(torch.stack(list(numbers.values())), "mean")
    return dict(zip(numbers, means, strict=True))


def average_gradients(parameters: Sequence[nn.Parameter]) -> None:
    """Replace every gradient by its mean over the processes."""
    if PartialState().num_processes == 1:
        return
    gradients = [p.grad for p in parameters if p.grad is not None]
    mean = reduce(torch.cat([gradient.reshape(-1) for gradient in gradients]), "mean")
    parts = mean.split([gradient.numel() for gradient in gradients])
    for gradient, part in zip(gradients, parts, strict=True):
        gradient.copy_(part.view(gradient.shape))  # keeps a gradient in channels-last format
