import torch
import torch.nn.functional as F

from golden import call, write

torch.manual_seed(1)
calls = []
for dtype in (torch.float32, torch.bfloat16, torch.float16):
    weight = (torch.randint(-64, 64, (11, 19)) / 8).to(dtype)  # exact in any dtype, and as text
    indices = torch.randint(0, 11, (3, 7))
    calls.append(call("embedding", f"{dtype}", {"weight": weight, "indices": indices},
                      {"y": F.embedding(indices, weight)}))
    dy = torch.randn(3, 7, 19).to(dtype)
    for padding in (-1, 4):
        dweight = torch.ops.aten.embedding_dense_backward(dy.double(), indices, 11, padding, False)
        calls.append(call("embedding_backward", f"{dtype}, padding {padding}",
                          {"dy": dy, "indices": indices.int(), "dweight": torch.full_like(weight, 3)},
                          {"dweight": dweight.to(dtype)}, scalars={"padding_idx": padding}))
write(calls)
