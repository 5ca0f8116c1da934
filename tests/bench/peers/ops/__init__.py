"""What PyTorch has for each op of the catalogue, in its best form.

A file an op family; in it a function an op, of the op's name, with the op's arguments by name:
tensors, lists of them, None for a missing optional; static attributes and launch scalars as numbers.
It gives the forms that do the same work, of which the fastest is measured, or nothing where PyTorch
has none. Outputs are there to be written (`out=`).
"""
import importlib, itertools, math, pkgutil, time

import torch

DTYPES = {
    "f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16, "f64": torch.float64,
    "i8": torch.int8, "u8": torch.uint8, "i16": torch.int16, "i32": torch.int32, "i64": torch.int64,
    "bool": torch.bool, "f8e4m3": torch.float8_e4m3fn, "f8e5m2": torch.float8_e5m2,
}


PERIOD = 1 << 20  # elements after which a tensor's numbers come again: large ones are made fast


def tensor(dtype, shape, least, greatest):
    """Like the one that the op has: integers between the same bounds."""
    t = DTYPES[dtype]
    n = math.prod(shape)
    few = max(1, min(n, PERIOD))
    base = torch.randn(few) if t.is_floating_point else torch.randint(least, greatest + 1, (few,))
    return base.to(t).repeat(-(-n // few))[:n].reshape(shape)


def forms_of(form, call):
    values = dict(call["values"])
    for argument, (multiplicity, tensors) in call["tensors"].items():
        made = [tensor(*t) for t in tensors]
        values[argument] = made if multiplicity == "list" else next(iter(made), None)
    return form(**values) or []


def fastest_of(forms):
    """The one that is fastest now."""

    def seconds(run):
        run()
        start = time.perf_counter()
        for _ in range(3):
            run()
        return time.perf_counter() - start

    return min(forms, key=seconds) if len(forms) > 1 else forms[0]


def fastest(call):
    """The fastest form of as many copies as are asked for, in turns."""
    name = call["op"]
    modules = (importlib.import_module(f"ops.{m.name}") for m in pkgutil.iter_modules(__path__))
    form = next((getattr(m, name) for m in modules if hasattr(m, name)), None)
    if form is None:
        raise LookupError(f"no peer for {name}")
    forms = forms_of(form, call)
    if not forms:
        raise LookupError(f"no peer for this {name}")

    best = forms.index(fastest_of(forms))
    copies = [forms[best]] + [forms_of(form, call)[best] for _ in range(call["copies"] - 1)]
    if len(copies) == 1:
        return copies[0]
    turns = itertools.cycle(copies)
    return lambda: next(turns)()
