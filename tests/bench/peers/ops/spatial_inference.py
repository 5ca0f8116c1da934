"""Upstream's kernels are for GPUs; the same work in PyTorch."""
import torch


def nhwc_bias_add(x, bias, y):
    return [lambda: torch.add(x, bias, out=y)]


def nhwc_bias_add_add(x, bias, other, y):
    return [lambda: torch.add(x, bias, out=y).add_(other)]


def nhwc_bias_add_bias_add(x, bias, other, other_bias, y):
    return [lambda: torch.add(x, bias, out=y).add_(other).add_(other_bias)]
