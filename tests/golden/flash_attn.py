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
    o = F.scaled_dot_product_attention(*heads_first(q, k, v), scale=scale, enable_gqa=True, **given)
    # PyTorch keeps the logarithm to itself: the sum that it stands for, in f64.
    wide = k.double().repeat_interleave(h // g, 2)
    scores = scale * torch.einsum("bshd,blhd->bhsl", q.double(), wide) + mask.double()
    lse = scores.logsumexp(-1).float()
    before = {"q": q, "k": k, "v": v, "alibi": slopes}
    attributes = {"causal": causal, "window_left": left, "window_right": right}
    calls.append(call("flash_attn", name, before, {"o": o.transpose(1, 2), "lse": lse}, attributes, {"scale": scale}))


hold("all", 5, 9, 2, 2, 8, b=2)
hold("causal", 12, 12, 2, 2, 8, causal=True, built_in=True)
hold("causal, more keys", 6, 13, 2, 2, 7, causal=True)
hold("causal, shared heads", 10, 10, 4, 2, 8, causal=True, built_in=True)
hold("one head of keys", 7, 9, 4, 1, 16)
hold("window", 14, 17, 1, 1, 5, left=3, right=2)
hold("alibi, causal", 9, 11, 3, 3, 8, causal=True, alibi=True)
hold("rows that see nothing", 9, 5, 1, 1, 8, causal=True)
write(calls)
