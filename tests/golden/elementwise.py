import torch

from golden import call, write

torch.manual_seed(2)
calls = []
SPECIAL = [0.0, -0.0, 1.5, float("inf"), float("-inf"), float("nan"), 3e38]
FLOATS = (torch.float32, torch.bfloat16, torch.float16)

BINARY = {"add": torch.add, "sub": torch.sub, "mul": torch.mul, "div": torch.div,
          "maximum": torch.maximum, "minimum": torch.minimum}
UNARY = {"neg": torch.neg, "abs": torch.abs, "exp": torch.exp, "log": torch.log, "sqrt": torch.sqrt,
         "rsqrt": torch.rsqrt, "square": torch.square, "reciprocal": torch.reciprocal}
for dtype in FLOATS:
    x = torch.cat([torch.randn(3), torch.tensor(SPECIAL)]).to(dtype)
    a, b = x.repeat_interleave(len(x)).reshape(10, 10), x.repeat(10, 1)
    for name, f in BINARY.items():
        calls.append(call(name, f"{dtype}", {"a": a, "b": b}, {"y": f(a, b)}))
    for name, f in UNARY.items():
        # In f64 from the rounded inputs: PyTorch's own results carry roundings of their own.
        calls.append(call(name, f"{dtype}", {"x": x}, {"y": f(x.double()).to(dtype)}))
    calls.append(call("clamp", f"{dtype}", {"x": x}, {"y": x.clamp(-0.5, 0.75)}, scalars={"min": -0.5, "max": 0.75}))
    calls.append(call("clamp", f"{dtype}, max below min", {"x": x}, {"y": x.clamp(0.75, -0.5)},
                      scalars={"min": 0.75, "max": -0.5}))
    mask = torch.rand(10, 10) < 0.5
    calls.append(call("select", f"{dtype}", {"condition": mask, "a": a, "b": b}, {"y": torch.where(mask, a, b)}))
    calls.append(call("masked_fill", f"{dtype}", {"x": a, "mask": mask}, {"y": a.masked_fill(mask, -1e4)},
                      scalars={"value": -1e4}))
write(calls)
