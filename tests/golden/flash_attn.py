"""`scaled_dot_product_attention` and its gradients, in f32. Windows and slopes are explicit masks there,
and so is a causal one where there are more keys than queries, which PyTorch aligns at the upper left."""
import torch
import torch.nn.functional as F

from golden import call, write

torch.manual_seed(1)
calls = []


def heads_first(*tensors):
    return [t.transpose(1, 2) for t in tensors]


def hold(name, s, l, h, g, d, b=1, causal=False, left=-1, right=-1, alibi=False, built_in=False):
    q, k, v = torch.randn(b, s, h, d), torch.randn(b, l, g, d), torch.randn(b, l, g, d)
    slopes = torch.rand(h) if alibi else None
    scale = 0.4
    distance = torch.arange(s)[:, None] + l - s - torch.arange(l)
    hidden = torch.zeros(s, l, dtype=torch.bool)
    if causal:
        hidden |= distance < 0
    if left >= 0:
        hidden |= distance > left
    if right >= 0:
        hidden |= -distance > right
    mask = torch.zeros(h, s, l).masked_fill(hidden, -torch.inf)
    if alibi:
        mask = mask - slopes[:, None, None] * distance.abs()
    given = {"is_causal": True} if built_in else {"attn_mask": mask}
    q, k, v = (x.requires_grad_() for x in (q, k, v))
    o = F.scaled_dot_product_attention(*heads_first(q, k, v), scale=scale, enable_gqa=True, **given)
    d_o = torch.randn(b, s, h, d)
    gradients = torch.autograd.grad(o, (q, k, v), d_o.transpose(1, 2))
    # PyTorch keeps the logarithm to itself: the sum that it stands for, in f64.
    wide = k.double().repeat_interleave(h // g, 2)
    scores = scale * torch.einsum("bshd,blhd->bhsl", q.double(), wide) + mask.double()
    lse = scores.logsumexp(-1).float()
    o = o.transpose(1, 2)
    before = {"q": q, "k": k, "v": v, "alibi": slopes}
    attributes = {"causal": causal, "window_left": left, "window_right": right}
    calls.append(call("flash_attn", name, before, {"o": o, "lse": lse}, attributes, {"scale": scale}))
    before = {"do": d_o, "q": q, "k": k, "v": v, "o": o, "lse": lse, "alibi": slopes}
    after = dict(zip(("dq", "dk", "dv"), gradients))
    calls.append(call("flash_attn_backward", name, before, after, attributes, {"scale": scale}))


hold("all", 4, 5, 2, 2, 4, b=2)
hold("causal", 7, 7, 2, 2, 4, causal=True, built_in=True)
hold("causal, more keys", 3, 8, 2, 2, 5, causal=True)
hold("causal, shared heads", 6, 6, 4, 2, 4, causal=True, built_in=True)
hold("one head of keys", 3, 5, 4, 1, 8)
hold("window", 12, 14, 1, 1, 5, left=3, right=2)
hold("alibi, causal", 5, 6, 3, 3, 4, causal=True, alibi=True)
hold("rows that see nothing", 8, 5, 1, 1, 5, causal=True)
write(calls)
