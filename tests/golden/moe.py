"""The gates of DeepSpeed's training: the routes are written down, after the dense weights agreed with them."""
import torch
from deepspeed.moe import sharded_moe
from deepspeed.moe.sharded_moe import top1gating, top2gating, topkgating

from golden import call, write

torch.manual_seed(7)
calls = []


def index_form(routes, capacity, dense):
    """weights, assignments and offsets [S, K] of a gate's routes, which its dense weights are, too."""
    l_aux, _, experts, assignments, offsets, weights, counts = routes
    _, combine, mask, _ = dense
    expanded = torch.zeros_like(combine)
    for k, s in [(k, s) for k in range(len(assignments)) for s in range(len(combine))]:
        if assignments[k, s] >= 0:
            expanded[s, assignments[k, s], offsets[k, s]] += weights[k, s]
    assert torch.equal(expanded, combine) and torch.equal(expanded != 0, mask)
    offsets = torch.where(assignments >= 0, offsets, -1)
    return {"weights": weights.t().contiguous(), "assignments": assignments.t().contiguous().int(),
            "offsets": offsets.t().contiguous().int(), "expert_counts": counts, "l_aux": l_aux}


def record(name, gate, logits, k, capacity, given=None, choice_major=False, by_probability=False):
    """`gate(logits, sparse)`: the sparse form is held against the dense one and written down."""
    leaf = logits.clone().requires_grad_()
    routes = gate(leaf * 1, True)
    after = index_form(routes, capacity, gate(logits.clone(), False))
    s, e = logits.shape
    before = {"logits": logits, "weights": torch.zeros(s, k), "assignments": torch.zeros(s, k, dtype=torch.int32),
              "offsets": torch.zeros(s, k, dtype=torch.int32)} | (given or {})
    # The load is no result of upstream's.
    choices = after["expert_counts"].float() if not choice_major else torch.bincount(logits.argmax(1), minlength=e).float()
    load = choices * e / (s * (1 if choice_major else k))
    attributes = {"choice_major": choice_major, "by_probability": by_probability, "normalize": k > 1}
    calls.append(call("moe_gate", name, before, after | {"load": load}, attributes, {"capacity": capacity}))
    dweights, dl_aux = torch.randn(s, k), torch.tensor(0.7)
    torch.autograd.backward([routes[5], routes[0]], [dweights.t(), dl_aux])
    calls.append(call("moe_gate_backward", name,
                      {"dweights": dweights, "dl_aux": dl_aux, "logits": logits, "assignments": after["assignments"],
                       "load": load}, {"dlogits": leaf.grad}, {"normalize": k > 1}))


def drawn(value):
    """What upstream draws is `value`."""
    device = torch.device("cpu")
    sharded_moe.exp_selection_uniform_map[device] = lambda shape: value.unsqueeze(1).expand(shape)
    sharded_moe.gumbel_map[device] = lambda shape: value


S, E = 12, 4
for factor in (0.6, 1.1):
    logits = torch.randn(S, E)
    priority, used = torch.rand(S), torch.rand(S) < 0.7
    capacity = lambda k: max(2, int(torch.ceil(S / E * torch.tensor(factor * k))))
    drawn(priority)
    record(f"top 1 of uniform numbers, factor {factor}", lambda x, sparse: top1gating(x, factor, 2, sparse_routes=sparse),
           logits, 1, capacity(1), {"priority": priority})
    record(f"top 1 of some tokens, factor {factor}",
           lambda x, sparse: top1gating(x, factor, 2, used_token=used.long(), sparse_routes=sparse),
           logits, 1, capacity(1), {"priority": priority, "used": used})
    noise = torch.randn(S, E)
    drawn(noise)
    record(f"top 2 with noise, factor {factor}", lambda x, sparse: top2gating(x, factor, 2, sparse_routes=sparse),
           logits, 2, capacity(2), {"noise": noise}, choice_major=True)
    record(f"top 2, factor {factor}",
           lambda x, sparse: top2gating(x, factor, 2, top2_2nd_expert_sampling=False, sparse_routes=sparse),
           logits, 2, capacity(2), choice_major=True)
    for k in (2, 4):
        for policy in ("probs", "position"):
            record(f"top {k} by {policy}, factor {factor}",
                   lambda x, sparse: topkgating(x, k, factor, 2, drop_policy=policy, sparse_routes=sparse),
                   logits, k, capacity(k), by_probability=policy == "probs")
logits, noise = torch.randn(S, E), torch.randn(S, E)
drawn(noise)
most = 2**40
record("top 1 with noise, none dropped", lambda x, sparse: top1gating(x, 1.0, 2, noisy_gate_policy="RSample",
       drop_tokens=False, use_rts=False, sparse_routes=sparse), logits, 1, most, {"noise": noise})
record("top 2, none dropped", lambda x, sparse: top2gating(x, 1.0, 2, drop_tokens=False, sparse_routes=sparse),
       logits, 2, most, {"noise": noise}, choice_major=True)
for k in (2, 4):
    record(f"top {k}, none dropped", lambda x, sparse: topkgating(x, k, 1.0, 2, drop_tokens=False, sparse_routes=sparse),
           logits, k, most)
write(calls)
