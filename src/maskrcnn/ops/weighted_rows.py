"""Sums of weighted rows of a table: the lookup behind the RoI operators, forward and backward."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable


def weighted_rows(table: Tensor, index: Tensor, weights: Tensor, offsets: Tensor) -> Tensor:
    """One weighted sum of table rows for each bag. Only the table has a gradient.

    Args:
        table: (N, C).
        index: (P,) int64 in 0..N-1, the rows of all bags one after another.
        weights: (P,) float32.
        offsets: (Q,) int64, the position in `index` at which each bag begins.

    Returns:
        (Q, C) in the dtype of the table.
    """
    weights = weights.to(table.dtype)
    if table.device.type == "cpu":
        return _WeightedRows.apply(table, index, weights, offsets)
    return F.embedding_bag(index, table, offsets, mode="sum", per_sample_weights=weights)


class _WeightedRows(torch.autograd.Function):
    """`embedding_bag` whose gradient is another `embedding_bag`, in which each row of the table is a bag.

    torch's own gradient sorts 64-bit keys and adds row by row, which takes twice as long on a CPU.
    """

    @staticmethod
    def forward(ctx: Any, table: Tensor, index: Tensor, weights: Tensor, offsets: Tensor) -> Tensor:
        ctx.save_for_backward(index, weights, offsets)
        ctx.rows = len(table)
        return F.embedding_bag(index, table, offsets, mode="sum", per_sample_weights=weights)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        index, weights, offsets = ctx.saved_tensors
        size = torch.diff(offsets, append=offsets.new_tensor([len(index)]))
        bag = torch.repeat_interleave(size, output_size=len(index))
        row, order = index.to(torch.int32).sort()
        begin = torch.searchsorted(row, torch.arange(ctx.rows, dtype=torch.int32))
        of_table = F.embedding_bag(bag[order], gradient, begin, mode="sum", per_sample_weights=weights[order])
        return of_table, None, None, None
