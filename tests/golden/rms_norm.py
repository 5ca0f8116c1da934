import torch
import torch.nn.functional as F

from golden import call, write

torch.manual_seed(1)
calls = []
for dtype in (torch.float32, torch.bfloat16, torch.float16):
    x = torch.randn(3, 37).to(dtype).requires_grad_()
    weight = torch.randn(37).to(dtype).requires_grad_()
    dy = torch.randn(3, 37).to(dtype)
    # In f64 from the rounded inputs: PyTorch's own 16-bit results carry roundings of their own.
    x64, weight64 = x.detach().double().requires_grad_(), weight.detach().double().requires_grad_()
    y = F.rms_norm(x64, (37,), weight64, 1e-6)
    dx, dweight = torch.autograd.grad(y, (x64, weight64), dy.double())
    rstd = (x64.square().mean(-1) + 1e-6).rsqrt().float()
    calls.append(call("rms_norm", f"{dtype}", {"x": x, "weight": weight},
                      {"y": y.to(dtype), "rstd": rstd}, scalars={"eps": 1e-6}))
    calls.append(call("rms_norm_backward", f"{dtype}", {"dy": dy, "x": x, "weight": weight, "rstd": rstd},
                      {"dx": dx.to(dtype), "dweight": dweight.to(dtype)}))
    residual, bias, dsum = torch.randn(3, 37).to(dtype), torch.randn(37).to(dtype), torch.randn(3, 37).to(dtype)
    total = (x.detach().double() + bias.double() + residual.double()).to(dtype)
    t64 = total.double().requires_grad_()
    y = F.rms_norm(t64, (37,), weight64, 1e-6)
    dx, dweight = torch.autograd.grad((y, t64), (t64, weight64), (dy.double(), dsum.double()))
    rstd = (total.double().square().mean(-1) + 1e-6).rsqrt().float()
    calls.append(call("add_rms_norm", f"{dtype}", {"x": x, "residual": residual, "bias": bias, "weight": weight},
                      {"sum": total, "y": y.to(dtype), "rstd": rstd}, scalars={"eps": 1e-6}))
    calls.append(call("add_rms_norm_backward", f"{dtype}",
                      {"dy": dy, "dsum": dsum, "sum": total, "weight": weight, "rstd": rstd},
                      {"dx": dx.to(dtype), "dweight": dweight.to(dtype)}))
write(calls)
