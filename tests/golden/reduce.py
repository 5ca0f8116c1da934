import torch

from golden import call, write

torch.manual_seed(2)
calls = []
for dtype in (torch.float32, torch.bfloat16, torch.float16):
    rows = torch.randn(5, 37).mul(4).round().div(4).to(dtype)
    rows[1, 20] = rows[2, 0] = rows[2, 9] = float("nan")
    rows[3] = float("-inf")
    clean = torch.randn(5, 37).to(dtype)
    for name, f in {"max_last": torch.amax, "min_last": torch.amin, "argmax_last": torch.argmax}.items():
        calls.append(call(name, f"{dtype}", {"x": rows}, {"y": f(rows, -1)}))
    for name, f in {"sum_last": torch.sum, "mean_last": torch.mean, "norm_last": torch.linalg.vector_norm}.items():
        calls.append(call(name, f"{dtype}", {"x": clean}, {"y": f(clean.double(), dim=-1).float()}))
    calls.append(call("sum_leading", f"{dtype}", {"x": clean}, {"y": clean.double().sum(0).to(dtype)}))
write(calls)
