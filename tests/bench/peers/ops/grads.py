import torch


def grad_norm(grads, norm, found_inf):
    # Whether all are finite is one more look at the norm.
    return [lambda: torch.nn.utils.get_total_norm(grads, foreach=True).isfinite(),
            lambda: torch.linalg.vector_norm(grads[0], dtype=torch.float32).isfinite()]


def grad_scale(grads, by, factor):
    return [lambda: torch._foreach_mul_(grads, factor), lambda: grads[0].mul_(factor)]


def grad_clip(grads, norm, max_norm, factor):
    def clip():
        by = torch.clamp(max_norm / (norm + 1e-6), max=1.0)
        torch._foreach_mul_(grads, by)

    def clip_one():
        grads[0].mul_(torch.clamp(max_norm / (norm + 1e-6), max=1.0))

    return [clip, clip_one]
