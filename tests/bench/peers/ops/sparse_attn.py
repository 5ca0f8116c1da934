import torch
import torch.nn.functional as F


def mask_of(q, layout, key_padding_mask, attn_mask, causal):
    """PyTorch has no block-sparse attention on a CPU: what is seen, as a mask."""
    s = q.shape[1]
    block = s // layout.shape[1]
    seen = layout.bool().repeat_interleave(block, 1).repeat_interleave(block, 2)[None]
    if causal:
        seen = seen & torch.ones(s, s, dtype=torch.bool).tril()
    if key_padding_mask is None and attn_mask is None:
        return seen
    mask = torch.zeros(1, 1, s, s)
    for given in (key_padding_mask if key_padding_mask is None else key_padding_mask[:, None, None], attn_mask):
        mask = mask if given is None else mask + given
    return mask.masked_fill(~seen, -torch.inf).to(q.dtype)


def heads_first(*tensors):
    return [t.transpose(1, 2).contiguous() for t in tensors]


def sparse_attn(q, k, v, layout, key_padding_mask, attn_mask, o, lse, scale, causal):
    mask = mask_of(q, layout, key_padding_mask, attn_mask, causal)
    q, k, v = heads_first(q, k, v)

    def run():
        with torch.inference_mode():
            return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale)
    return [run]


def sparse_attn_backward(do, q, k, v, o, lse, layout, key_padding_mask, attn_mask, dq, dk, dv, scale, causal):
    mask = mask_of(q, layout, key_padding_mask, attn_mask, causal)
    wanted = [t.detach().requires_grad_() for t in heads_first(q, k, v)]
    y = F.scaled_dot_product_attention(*wanted, attn_mask=mask, scale=scale)
    (gradient,) = heads_first(do)
    return [lambda: torch.autograd.grad(y, wanted, gradient, retain_graph=True)]
