import torch
import torch.nn.functional as F

from golden import call, write

torch.manual_seed(1)
calls = []
targets = torch.tensor([0, 36, -100, 7, 7])
for dtype in (torch.float32, torch.bfloat16, torch.float16):
    logits, dloss = torch.randn(5, 37).to(dtype), torch.randn(5)
    for smoothing in (0.0, 0.1):
        # In f64 from the rounded inputs: PyTorch's own 16-bit results carry roundings of their own.
        x = logits.double().requires_grad_()
        loss = F.cross_entropy(x, targets, reduction="none", label_smoothing=smoothing)
        dlogits, = torch.autograd.grad(loss, x, dloss.double(), retain_graph=True)
        lse = torch.logsumexp(x, -1).float()
        scalars = {"label_smoothing": smoothing}
        name = f"{dtype}, smoothing {smoothing}"
        calls.append(call("cross_entropy", name, {"logits": logits, "targets": targets},
                          {"loss": loss.float(), "lse": lse}, scalars=scalars))
        calls.append(call("cross_entropy_backward", name,
                          {"dloss": dloss, "logits": logits, "targets": targets, "lse": lse},
                          {"dlogits": dlogits.to(dtype)}, scalars={"vocabulary": 37, **scalars}))
    mean = F.cross_entropy(logits.double(), targets).float()
    loss = F.cross_entropy(logits.double(), targets, reduction="none").float()
    calls.append(call("cross_entropy_mean", f"{dtype}", {"loss": loss, "targets": targets},
                      {"mean": mean, "weight": torch.tensor(1 / 4)}))
write(calls)
