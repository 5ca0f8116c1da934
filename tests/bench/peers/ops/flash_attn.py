import torch
import torch.nn.functional as F
from torch.nn.attention.bias import causal_lower_right


def heads_first(q, k, v):
    return [t.transpose(1, 2) for t in (q, k, v)]


def mask_of(q, k, causal, window_left, window_right, alibi):
    """What tells PyTorch the same; None where it has no such mask, or a slower one."""
    if window_left >= 0 or window_right >= 0 or alibi is not None:
        return None
    queries, keys = q.shape[1], k.shape[1]
    if not causal or queries == 1:
        return {}
    return {"is_causal": True} if queries == keys else {"attn_mask": causal_lower_right(queries, keys)}


def flash_attn(q, k, v, alibi, o, lse, scale, causal, window_left, window_right):
    mask = mask_of(q, k, causal, window_left, window_right, alibi)
    if mask is None:
        return []
    shared = {"scale": scale, "enable_gqa": q.shape[2] != k.shape[2], **mask}
    turned = heads_first(q, k, v)
    copied = [t.contiguous() for t in turned]

    def of(tensors):
        def run():
            with torch.inference_mode():
                return F.scaled_dot_product_attention(*tensors, **shared)
        return run

    # The second has tokens already turned to what is most comfortable.
    return [of(turned), of(copied)]


def flash_attn_varlen(q, k, v, q_starts, kv_starts, alibi, o, lse, scale, causal, window_left, window_right):
    return []


def flash_attn_backward(do, q, k, v, o, lse, alibi, dq, dk, dv, scale, causal, window_left, window_right):
    mask = mask_of(q, k, causal, window_left, window_right, alibi)
    if mask is None:
        return []
    shared = {"scale": scale, "enable_gqa": q.shape[2] != k.shape[2], **mask}

    def of(tensors, gradient):
        tensors = [t.detach().requires_grad_() for t in tensors]
        y = F.scaled_dot_product_attention(*tensors, **shared)
        return lambda: torch.autograd.grad(y, tensors, gradient, retain_graph=True)

    turned, gradient = heads_first(q, k, v), do.transpose(1, 2)
    return [of(turned, gradient), of([t.contiguous() for t in turned], gradient.contiguous())]


def flash_attn_varlen_backward(do, q, k, v, o, lse, q_starts, kv_starts, alibi, dq, dk, dv, scale, causal, window_left, window_right):
    return []
