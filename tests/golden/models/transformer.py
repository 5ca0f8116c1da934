"""A layer of DeepSpeed's training kernel, which runs on CUDA alone, by its formula: in f64, with gradients by
PyTorch. `python tests/golden/models/transformer.py` makes `transformer.json`."""
import os, sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
import torch
import torch.nn.functional as F

from golden import call, write

torch.manual_seed(5)
B, S, H, I, HEADS, EPS = 2, 5, 12, 20, 3, 1e-12
NAMES = ["attn_qkvw", "attn_qkvb", "attn_ow", "attn_ob", "attn_nw", "attn_nb", "inter_w", "inter_b", "output_w",
         "output_b", "norm_w", "norm_b"]
SHAPES = [(3 * H, H), (3 * H,), (H, H), (H,), (H,), (H,), (I, H), (I,), (H, I), (H,), (H,), (H,)]


def layer(x, mask, w, pre):
    norm = lambda t: F.layer_norm(t, (H,), w["norm_w"], w["norm_b"], EPS)
    inner = norm(x) if pre else x
    q, k, v = F.linear(inner, w["attn_qkvw"], w["attn_qkvb"]).view(B, S, 3, HEADS, H // HEADS).permute(2, 0, 3, 1, 4)
    p = torch.softmax(q @ k.transpose(-1, -2) / (H // HEADS) ** 0.5 + mask, -1)
    context = (p @ v).transpose(1, 2).reshape(B, S, H)
    attended = x + F.linear(context, w["attn_ow"], w["attn_ob"])
    normed = F.layer_norm(attended, (H,), w["attn_nw"], w["attn_nb"], EPS)
    out = F.linear(F.gelu(F.linear(normed, w["inter_w"], w["inter_b"]), approximate="tanh"), w["output_w"], w["output_b"])
    return attended + out if pre else norm(normed + out)


calls = []
for pre in (True, False):
    f32 = lambda *shape: torch.randn(*shape).double().requires_grad_()
    w = {name: torch.randn(shape).mul(0.4).double().requires_grad_() for name, shape in zip(NAMES, SHAPES)}
    x, dy = f32(B, S, H), torch.randn(B, S, H).double()
    mask = torch.zeros(B, 1, 1, S).double()
    mask[1, ..., 3:] = -10000
    y = layer(x, mask, w, pre)
    y.backward(dy)
    given = {"x": x, "mask": mask, "dy": dy, **w}
    gradients = {"d" + name: t.grad for name, t in [("x", x), *w.items()]}
    calls.append(call("transformer_layer", "norms before" if pre else "norms behind", {k: v.float() for k, v in given.items()},
                      {k: v.detach().float() for k, v in {"y": y, **gradients}.items()}, {"pre_layer_norm": pre}))
write(calls)
