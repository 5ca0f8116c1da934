"""PyTorch and DeepSpeed, asked over stdin (peer.rs)."""
import json, os, sys, time

answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)  # what libraries print is no answer
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import torch

import ops

torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
torch.manual_seed(0)


def parameter(dtype, elements):
    p = torch.nn.Parameter(torch.randn(elements).to(ops.DTYPES[dtype]))
    p.grad = torch.randn(elements).to(ops.DTYPES[dtype])
    return p


def torch_adam(param, state, elements):
    if param != state:
        raise ValueError("torch keeps its state in the parameter's dtype")
    return torch.optim.AdamW([parameter(param, int(elements))], fused=True).step


def deepspeed_adam(param, state, elements):
    from deepspeed.ops.adam import DeepSpeedCPUAdam

    keep = param == "f32" or state == "f32"
    return DeepSpeedCPUAdam([parameter(param, int(elements))], fp32_optimizer_states=keep).step


def matmul(dtype, n):
    a, b = (torch.randn(int(n), int(n)).to(ops.DTYPES[dtype]) for _ in range(2))
    return lambda: a @ b


def sentence_encoder(*call):
    import sentence_encoder

    return ops.fastest_of(sentence_encoder.forms(**json.loads(" ".join(call))))


def sentence_transformers(*call):
    import sentence_encoder

    return sentence_encoder.package(**json.loads(" ".join(call)))


def op(*call):
    return ops.fastest(json.loads(" ".join(call)))


WORKS = {f.__name__: f for f in (torch_adam, deepspeed_adam, matmul, sentence_encoder, sentence_transformers, op)}

call = None
for line in sys.stdin:
    verb, *args = line.split()
    try:
        if verb == "setup":
            call = None  # what it holds goes before there is more
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
