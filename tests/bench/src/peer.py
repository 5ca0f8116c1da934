"""PyTorch and DeepSpeed, asked over stdin (peer.rs)."""
import os, sys, time

answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)  # what libraries print is no answer

import torch
import torch.nn.functional as F

torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
torch.manual_seed(0)
DTYPES = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}


def parameter(dtype, elements):
    p = torch.nn.Parameter(torch.randn(elements).to(DTYPES[dtype]))
    p.grad = torch.randn(elements).to(DTYPES[dtype])
    return p


def torch_adam(param, state, elements):
    if param != state:
        raise ValueError("torch keeps its state in the parameter's dtype")
    return torch.optim.AdamW([parameter(param, int(elements))], fused=True).step


def deepspeed_adam(param, state, elements):
    from deepspeed.ops.adam import DeepSpeedCPUAdam

    keep = param == "f32" or state == "f32"
    return DeepSpeedCPUAdam([parameter(param, int(elements))], fp32_optimizer_states=keep).step


def rms_norm(direction, dtype, rows, d):
    x = torch.randn(int(rows), int(d)).to(DTYPES[dtype])
    weight = torch.randn(int(d)).to(DTYPES[dtype])
    if direction == "forward":
        return lambda: F.rms_norm(x, (int(d),), weight, 1e-6)
    x.requires_grad_(), weight.requires_grad_()
    y, dy = F.rms_norm(x, (int(d),), weight, 1e-6), torch.randn_like(x)
    return lambda: torch.autograd.grad(y, (x, weight), dy, retain_graph=True)


def matmul(dtype, n):
    a, b = (torch.randn(int(n), int(n)).to(DTYPES[dtype]) for _ in range(2))
    return lambda: a @ b


WORKS = {f.__name__: f for f in (torch_adam, deepspeed_adam, rms_norm, matmul)}

call = None
for line in sys.stdin:
    verb, *args = line.split()
    try:
        if verb == "setup":
            call = WORKS[args[0]](*args[1:])
            answer = 0
        else:
            call()
            start = time.perf_counter()
            for _ in range(int(args[0])):
                call()
            answer = (time.perf_counter() - start) / int(args[0])
    except Exception as e:
        answer = f"error: {type(e).__name__}: {e}".replace("\n", " ")
    print(answer, file=answers, flush=True)
