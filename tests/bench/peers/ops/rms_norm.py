import torch
import torch.nn.functional as F


def rms_norm(x, weight, y, rstd, eps):
    return [lambda: F.rms_norm(x, weight.shape, weight, eps)]


def rms_norm_backward(dy, x, weight, rstd, dx, dweight):
    x.requires_grad_(), weight.requires_grad_()
    y = F.rms_norm(x, weight.shape, weight, 1e-6)
    return [lambda: torch.autograd.grad(y, (x, weight), dy, retain_graph=True)]
