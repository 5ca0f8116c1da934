"""PyTorch has no op for it: halves by the formula of Llama in `transformers`, neighbours as a product
of complex numbers, as in Meta's Llama."""
import torch

from golden import call, write

torch.manual_seed(1)
theta, rotary, d = 10000.0, 12, 16
frequencies = theta ** (-torch.arange(0, rotary, 2, dtype=torch.float64) / rotary)
angles = torch.arange(4100, dtype=torch.float64)[:, None] * frequencies
# The tables of a few positions; 4095 is the one that upstream's test asks for.
rows = torch.tensor([0, 1, 7, 100, 4095])
cos, sin = angles[rows].cos(), angles[rows].sin()
positions = torch.tensor([[4, 0, 2], [1, 3, 4]])
calls = []
for dtype in (torch.float32, torch.bfloat16, torch.float16):
    x = torch.randn(2, 3, 2, d).to(dtype)
    x64, rest = x.double()[..., :rotary], x[..., rotary:]
    c, s = (t.float().double()[positions][:, :, None] for t in (cos, sin))
    for inverse in (False, True):
        turn = torch.complex(c, -s if inverse else s)
        neighbours = torch.view_as_real(torch.view_as_complex(x64.unflatten(-1, (-1, 2)).contiguous()) * turn).flatten(-2)
        signed = -s if inverse else s
        turned = torch.cat([-x64[..., rotary // 2:], x64[..., :rotary // 2]], -1)
        halves = x64 * torch.cat([c, c], -1) + turned * torch.cat([signed, signed], -1)
        for name, y, interleaved in (("neighbours", neighbours, True), ("halves", halves, False)):
            given = {"x": x, "cos": cos.float(), "sin": sin.float(), "positions": positions}
            calls.append(call("rope", f"{dtype}, {name}, inverse {inverse}", given,
                              {"y": torch.cat([y.to(dtype), rest], -1)}, {"interleaved": interleaved},
                              {"inverse": inverse}))
write(calls)
