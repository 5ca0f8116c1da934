"""DeepSpeed's aio handle, asked over stdin (io/upstream.rs).

A line is `KIND DIRECTION BYTES BLOCK DEPTH PATH`, its answer seconds and CPU seconds; `ready` answers
when the extension is there, which is built the first time.
"""
import functools, os, sys, time

answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)  # what libraries print is no answer

import torch
from deepspeed.ops.op_builder import AsyncIOBuilder

aio = AsyncIOBuilder().load(verbose=False)


@functools.cache
def handle(block, depth):
    single_submit, overlap_events, intra_op_parallelism = False, True, 1
    return aio.aio_handle(block, depth, single_submit, overlap_events, intra_op_parallelism)


@functools.cache
def tensor(kind, size):
    if kind == "pinned":
        made = handle(1 << 20, 8).new_cpu_locked_tensor(size, torch.empty(0, dtype=torch.uint8))
    else:
        made = torch.empty(size, dtype=torch.uint8)
    made.view(torch.int64).random_()
    return made


def run(kind, direction, size, block, depth, path):
    of, by = tensor(kind, int(size)), handle(int(block), int(depth))
    move = by.sync_pwrite if direction == "write" else by.sync_pread
    start, before = time.perf_counter(), os.times()
    moved = move(of, path)
    seconds, after = time.perf_counter() - start, os.times()
    if moved != 1:
        raise OSError(f"the handle answers {moved}")
    return f"{seconds} {after.user + after.system - before.user - before.system}"


for line in sys.stdin:
    try:
        answer = "0" if line.strip() == "ready" else run(*line.strip().split(" ", 5))
    except Exception as e:
        answer = f"error: {type(e).__name__}: {e}".replace("\n", " ")
    print(answer, file=answers, flush=True)
