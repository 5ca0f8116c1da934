import torch


def adam_step(params, grads, exp_avg, exp_avg_sq, found_inf, lr, beta1, beta2, eps, weight_decay, step, adamw,
              bias_correction):
    if params[0].dtype != exp_avg[0].dtype or not bias_correction:
        return []
    for p, g in zip(params, grads):
        p.grad = g
    kind = torch.optim.AdamW if adamw else torch.optim.Adam
    return [kind(params, lr, (beta1, beta2), eps, weight_decay, fused=True).step]
