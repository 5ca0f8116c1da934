"""The gates and routes of DeepSpeed's training without its checks, and index forms of the rest; its kernels
for inference are for GPUs."""
import torch
import torch.nn.functional as F


def places(assignments, width):
    """How many rows before each have the expert, and how many have it at all."""
    flat = F.one_hot(assignments.flatten(), width)
    before = flat.cumsum(0)
    return before.gather(1, assignments.flatten().unsqueeze(1)).view(assignments.shape) - 1, before[-1]


def top_k_gating(logits, n_tokens, scores, assignments, offsets, expert_counts):
    k, width = scores.shape[1], logits.shape[1]

    def gate():
        top, experts = torch.topk(torch.softmax(logits.float(), 1), k, 1)
        return top, experts, places(experts, width)

    return [gate]


def moe_gate(logits, noise, used, priority, weights, assignments, offsets, expert_counts, load, l_aux, capacity,
             choice_major, by_probability, normalize):
    k, (s, e) = weights.shape[1], logits.shape

    def gate():
        gates = torch.softmax(logits, 1)
        top, experts = torch.topk(gates, k, 1)
        mask = torch.zeros_like(gates, dtype=torch.bool).scatter_(1, experts, True)
        counts = mask.sum(0)
        aux = (gates.mean(0) * counts / s).sum() * e / k
        if by_probability:
            kept = torch.topk(torch.zeros_like(gates).scatter(1, experts, top), min(capacity, s), 0, sorted=False)[1]
            mask &= torch.zeros_like(mask).scatter_(0, kept, True)
            at = mask.cumsum(0) - 1
        else:
            at = mask.cumsum(0) - 1
            mask &= at < capacity
        kept = mask.gather(1, experts)
        top = top * kept
        return top / top.sum(1, keepdim=True).clamp(min=1.2e-7), experts.where(kept, -1), at.gather(1, experts), aux

    return [gate]


def moe_gate_backward(dweights, dl_aux, logits, assignments, load, dlogits, normalize):
    leaf, experts = logits.requires_grad_(), assignments.long().clamp(0, logits.shape[1] - 1)
    gates = torch.softmax(leaf, 1)
    top = gates.gather(1, experts)
    if normalize:
        top = top / top.sum(1, keepdim=True).clamp(min=1.2e-7)
    aux = (gates.mean(0) * load).sum()
    return [lambda: torch.autograd.grad([top, aux], leaf, [dweights, dl_aux], retain_graph=True)]


def moe_slots(assignments, offsets, expert_counts, slots, ends, capacity):
    experts = assignments.long().clamp(0, len(expert_counts) - 1)

    def route():
        if capacity >= 0:
            return torch.where((offsets >= 0) & (offsets < capacity), experts * capacity + offsets, -1)
        torch.cumsum(expert_counts, 0, out=ends)
        return torch.where(offsets < expert_counts[experts], (ends - expert_counts)[experts] + offsets, -1)

    return [route]


def moe_dispatch(x, slots, y):
    rows = slots.long().clamp(min=0)
    columns = [c.contiguous() for c in rows.unbind(1)]

    def scatter():
        y.zero_()
        for column in columns:
            y.index_copy_(0, column, x)

    def gather():  # as upstream
        source = torch.full((len(y),), len(x))
        source[rows] = torch.arange(len(x)).unsqueeze(1)
        torch.index_select(torch.cat([x, x.new_zeros(1, x.shape[1])]), 0, source, out=y)

    return [scatter, gather]


def moe_combine(y, weights, slots, x, normalize):
    rows = slots.long().clamp(min=0)
    columns = [c.contiguous() for c in rows.unbind(1)]
    scales = [w.unsqueeze(1).to(y.dtype) for w in weights.unbind(1)]

    def in_turn():
        torch.mul(y[columns[0]], scales[0], out=x)
        for column, scale in zip(columns[1:], scales[1:]):
            x.addcmul_(y[column], scale)

    return [in_turn, lambda: torch.bmm(weights.unsqueeze(1).to(y.dtype), y[rows]),
            lambda: F.embedding_bag(rows, y, mode="sum", per_sample_weights=weights.to(y.dtype))]


def moe_combine_backward(dx, y, weights, slots, dy, dweights, normalize):
    columns = [c.contiguous() for c in slots.long().clamp(min=0).unbind(1)]

    def in_turn():
        dy.zero_()
        for k, column in enumerate(columns):
            dy.index_copy_(0, column, dx * weights[:, k:k + 1].to(dx.dtype))
            dweights[:, k] = torch.linalg.vecdot(dx, y[column])

    return [in_turn]
