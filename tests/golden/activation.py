import torch
import torch.nn.functional as F

from golden import call, write

torch.manual_seed(3)
# In the order of the op's `kind`.
KINDS = [lambda x: x, F.relu, F.gelu, lambda x: F.gelu(x, approximate="tanh"), F.silu, torch.tanh, torch.sigmoid]
calls = []
for dtype in (torch.float32, torch.bfloat16, torch.float16):
    gate, up, dy = ((2 * torch.randn(2, 18)).to(dtype) for _ in range(3))
    bias = torch.randn(18).to(dtype)
    # In f64 from the rounded inputs: PyTorch's own 16-bit results carry roundings of their own.
    gate64, up64, bias64 = (t.double().requires_grad_() for t in (gate, up, bias))
    for kind, function in enumerate(KINDS):
        if dtype == torch.float16 and kind not in (2, 4):
            continue
        name, attributes = f"{dtype} {kind}", {"kind": kind}
        y = function(gate64 + bias64)
        dx, = torch.autograd.grad(y, gate64, dy.double())
        calls.append(call("activation", name, {"x": gate, "bias": bias}, {"y": y.to(dtype)}, attributes))
        calls.append(call("activation_backward", name, {"dy": dy, "x": gate, "bias": bias},
                          {"dx": dx.to(dtype)}, attributes))
        if kind not in (2, 3, 4):
            continue
        y = function(gate64) * up64
        dgate, dup = torch.autograd.grad(y, (gate64, up64), dy.double())
        calls.append(call("gated_activation", name, {"gate": gate, "up": up}, {"y": y.to(dtype)}, attributes))
        calls.append(call("gated_activation_backward", name, {"dy": dy, "gate": gate, "up": up},
                          {"dgate": dgate.to(dtype), "dup": dup.to(dtype)}, attributes))
    calls.append(call("bias_backward", f"{dtype}", {"dy": dy}, {"dbias": dy.double().sum(0).to(dtype)}))

# DeepSpeed's own fallback of residual_add_bias, for each of its variants.
from deepspeed.ops.transformer.inference.op_binding.residual_add import ResidualAddOp

for mlp_after_attn, pre_layer_norm in ((True, True), (True, False), (False, True)):
    x, residual, attention = (torch.randn(2, 19) for _ in range(3))
    bias, attention_bias = torch.randn(19), torch.randn(19)
    y = ResidualAddOp.residual_add_fallback(x.clone(), residual.clone(), attention, attention_bias, bias, 2,
                                            mlp_after_attn, True, pre_layer_norm)
    before = {"x": x, "residual": residual, "bias": bias}
    scales = {"residual_scale": 1.0}
    if not mlp_after_attn or pre_layer_norm:
        before |= {"attention": attention, "attention_bias": attention_bias}
        scales = {"residual_scale": 0.5, "attention_scale": 0.5 if mlp_after_attn else 1.0}
    calls.append(call("residual_add", f"mlp_after_attn {mlp_after_attn}, pre_layer_norm {pre_layer_norm}",
                      before, {"y": y}, scalars=scales))
write(calls)
