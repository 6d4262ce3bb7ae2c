"""Shards: results for many pictures, computed once, kept in pieces on disk and read by row.

Chapter 02, "Once for each picture".

A shard is one safetensors file for up to 512 pictures, named by their contents and by the code and
models that computed it. Several processes, on one machine or many, compute different shards of a
set; a killed process leaves complete shards only. Files are memory-mapped, so a set of 118,000
pictures needs no more memory than one of 1,000.
"""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from accelerate import PartialState
from safetensors import SafetensorError, safe_open

from kcdp_lib import paths
from kcdp_lib.errors import KCDPError

SHARD = 512  # pictures; a multiple of every preset's batch, so that no batch spans two shards


class Rows:
    """A tensor [N, ...] that is stored in pieces on disk.

    Indexing its rows like a tensor's (`rows[3]`, `rows[:8]`, `rows[int64 or bool tensor]`) returns
    a tensor.

    parts: tensors [n, ...], one after the other; columns: for each part the positions of the second
    axis that it holds, the others being zero (None: all); width: the length of that axis; index:
    int64 [N], the row of the parts for each row (None: all, in order).
    """

    def __init__(
        self,
        parts: Sequence[torch.Tensor],
        columns: Sequence[torch.Tensor] | None = None,
        width: int | None = None,
        index: torch.Tensor | None = None,
    ):
        self.parts, self.columns, self.width = parts, columns, width
        self.ends = torch.tensor([len(part) for part in parts]).cumsum(0)
        self.index = torch.arange(int(self.ends[-1])) if index is None else index

    @property
    def shape(self) -> torch.Size:
        """Shape of the whole tensor, [N, ...]."""
        first = self.parts[0].shape[1:]
        return torch.Size([len(self.index), *((self.width, *first[1:]) if self.columns else first)])

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, rows) -> torch.Tensor:
        places = self.index[rows]
        if not places.ndim:
            return self.select(torch.as_tensor([rows]))[:][0]
        picked = torch.zeros(len(places), *self.shape[1:], dtype=self.parts[0].dtype)
        owners = torch.bucketize(places, self.ends, right=True)
        for owner in owners.unique().tolist():
            mine = owners == owner
            start = self.ends[owner] - len(self.parts[owner])
            piece = self.parts[owner][places[mine] - start]
            if self.columns:
                piece = picked[mine].index_copy_(1, self.columns[owner], piece)
            picked[mine] = piece
        return picked

    def select(self, rows: torch.Tensor) -> Rows:
        """Return the rows int64 [n], in that order, without reading them."""
        return Rows(self.parts, self.columns, self.width, self.index[rows])


class Shard(NamedTuple):
    """Contents of one file: memory-mapped tensors by name, and texts.

    There is one text or list per picture.
    """

    tensors: dict[str, torch.Tensor]  # [n, ...] each
    texts: list


def shard_path(name: str) -> Path:
    """Return the path of the shard of this name, which need not exist."""
    return paths.CACHE / "frozen" / f"{name}.safetensors"


def compute(
    names: Sequence[str], make: Callable[[int], tuple[dict[str, torch.Tensor], list]]
) -> list[Shard]:
    """Return all shards in the order of their names; compute those that are missing.

    make(i) computes the tensors [n, ...] and texts of the i-th. Under `accelerate launch` the
    processes share the work and wait for each other; all of them must see the cache. A damaged
    shard causes a warning and is computed again. KCDPError if another process's shard cannot be
    seen, or if the cache cannot be written.
    """
    everyone = PartialState()
    for i in range(everyone.process_index, len(names), everyone.num_processes):
        if read(shard_path(names[i])) is None:
            tensors, texts = make(i)
            with paths.explained(paths.CACHE):
                paths.atomic_save(shard_path(names[i]), tensors, {"texts": json.dumps(texts)})
    everyone.wait_for_everyone()
    shards = []
    for path in map(shard_path, names):
        shard = read(path)
        if shard is None:
            raise KCDPError(
                f"{path} was made by another machine and is not seen here; set KCDP_CACHE to a "
                "folder that all machines share."
            )
        shards.append(shard)
    return shards


def read(path: Path) -> Shard | None:
    """Read a shard; None if it is missing or damaged."""
    if not os.path.exists(path):
        return None
    try:
        with safe_open(path, "pt") as file:
            return Shard(
                {name: file.get_tensor(name) for name in file.keys()},
                json.loads(file.metadata()["texts"]),
            )
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        warnings.warn(
            f"{path} is damaged ({error}) and is made anew; all other shards are kept.",
            stacklevel=2,
        )
        return None
