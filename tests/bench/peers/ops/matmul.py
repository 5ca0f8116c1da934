import torch
import torch.nn.functional as F


def matmul(a, b, c):
    return [lambda: torch.matmul(a, b, out=c), lambda: a @ b]


FUNCTIONS = {0: lambda x: x, 2: F.gelu}


def linear(x, w, bias, residual, y, kind):
    f = FUNCTIONS[kind]
    return [lambda: f(F.linear(x, w, bias)).add_(residual), lambda: f(torch.addmm(bias, x, w.t())).add_(residual)]
