import torch


def foreach(kind, params, grads, state, **settings):
    """A step of `kind`, fused where PyTorch has that on a CPU; nothing for states of another dtype."""
    if state and state[0].dtype != params[0].dtype:
        return []
    for p, g in zip(params, grads):
        p.grad = g
    forms = []
    for form in ("fused", "foreach"):
        try:
            optimizer = kind(params, **settings, **{form: True})
            optimizer.step()
            forms.append(optimizer.step)
        except (RuntimeError, TypeError):
            pass
    return forms


def sgd_step(params, grads, found_inf, lr, weight_decay):
    return foreach(torch.optim.SGD, params, grads, [], lr=lr, weight_decay=weight_decay)


def sgd_momentum_step(params, grads, momentum_buffer, found_inf, lr, momentum, dampening, weight_decay, step,
                      nesterov):
    return foreach(torch.optim.SGD, params, grads, momentum_buffer, lr=lr, momentum=momentum, dampening=dampening,
                   weight_decay=weight_decay, nesterov=nesterov)


def adagrad_step(params, grads, exp_avg_sq, found_inf, lr, eps, weight_decay):
    return foreach(torch.optim.Adagrad, params, grads, exp_avg_sq, lr=lr, eps=eps, weight_decay=weight_decay)


def adagrad_step_sparse(param, indices, values, exp_avg_sq, found_inf, lr, eps, weight_decay):
    if param.dtype != exp_avg_sq.dtype or indices.dtype != torch.int64:
        return []
    optimizer = torch.optim.Adagrad([param], lr=lr, eps=eps)
    grad = torch.sparse_coo_tensor(indices[None], values, param.shape)

    def step():
        param.grad = grad
        optimizer.step()

    return [step]


def lion_step(params, grads, exp_avg, found_inf, lr, beta1, beta2, weight_decay):
    if params[0].dtype != exp_avg[0].dtype:
        return []

    def step():
        update = torch._foreach_lerp(grads, exp_avg, beta1)
        torch._foreach_sign_(update)
        torch._foreach_mul_(params, 1 - lr * weight_decay)
        torch._foreach_add_(params, update, alpha=-lr)
        torch._foreach_lerp_(exp_avg, grads, 1 - beta2)

    return [step]


def lamb_step(params, grads, exp_avg, exp_avg_sq, found_inf, ratios, lr, beta1, beta2, eps, weight_decay, max_coeff,
              min_coeff, grad_scale, step, eps_inside_sqrt, bias_correction):
    if grads[0].dtype != params[0].dtype:
        return []

    def one():
        for p, g, m, v in zip(params, grads, exp_avg, exp_avg_sq):
            m.lerp_(g, 1 - beta1)
            v.mul_(beta2).addcmul_(g, g, value=1 - beta2)
            u = torch.addcdiv(p * weight_decay, m, v.sqrt().add_(eps))
            ratio = torch.clamp(p.norm() / u.norm(), min_coeff, max_coeff)
            p.addcmul_(u, ratio, value=-lr)

    return [one]


def muon_momentum(grad, momentum, found_inf, update, beta, nesterov):
    if grad.dtype != momentum.dtype:
        return []

    def blend():
        momentum.lerp_(grad, 1 - beta)
        torch.lerp(grad, momentum, beta, out=update)

    return [blend]


def muon_normalize(x, norm, y, eps):
    return [lambda: torch.div(x, norm + eps, out=y) if x.dtype == y.dtype else y.copy_(x).div_(norm + eps)]


def muon_combine(x, y, z, a, b):
    return [lambda: torch.add(torch.mul(x, a, out=z), y, alpha=b, out=z)]


def muon_apply(param, update, found_inf, lr, weight_decay, scale):
    def apply():
        param.mul_(1 - lr * weight_decay)
        param.add_(update, alpha=-lr * scale)

    return [apply]
