"""Block-sparse attention as upstream computes it, dense and masked, in f64, over layouts that upstream's own
`sparsity_config.py` made; and such layouts, for `sparse_layouts.json`. The module is no part of releases since
0.17: give the path of one, of 0.16 say, as the first argument."""
import importlib.util, json, os, sys

import torch

from golden import call, write

spec = importlib.util.spec_from_file_location("sparsity_config", sys.argv[1])
upstream = importlib.util.module_from_spec(spec)
spec.loader.exec_module(upstream)

torch.manual_seed(1)
calls = []


def hold(name, layout, b, block, d, causal=False, keys=False, pairs=False):
    h, n, _ = layout.shape
    s = n * block
    q, k, v = (torch.randn(b, s, h, d).double().requires_grad_() for _ in range(3))
    seen = layout.repeat_interleave(block, 1).repeat_interleave(block, 2) != 0
    if causal:
        seen = seen & torch.ones(s, s, dtype=torch.bool).tril()
    key_padding_mask = torch.randn(b, s) if keys else None
    attn_mask = torch.randn(s, s).masked_fill(torch.rand(s, s) < 0.2, -torch.inf) if pairs else None
    scores = 0.4 * torch.einsum("bshd,blhd->bhsl", q, k)
    if keys:
        scores = scores + key_padding_mask[:, None, None]
    if pairs:
        scores = scores + attn_mask
    scores = scores.masked_fill(~seen, -torch.inf)
    # A row that sees nothing is 0 in upstream's kernels, and NaN in PyTorch.
    weights = scores.softmax(-1).nan_to_num(0)
    o = torch.einsum("bhsl,blhd->bshd", weights, v)
    d_o = torch.randn(b, s, h, d)
    gradients = [g.nan_to_num(0).float() for g in torch.autograd.grad(o, (q, k, v), d_o.double())]
    results = {"o": o.float(), "lse": scores.logsumexp(-1).float()}
    masks = {"key_padding_mask": key_padding_mask, "attn_mask": attn_mask}
    before = {"q": q.float(), "k": k.float(), "v": v.float(), "layout": layout, **masks}
    attributes, scale = {"causal": causal}, {"scale": 0.4}
    calls.append(call("sparse_attn", name, before, results, attributes, scale))
    after = dict(zip(("dq", "dk", "dv"), gradients))
    before = {"do": d_o, **before, **results}
    calls.append(call("sparse_attn_backward", name, before, after, attributes, scale))


fixed = upstream.FixedSparsityConfig(2, 3, True, 2, 1, "unidirectional", False, 2).make_layout(12)
longformer = upstream.BSLongformerSparsityConfig(2, 4, num_sliding_window_blocks=1).make_layout(16)
hold("fixed, unidirectional", fixed, 1, 3, 4)
hold("fixed, causal", fixed, 1, 3, 4, causal=True)
hold("longformer, masks", longformer, 2, 4, 3, keys=True, pairs=True)
hold("rows that see nothing", torch.tensor([[[1, 0], [0, 0]]]), 1, 3, 4)

write(calls)

layouts = []


def lay(kind, tokens, heads=2, block=16, different=False, **given):
    config = {"block": block, **given}
    if kind != "LocalSlidingWindow":
        config["different_layout_per_head"] = different
    layout = getattr(upstream, f"{kind}SparsityConfig")(heads, **config).make_layout(tokens)
    rows = ["".join(str(cell) for cell in row) for head in layout.tolist() for row in head]
    layouts.append({"kind": kind, "tokens": tokens, "heads": heads, "block": block, "different": different,
                    "given": given, "rows": rows})


lay("Dense", 64)
for tokens in (16, 32, 96, 128, 176):
    for attention in ("unidirectional", "bidirectional"):
        lay("Fixed", tokens, attention=attention)
        lay("Fixed", tokens, attention=attention, num_local_blocks=6, num_global_blocks=3)
        lay("Fixed", tokens, heads=5, different=True, attention=attention, num_local_blocks=4,
            num_global_blocks=1, num_different_global_patterns=3)
        lay("Variable", tokens, attention=attention)
        lay("Variable", tokens, attention=attention, local_window_blocks=[1, 3, 2], global_block_indices=[1, 4, 20])
        lay("Variable", tokens, attention=attention, local_window_blocks=[2], global_block_indices=[0, 3],
            global_block_end_indices=[2, 5])
        lay("BSLongformer", tokens, attention=attention, num_sliding_window_blocks=1)
        lay("BSLongformer", tokens, attention=attention, num_sliding_window_blocks=1, global_block_indices=[0, 4],
            global_block_end_indices=[1, 30])
        lay("BigBird", tokens, attention=attention, num_random_blocks=0, num_sliding_window_blocks=1)
        lay("LocalSlidingWindow", tokens, attention=attention, num_sliding_window_blocks=1)
    lay("Fixed", tokens, horizontal_global_attention=True, num_local_blocks=4, num_global_blocks=2)
    lay("Variable", tokens, horizontal_global_attention=True, global_block_indices=[2, 0])
    lay("Variable", tokens, horizontal_global_attention=True, global_block_indices=[1], global_block_end_indices=[9])
for window in (2, 3, 5):
    for attention in ("unidirectional", "bidirectional"):
        for kind in ("BSLongformer", "LocalSlidingWindow"):
            lay(kind, 128, attention=attention, num_sliding_window_blocks=window)
        lay("BigBird", 128, attention=attention, num_random_blocks=0, num_sliding_window_blocks=window,
            num_global_blocks=window)
path = os.path.join(os.path.dirname(os.path.abspath(__file__)), "models", "sparse_layouts.json")
with open(path, "w") as f:
    f.write("[\n" + ",\n".join(json.dumps(layout) for layout in layouts) + "\n]\n")
print(path, len(layouts), os.path.getsize(path))
