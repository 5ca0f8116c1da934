import torch
import torch.nn.functional as F


def rms_norm(x, weight, y, rstd, eps):
    return [lambda: F.rms_norm(x, weight.shape, weight, eps)]


def rms_norm_backward(dy, x, weight, rstd, dx, dweight):
    x.requires_grad_(), weight.requires_grad_()
    y = F.rms_norm(x, weight.shape, weight, 1e-6)
    return [lambda: torch.autograd.grad(y, (x, weight), dy, retain_graph=True)]


def add_rms_norm(x, residual, bias, weight, sum, y, rstd, eps):
    added = x if bias is None else x + bias
    return [lambda: F.rms_norm(torch.add(added, residual, out=sum), weight.shape, weight, eps)]


def add_rms_norm_backward(dy, dsum, sum, weight, rstd, dx, dweight):
    sum.requires_grad_(), weight.requires_grad_()
    y = F.rms_norm(sum, weight.shape, weight, 1e-6)

    def both():
        dx, dweight = torch.autograd.grad(y, (sum, weight), dy, retain_graph=True)
        return dx.add_(dsum), dweight

    return [both]
