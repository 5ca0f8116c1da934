import torch


def _binary(f):
    return lambda a, b, y: [lambda: f(a, b, out=y)]


add, sub, mul, div = map(_binary, (torch.add, torch.sub, torch.mul, torch.div))
maximum, minimum = map(_binary, (torch.maximum, torch.minimum))


def add_scaled(a, b, y, alpha):
    return [lambda: torch.add(a, b, alpha=alpha, out=y)]


def _unary(f):
    return lambda x, y: [lambda: f(x, out=y)]


def _positive(f):
    """Of positive numbers, as the op has them: what makes a NaN goes another way."""
    return lambda x, y: [lambda x=x.abs_(): f(x, out=y)]


neg, abs, exp, square, reciprocal = map(_unary, (torch.neg, torch.abs, torch.exp, torch.square, torch.reciprocal))
sqrt, rsqrt, log = map(_positive, (torch.sqrt, torch.rsqrt, torch.log))


def scale(x, y, factor, shift):
    shift = torch.tensor(shift).to(x.dtype)
    return [lambda: torch.add(shift, x, alpha=factor, out=y)]


def clamp(x, y, min, max):
    return [lambda: torch.clamp(x, min, max, out=y)]


def select(condition, a, b, y):
    return [lambda: torch.where(condition, a, b, out=y)]


def masked_fill(x, mask, y, value):
    value_of = torch.tensor(value, dtype=x.dtype)
    return [lambda: torch.masked_fill(x, mask, value), lambda: torch.where(mask, value_of, x, out=y)]
