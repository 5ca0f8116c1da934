import torch
import torch.nn.functional as F

from golden import call, write

torch.manual_seed(2)
calls = []
for dtype in (torch.float32, torch.bfloat16, torch.float16):
    x, residual, dy, dsum = (torch.randn(2, 37).to(dtype) for _ in range(4))
    add_bias, weight, bias = (torch.randn(37).to(dtype) for _ in range(3))
    # In f64 from the rounded inputs: PyTorch's own 16-bit results carry roundings of their own.
    w64, b64 = (t.double().requires_grad_() for t in (weight, bias))
    x64 = x.double().requires_grad_()
    y, mean, rstd = torch.native_layer_norm(x64, (37,), w64, b64, 1e-5)
    dx, dweight, dbias = torch.autograd.grad(y, (x64, w64, b64), dy.double())
    mean, rstd = (t.detach().squeeze(-1).float() for t in (mean, rstd))
    calls.append(call("layer_norm", f"{dtype}", {"x": x, "weight": weight, "bias": bias},
                      {"y": y.to(dtype), "mean": mean, "rstd": rstd}, scalars={"eps": 1e-5}))
    calls.append(call("layer_norm_backward", f"{dtype}",
                      {"dy": dy, "x": x, "weight": weight, "mean": mean, "rstd": rstd},
                      {"dx": dx.to(dtype), "dweight": dweight.to(dtype), "dbias": dbias.to(dtype)}))
    plain = F.layer_norm(x.double(), (37,))
    calls.append(call("layer_norm", f"{dtype} without weight and bias", {"x": x},
                      {"y": plain.to(dtype), "mean": mean, "rstd": rstd}, scalars={"eps": 1e-5}))

    total = (x.double() + add_bias.double() + residual.double()).to(dtype)
    t64 = total.double().requires_grad_()
    y, mean, rstd = torch.native_layer_norm(t64, (37,), w64, b64, 1e-5)
    dx, dweight, dbias = torch.autograd.grad((y, t64), (t64, w64, b64), (dy.double(), dsum.double()))
    mean, rstd = (t.detach().squeeze(-1).float() for t in (mean, rstd))
    calls.append(call("add_layer_norm", f"{dtype}",
                      {"x": x, "residual": residual, "add_bias": add_bias, "weight": weight, "bias": bias},
                      {"sum": total, "y": y.to(dtype), "mean": mean, "rstd": rstd}, scalars={"eps": 1e-5}))
    calls.append(call("add_layer_norm_backward", f"{dtype}",
                      {"dy": dy, "dsum": dsum, "sum": total, "weight": weight, "mean": mean, "rstd": rstd},
                      {"dx": dx.to(dtype), "dweight": dweight.to(dtype), "dbias": dbias.to(dtype)}))
# A row far from zero, whose variance a sum of squares loses.
far = 1e4 + torch.randn(2, 300)
y, mean, rstd = torch.native_layer_norm(far.double(), (300,), None, None, 1e-5)
calls.append(call("layer_norm", "far from zero", {"x": far},
                  {"y": y.float(), "mean": mean.squeeze(-1).float(), "rstd": rstd.squeeze(-1).float()},
                  scalars={"eps": 1e-5}))
write(calls)
