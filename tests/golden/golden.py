"""Answers of real PyTorch and DeepSpeed runs, written down as small fixtures.

`python tests/golden/FAMILY.py` makes `FAMILY.json` beside it; `tests/tests/ops/golden.rs` holds the
ops against it. The versions that answered stand in the file.
"""
import importlib.metadata, json, math, os, sys

import torch

NAMES = {
    torch.float32: "f32", torch.float16: "f16", torch.bfloat16: "bf16", torch.float64: "f64",
    torch.int8: "i8", torch.uint8: "u8", torch.int16: "i16", torch.int32: "i32", torch.int64: "i64",
    torch.bool: "bool", torch.float8_e4m3fn: "f8e4m3", torch.float8_e5m2: "f8e5m2",
}


def tensor(t):
    """Values as numbers; what JSON has no number for as text."""
    values = t.detach().double().flatten().tolist() if t.is_floating_point() else t.flatten().int().tolist()
    if t.dtype == torch.int64:
        values = t.flatten().tolist()
    if t.is_floating_point() and t.dtype != torch.float64:
        values = [float(f"{v:.9g}") for v in values]  # enough to tell any f32
    values = [v if math.isfinite(v) else str(v) for v in values]
    return {"dtype": NAMES[t.dtype], "shape": list(t.shape), "values": values}


def argument(value):
    """A tensor, a list of them, or None for a missing optional."""
    tensors = [] if value is None else value if isinstance(value, (list, tuple)) else [value]
    return [tensor(t) for t in tensors]


def call(op, name, before, after, attributes=None, scalars=None, tolerance=None, because=None):
    """A call of `op`: its arguments by name before it, and those that it writes after it.

    `tolerance` is (rtol, atol) where the peer computes less exactly than the op's schema allows;
    `because` says why.
    """
    given = {"op": op, "name": name, "before": {k: argument(v) for k, v in before.items()},
             "after": {k: argument(v) for k, v in after.items()},
             "attributes": attributes or {}, "scalars": scalars or {}}
    if tolerance:
        given |= {"tolerance": tolerance, "because": because}
    return given


def write(calls):
    """Beside the script that asks for it."""
    path = os.path.splitext(os.path.abspath(sys.argv[0]))[0] + ".json"
    versions = {n: importlib.metadata.version(n) for n in ("torch", "deepspeed")}
    with open(path, "w") as f:
        f.write(json.dumps({"versions": versions}, indent=None)[:-1] + ', "calls": [\n')
        f.write(",\n".join(json.dumps(c, allow_nan=False) for c in calls))
        f.write("\n]}\n")
    print(f"{path}: {len(calls)} calls, {os.path.getsize(path)} bytes")
