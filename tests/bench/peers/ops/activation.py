import torch
import torch.nn.functional as F

aten = torch.ops.aten
# In the order of the op's `kind`.
FUNCTIONS = [
    lambda x: x, F.relu, F.gelu, lambda x: F.gelu(x, approximate="tanh"), F.silu, torch.tanh, torch.sigmoid,
]


def into(kind):
    """The form that writes where it is told, or None."""
    return {
        1: lambda x, out: torch.clamp_min(x, 0, out=out),
        2: lambda x, out: aten.gelu.out(x, out=out),
        3: lambda x, out: aten.gelu.out(x, approximate="tanh", out=out),
        4: lambda x, out: aten.silu.out(x, out=out),
        5: lambda x, out: torch.tanh(x, out=out),
        6: lambda x, out: torch.sigmoid(x, out=out),
    }.get(kind, lambda x, out: out.copy_(x))


def slope(kind):
    """The backward form that writes where it is told."""
    return {
        1: lambda dy, x, out: aten.threshold_backward.grad_input(dy, x, 0, grad_input=out),
        2: lambda dy, x, out: aten.gelu_backward.grad_input(dy, x, grad_input=out),
        3: lambda dy, x, out: aten.gelu_backward.grad_input(dy, x, approximate="tanh", grad_input=out),
        4: lambda dy, x, out: aten.silu_backward.grad_input(dy, x, grad_input=out),
    }[kind]


def biased(x, bias):
    return x if bias is None else x + bias


def activation(x, bias, y, kind):
    return [lambda: into(kind)(biased(x, bias), y), lambda: FUNCTIONS[kind](biased(x, bias))]


def activation_backward(dy, x, bias, dx, kind):
    return [lambda: slope(kind)(dy, biased(x, bias), dx)]


def gated_activation(gate, up, gate_bias, up_bias, y, kind):
    return [lambda: into(kind)(biased(gate, gate_bias), y).mul_(biased(up, up_bias))]


def gated_activation_backward(dy, gate, up, gate_bias, up_bias, dgate, dup, kind):
    def both():
        torch.mul(into(kind)(gate, dup), dy, out=dup)
        return slope(kind)(torch.mul(dy, up, out=dgate), gate, dgate), dup

    return [both] if gate_bias is None and up_bias is None else []


def bias_backward(dy, dbias):
    return [lambda: torch.sum(dy.flatten(0, -2), 0, out=dbias), lambda: dy.flatten(0, -2).sum(0)]


def residual_add(x, residual, attention, bias, attention_bias, y, residual_scale, attention_scale):
    def run():
        total = torch.add(residual, bias, out=y) if bias is not None else y.copy_(residual)
        if attention_bias is not None:
            total.add_(attention_bias)
        torch.add(x, total, alpha=residual_scale, out=y)
        return y if attention is None else y.add_(attention, alpha=attention_scale)

    return [run]
