import torch


def _binary(f):
    return lambda a, b, y: [lambda: f(a, b, out=y)]


add, sub, mul, div = map(_binary, (torch.add, torch.sub, torch.mul, torch.div))
maximum, minimum = map(_binary, (torch.maximum, torch.minimum))


def add_scaled(a, b, y, alpha):
    return [lambda: torch.add(a, b, alpha=alpha, out=y)]


def _unary(f):
    return lambda x, y: [lambda: f(x, out=y)]


neg, abs, sqrt, rsqrt = map(_unary, (torch.neg, torch.abs, torch.sqrt, torch.rsqrt))
square, reciprocal = map(_unary, (torch.square, torch.reciprocal))


# Of positive numbers, as the op has them: a NaN is another way through a logarithm.
def exp(x, y):
    return [lambda: torch.exp(x, out=y)]


def log(x, y):
    x.abs_()
    return [lambda: torch.log(x, out=y)]


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
