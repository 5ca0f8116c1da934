import torch


def sum_last(x, y):
    return [lambda: torch.sum(x, -1, dtype=y.dtype, out=y)]


def mean_last(x, y):
    return [lambda: torch.mean(x, -1, dtype=y.dtype, out=y)]


def norm_last(x, y):
    return [lambda: torch.linalg.vector_norm(x, dim=-1, dtype=y.dtype, out=y)]


def max_last(x, y):
    return [lambda: torch.amax(x, -1, out=y)]


def min_last(x, y):
    return [lambda: torch.amin(x, -1, out=y)]


def argmax_last(x, y):
    return [lambda: torch.argmax(x, -1, out=y)]


def sum_leading(x, y):
    rows = x.reshape(-1, x.shape[-1])
    ones = torch.ones(len(rows), dtype=x.dtype)
    product = [lambda: ones @ rows] if x.dtype == y.dtype else []
    return [lambda: torch.sum(rows, 0, dtype=y.dtype, out=y), *product]
