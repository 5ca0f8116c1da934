"""Steps of DeepSpeed's own kernels where they run on a CPU, in f32. It compiles them first: minutes."""
import torch
from deepspeed.ops.op_builder import CPUAdamBuilder, CPULionBuilder

from golden import call, write

torch.manual_seed(3)
calls = []
shapes = [(3, 7), (1,), (41,)]
p, g, m = ([torch.randn(s) for s in shapes] for _ in range(3))
v = [torch.randn(s).square() + 0.01 for s in shapes]
lion = CPULionBuilder().load()
for weight_decay in (0.0, 0.1):
    params, means = ([x.clone() for x in tensors] for tensors in (p, m))
    lion.create_lion(0, 0.05, 0.9, 0.99, weight_decay, False)
    for param, grad, mean in zip(params, g, means):
        lion.lion_update(0, 1, 0.05, 0.9, 0.99, weight_decay, param, grad, mean)
    calls.append(call("lion_step", f"weight decay {weight_decay}", {"params": p, "grads": g, "exp_avg": m},
                      {"params": params, "exp_avg": means},
                      scalars={"lr": 0.05, "beta1": 0.9, "beta2": 0.99, "weight_decay": weight_decay}))
adam = CPUAdamBuilder().load()
for weight_decay in (0.0, 0.1):
    params, means, squares = ([x.clone() for x in tensors] for tensors in (p, m, v))
    adam.create_adam(0, 0.05, 0.9, 0.999, 1e-8, weight_decay, True, False)
    for param, grad, mean, square in zip(params, g, means, squares):
        adam.adam_rollback(0, 3, 0.05, 0.9, 0.999, 1e-8, weight_decay, True, param, grad, mean, square)
    # Upstream leaves second moments that rounding or a large gradient makes negative.
    squares = [x.clamp(min=0) for x in squares]
    calls.append(call("adam_rollback", f"weight decay {weight_decay}",
                      {"params": p, "grads": g, "exp_avg": m, "exp_avg_sq": v},
                      {"params": params, "exp_avg": means, "exp_avg_sq": squares},
                      scalars={"lr": 0.05, "beta1": 0.9, "beta2": 0.999, "eps": 1e-8,
                               "weight_decay": weight_decay, "step": 3},
                      tolerance=(1e-4, 1e-5), because="1 - beta^step in f32 cancels"))
write(calls)
