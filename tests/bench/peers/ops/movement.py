import torch


def copy(x, y):
    if x.dim() == 2:  # the cases with two dimensions are those of a transposed tensor
        x = x.t().contiguous().t()
    return [lambda: y.copy_(x)]


def index_select(x, index, y):
    return [lambda: torch.index_select(x, 0, index, out=y), lambda: torch.nn.functional.embedding(index, x)]


def scatter_add(y, index, x):
    if x.dtype != y.dtype:
        return [lambda: y.index_add_(0, index, x.float())]
    return [lambda: y.index_add_(0, index, x)]


def top_k(x, values, indices):
    return [lambda: torch.topk(x, values.shape[-1], out=(values, indices))]
