import torch
import torch.nn.functional as F


def heads_first(*tensors):
    return [t.transpose(-2, -3) for t in tensors]


def reference(q, k, v, biases, scale):
    """As `attention_reference` of upstream's test."""
    q, k, v = heads_first(q, k, v)
    scores = torch.matmul(q, k.transpose(-1, -2)) * scale
    for bias in biases:
        scores += bias
    return torch.matmul(F.softmax(scores, dim=-1), v).transpose(-2, -3)


def fused(q, k, v, biases, scale):
    """With one mask of all sequences and heads, which has to be made first."""
    b, n, s, h, d = q.shape
    mask = sum(biases).expand(b, n, h, s, k.shape[2]).reshape(b * n, h, s, -1) if biases else None
    q, k, v = heads_first(*(t.reshape(b * n, -1, h, d) for t in (q, k, v)))
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale).transpose(1, 2)


def given(*biases):
    return [bias for bias in biases if bias is not None]


def evoformer_attn(q, k, v, bias1, bias2, o, lse, scale):
    biases = given(bias1, bias2)

    def of(function):
        def run():
            with torch.inference_mode():
                return function(q, k, v, biases, scale)
        return run

    return [of(reference), of(fused)]


def evoformer_attn_backward(do, q, k, v, o, lse, bias1, bias2, dbias1, dbias2, dq, dk, dv, scale):
    def of(function):
        wanted = [t.detach().requires_grad_() for t in [q, k, v] + given(bias1, bias2)]
        y = function(*wanted[:3], wanted[3:], scale)
        return lambda: torch.autograd.grad(y, wanted, do.reshape(y.shape), retain_graph=True)

    return [of(reference), of(fused)]
