"""Steps of PyTorch's optimizers, in f64 from rounded inputs."""
import torch

from golden import call, write

torch.manual_seed(2)
calls = []


def numbers(*shape, dtype=torch.float32, square=False):
    x = torch.randn(*shape)
    return (x * x + 0.01 if square else x).to(dtype)


def stepped(kind, params, grads, state, made=(), **settings):
    """Parameters, and the states called `made`, after a step of a PyTorch optimizer in f64."""
    leaves = [p.double().requires_grad_() for p in params]
    for leaf, grad in zip(leaves, grads):
        leaf.grad = grad.double()
    optimizer = kind(leaves, **settings)
    for i, leaf in enumerate(leaves):
        optimizer.state[leaf].update({k: v[i].double().clone() for k, v in state.items()})
    optimizer.step()
    after = [[optimizer.state[leaf][k].float() for leaf in leaves] for k in made]
    return [leaf.detach().float() for leaf in leaves], *after


shapes = [(3, 7), (1,), (0,), (41,)]
p, g, m = ([numbers(*s) for s in shapes] for _ in range(3))
v = [numbers(*s, square=True) for s in shapes]

for nesterov, dampening, weight_decay in [(False, 0.0, 0.0), (False, 0.3, 0.1), (True, 0.0, 0.1)]:
    settings = {"lr": 0.05, "momentum": 0.9, "dampening": dampening, "weight_decay": weight_decay}
    for step, state in ((1, {}), (2, {"momentum_buffer": m})):
        params, buffers = stepped(torch.optim.SGD, p, g, state, ["momentum_buffer"], nesterov=nesterov, **settings)
        calls.append(call("sgd_momentum_step", f"nesterov {nesterov}, dampening {dampening}, step {step}",
                          {"params": p, "grads": g, "momentum_buffer": m},
                          {"params": params, "momentum_buffer": buffers},
                          {"nesterov": nesterov}, {**settings, "step": step}))
(params,) = stepped(torch.optim.SGD, p, g, {}, lr=0.05, weight_decay=0.1)
calls.append(call("sgd_step", "", {"params": p, "grads": g}, {"params": params},
                  scalars={"lr": 0.05, "weight_decay": 0.1}))

for weight_decay in (0.0, 0.1):
    params, sums = stepped(torch.optim.Adagrad, p, g, {"sum": v}, ["sum"], lr=0.05, weight_decay=weight_decay)
    calls.append(call("adagrad_step", f"weight decay {weight_decay}", {"params": p, "grads": g, "exp_avg_sq": v},
                      {"params": params, "exp_avg_sq": sums},
                      scalars={"lr": 0.05, "eps": 1e-10, "weight_decay": weight_decay}))

# An embedding, whose sparse gradient PyTorch coalesces by itself.
table, sums = numbers(9, 5), numbers(9, 5, square=True)
indices, rows = torch.tensor([4, 1, 4, 8, 4, 0]), numbers(6, 5)
leaf = table.double().requires_grad_()
leaf.grad = torch.sparse_coo_tensor(indices[None], rows.double(), (9, 5))
optimizer = torch.optim.Adagrad([leaf], lr=0.05)
optimizer.state[leaf]["sum"] = sums.double().clone()
optimizer.step()
for dtype in (torch.int64, torch.int32):
    calls.append(call("adagrad_step_sparse", f"{dtype}",
                      {"param": table, "indices": indices.to(dtype), "values": rows, "exp_avg_sq": sums},
                      {"param": leaf.detach().float(), "exp_avg_sq": optimizer.state[leaf]["sum"].float()},
                      scalars={"lr": 0.05, "eps": 1e-10, "weight_decay": 0.0}))

# Norms and clipping; PyTorch's coefficient from a norm in f64.
total = torch.cat([x.double().flatten() for x in g]).norm()
calls.append(call("grad_norm", "", {"grads": g}, {"norm": total.float(), "found_inf": torch.tensor(0.0)}))
for max_norm in (0.5, 1e3):
    clipped = [x.double().requires_grad_() for x in g]
    for x in clipped:
        x.grad = x.detach().clone()
    torch.nn.utils.clip_grad_norm_(clipped, max_norm)
    calls.append(call("grad_clip", f"to {max_norm}", {"grads": g, "norm": total.float()},
                      {"grads": [x.grad.float() for x in clipped]}, scalars={"max_norm": max_norm, "factor": 1.0},
                      tolerance=(5e-7, 1e-44), because="the norm that is given is rounded to f32"))
write(calls)
