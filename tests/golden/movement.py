import torch

from golden import call, write

torch.manual_seed(2)
calls = []
for dtype in (torch.float32, torch.bfloat16, torch.float16):
    # Without equal ones: which of them PyTorch gives is not defined.
    distinct = torch.stack([torch.randperm(60) for _ in range(3)]).to(dtype)
    distinct[1, 40] = float("nan")
    values, indices = torch.topk(distinct, 9)
    calls.append(call("top_k", f"{dtype}", {"x": distinct, "values": values * 0, "indices": indices * 0},
                      {"values": values, "indices": indices}))
    index = torch.tensor([3, 0, 3, 1])
    table, terms = torch.randn(4, 6), torch.randn(4, 6).to(dtype)
    calls.append(call("index_select", f"{dtype}", {"x": terms, "index": index}, {"y": terms.index_select(0, index)}))
    calls.append(call("scatter_add", f"{dtype}", {"y": table, "index": index, "x": terms},
                      {"y": table.index_add(0, index, terms.float())}))
write(calls)
