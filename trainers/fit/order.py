"""In which order a training sees its rows, and in which batches: pure functions, so that a step alone says where to go on."""

import torch


def order(seed: int, epoch: int, rows: int) -> torch.Tensor:
    """The rows in this epoch's order: a pure function of its arguments, so that a later epoch needs no earlier one."""
    generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
    return torch.randperm(rows, generator=generator)


def batches(rows: torch.Tensor, batch_rows: int) -> tuple[torch.Tensor, ...]:
    """So many rows each, the last one fewer. A single row joins the batch before: batch normalization takes no one row."""
    parts = torch.split(rows, batch_rows)
    if len(parts) > 1 and len(parts[-1]) == 1 < batch_rows:
        return (*parts[:-2], torch.cat(parts[-2:]))
    return parts


def batch_count(rows: int, batch_rows: int) -> int:
    """Of one epoch."""
    return len(batches(torch.arange(rows), batch_rows))
