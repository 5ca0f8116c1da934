"""Upstream's kernels are for GPUs; the same work in PyTorch."""
import torch


def token_sort_(ids):
    return [lambda: torch.sort(ids, -1)]


def token_gather(x, indices, y):
    wide = indices.long().unsqueeze(-1).expand(y.shape)
    batch = torch.arange(len(x)).unsqueeze(-1)
    rows = indices.long()
    return [lambda: torch.gather(x, 1, wide, out=y), lambda: x[batch, rows]]


def token_scatter_(y, x, indices):
    batch = torch.arange(len(x)).unsqueeze(-1)
    rows = indices.long()
    wide = rows.unsqueeze(-1).expand(x.shape)

    def put():
        y[batch, rows] = x

    return [lambda: y.scatter_(1, wide, x), put]


def mask_gather_bert(mask, indices, y):
    rows = indices.long()
    batch = torch.arange(len(mask))[None, :, None, None]
    return [lambda: mask[batch, 0, rows[:, :, :, None], rows[:, :, None, :]]]
