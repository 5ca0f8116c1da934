import torch


def softmax(x, mask, y, scale, causal):
    if mask is not None or causal:
        return []
    # Without the scale, which would be one more pass: less than the op does.
    return [lambda: torch.softmax(x, -1), lambda: torch.softmax(x, -1, out=y)]


def log_softmax(x, y):
    return [lambda: torch.log_softmax(x, -1, out=y), lambda: torch.log_softmax(x, -1)]


def softmax_backward(dy, y, dx, scale):
    return [lambda: torch.ops.aten._softmax_backward_data(dy, y, -1, y.dtype),
            lambda: torch.ops.aten._softmax_backward_data.out(dy, y, -1, y.dtype, grad_input=dx)]


def log_softmax_backward(dy, y, dx):
    return [lambda: torch.ops.aten._log_softmax_backward_data(dy, y, -1, y.dtype),
            lambda: torch.ops.aten._log_softmax_backward_data.out(dy, y, -1, y.dtype, out=dx)]
