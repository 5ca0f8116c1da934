import torch

from golden import call, write

torch.manual_seed(1)
calls = []
for dtype in (torch.float32, torch.bfloat16, torch.float16):
    x, dy = torch.randn(2, 37).to(dtype), torch.randn(2, 37).to(dtype)
    # In f64 from the rounded inputs: PyTorch's own 16-bit results carry roundings of their own.
    x64 = x.double().requires_grad_()
    y = torch.softmax(0.5 * x64, -1)
    calls.append(call("softmax", f"{dtype}", {"x": x}, {"y": y.to(dtype)}, scalars={"scale": 0.5}))
    y = y.detach().to(dtype)
    dx = torch.ops.aten._softmax_backward_data(dy.double(), y.double(), -1, torch.float64) * 0.5
    calls.append(call("softmax_backward", f"{dtype}", {"dy": dy, "y": y}, {"dx": dx.to(dtype)}, scalars={"scale": 0.5}))
    y = torch.log_softmax(x64, -1).detach()
    calls.append(call("log_softmax", f"{dtype}", {"x": x}, {"y": y.to(dtype)}))
    y = y.to(dtype)
    dx = torch.ops.aten._log_softmax_backward_data(dy.double(), y.double(), -1, torch.float64)
    calls.append(call("log_softmax_backward", f"{dtype}", {"dy": dy, "y": y}, {"dx": dx.to(dtype)}))

# Rows that a mask leaves nothing of, as attention has them: with the identity as values it gives its
# weights. Upper left and lower right causal masks are one for a square.
x = torch.randn(2, 6, 6)
mask = torch.randn(2, 6, 6)
mask[0, 2] = mask[1, :, 3:] = -torch.inf
eye = torch.eye(6).expand(2, 6, 6)
attention = torch.nn.functional.scaled_dot_product_attention
y = attention(x, eye, eye, attn_mask=mask, scale=0.3)
calls.append(call("softmax", "masked, a row of nothing", {"x": x, "mask": mask}, {"y": y}, scalars={"scale": 0.3}))
y = attention(x, eye, eye, is_causal=True, scale=0.3)
calls.append(call("softmax", "causal", {"x": x}, {"y": y}, {"causal": True}, {"scale": 0.3}))
# Rows of nothing without a mask, of infinity, of NaN.
x = torch.full((3, 4), -torch.inf)
x[1, 2], x[2, 1], x[2, 2] = torch.inf, torch.nan, 1
calls.append(call("softmax", "no numbers", {"x": x}, {"y": torch.softmax(x, -1)}, scalars={"scale": 1}))
calls.append(call("log_softmax", "no numbers", {"x": x}, {"y": torch.log_softmax(x, -1)}))
write(calls)
