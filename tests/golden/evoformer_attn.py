"""Upstream's own reference of its test, `attention_reference`, and its gradients by autograd, in f64."""
import torch

from golden import call, write

torch.manual_seed(1)
calls = []


def hold(name, b, n, s, l, h, d, has_keys=True, has_pairs=True):
    shapes = [b, n, s, h, d], [b, n, l, h, d], [b, n, l, h, d], [b, n, 1, 1, l], [b, 1, h, s, l]
    given = [torch.randn(shape).double().requires_grad_() for shape in shapes]
    with torch.no_grad():
        given[3][..., ::4] = -1e9  # a mask of the kind that upstream's test has
    q, k, v, keys, pairs = given
    scores = torch.einsum("bnshd,bnlhd->bnhsl", q, k) / d**0.5
    biases = {"bias1": keys if has_keys else None, "bias2": pairs if has_pairs else None}
    for bias in biases.values():
        scores = scores if bias is None else scores + bias
    o = torch.einsum("bnhsl,bnlhd->bnshd", scores.softmax(-1), v)
    d_o = torch.randn(shapes[0])
    wanted = [q, k, v] + [bias for bias in biases.values() if bias is not None]
    gradients = [g.float() for g in torch.autograd.grad(o, wanted, d_o.double())]
    results = {"o": o.float(), "lse": scores.logsumexp(-1).float()}
    biases = {name: None if bias is None else bias.float() for name, bias in biases.items()}
    before = {"q": q.float(), "k": k.float(), "v": v.float(), **biases}
    scale = {"scale": 1 / d**0.5}
    calls.append(call("evoformer_attn", name, before, results, {}, scale))
    names = ["dq", "dk", "dv"] + [f"d{name}" for name, bias in biases.items() if bias is not None]
    after = dict(zip(names, gradients))
    calls.append(call("evoformer_attn_backward", name, {"do": d_o, **before, **results}, after, {}, scale))


hold("both biases", 2, 2, 4, 5, 2, 3)
hold("keys", 1, 3, 4, 7, 2, 3, has_pairs=False)
hold("pairs", 1, 3, 6, 3, 2, 3, has_keys=False)
hold("no bias", 1, 2, 4, 5, 2, 8, has_keys=False, has_pairs=False)
write(calls)
