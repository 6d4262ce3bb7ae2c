"""What is computed once of many pictures, kept in pieces on disk and read by row.

Chapter 02, "Once for each picture".

A shard is one safetensors file for up to 512 pictures, named by their contents and by what computed
it. Several processes, on one machine or many, compute different shards of a set; a killed process
leaves whole shards only. Reading maps the files into memory, so a set of 118,000 pictures needs no
more memory than one of 1,000.
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

SHARD = 512  # pictures; a multiple of every preset's batch, so that no batch lies in two shards


class Rows:
    """A tensor [N, ...] that lies in pieces on disk.

    It is indexed by rows as a tensor is (`rows[3]`, `rows[:8]`, `rows[int64 or bool tensor]`) and
    then gives one.

    parts: tensors [n, ...] that follow each other; columns: for each part the positions of the
    second axis that it holds (None: all), elsewhere it is zero; width: the length of that axis;
    index: int64 [N], which row of the parts each row is (None: all, in order).
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
        """As of the whole tensor, [N, ...]."""
        first = self.parts[0].shape[1:]
        return torch.Size([len(self.index), *((self.width, *first[1:]) if self.columns else first)])

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, rows) -> torch.Tensor:
        places = self.index[rows]
        if not places.ndim:
            return self[places[None]][0]
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
        """Some rows, int64 [n], in that order, without reading them."""
        return Rows(self.parts, self.columns, self.width, self.index[rows])


class Shard(NamedTuple):
    """What one file holds: tensors by name, mapped and not yet read, and texts.

    A text or a list for each picture.
    """

    tensors: dict[str, torch.Tensor]  # [n, ...] each
    texts: list


def shard_path(name: str) -> Path:
    """Where the shard of this name lies, or will lie."""
    return paths.CACHE / "frozen" / f"{name}.safetensors"


def compute(
    names: Sequence[str], make: Callable[[int], tuple[dict[str, torch.Tensor], list]]
) -> list[Shard]:
    """All shards, in the order of their names.

    make(i) computes the tensors [n, ...] and texts of the i-th and is called for those that are not
    there. Under `accelerate launch` the processes share the work and wait for each other; the cache
    has to lie where all of them see it. A damaged shard is named in a warning and made anew.
    KCDPError where another process's shard is not seen, and where the cache cannot be written.
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
    """A shard, if it is there and whole."""
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
