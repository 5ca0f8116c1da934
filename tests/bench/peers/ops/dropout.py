import torch
import torch.nn.functional as F


def dropout(x, y, seed, offset, p):
    return [lambda: F.dropout(x, p, True), lambda: torch.native_dropout(x, p, True)]


def bias_dropout_add(x, residual, bias, y, seed, offset, p):
    return [lambda: torch.add(F.dropout(x if bias is None else x + bias, p, True), residual, out=y)]
