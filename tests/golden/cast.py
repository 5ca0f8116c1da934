import torch

from golden import call, write

calls = []
FLOATS = (torch.float32, torch.bfloat16, torch.float16)
OTHERS = (torch.float64, torch.float8_e4m3fn, torch.float8_e5m2, torch.int8, torch.uint8, torch.int16, torch.int32, torch.int64, torch.bool)
for a in FLOATS + OTHERS:
    for b in FLOATS + OTHERS:
        # Within every range: beyond it PyTorch's answer depends on the machine.
        x = torch.tensor([0, 1, 3, 100] if a in (torch.uint8, torch.bool) else [0, 1, -1, 3, 100, -100])
        if a.is_floating_point:
            x = torch.cat([x, torch.tensor([0.99, 2.5, 100.7] + ([-0.99, -100.7] if b != torch.uint8 else []))])
            x = x[x >= 0] if b == torch.uint8 else x
        calls.append(call("cast", f"{a} to {b}", {"x": x.to(a)}, {"y": x.to(a).to(b)}))
write(calls)
