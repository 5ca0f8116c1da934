import torch


def matmul(a, b, c):
    return [lambda: torch.matmul(a, b, out=c), lambda: a @ b]
