"""PyTorch's f32 arithmetic in the order that the schema tells: no kernel of DeepSpeed's runs on a CPU."""
import torch

from golden import call, write

torch.manual_seed(2)


def pack(q, bits):
    if bits == 8:
        return q.to(torch.int8)
    low, high = q.to(torch.int8)[..., 0::2], q.to(torch.int8)[..., 1::2]
    return (low & 0xF) | (high << 4)


calls = []
for dtype in (torch.float32, torch.bfloat16, torch.float16):
    for bits, symmetric in ((8, True), (4, True), (8, False), (4, False)):
        x = torch.randn(3, 38).to(dtype)
        x[1] += 3
        x[2, :] = 0
        v, levels = x.float(), 2.0 ** (bits - 1)
        low, high = v.amin(1, keepdim=True), v.amax(1, keepdim=True)
        offset = torch.zeros_like(low) if symmetric else 0.5 * high + 0.5 * low
        reach = v.abs().amax(1, keepdim=True) if symmetric else 0.5 * high - 0.5 * low
        scale = torch.where(reach == 0, torch.ones_like(reach), levels / reach)
        q = torch.round((v - offset) * scale).clamp(-levels, levels - 1)
        params = torch.cat((1 / scale, offset), 1)
        y = q * params[:, :1] + offset
        name, per_byte = f"{dtype} {bits} bits, symmetric {symmetric}", 8 // bits
        packed = pack(q, bits)
        calls.append(call("quantize", name, {"x": x.view(3, -1, per_byte)}, {"q": packed, "params": params},
                          {"symmetric": symmetric}))
        calls.append(call("dequantize", name,
                          {"q": packed, "params": params, "y": torch.zeros(3, 38 // per_byte, per_byte, dtype=dtype)},
                          {"y": y.to(dtype).view(3, -1, per_byte)}))
        calls.append(call("fake_quantize", name, {"x": x}, {"y": y.to(dtype)},
                          {"bits": bits, "symmetric": symmetric}))
write(calls)
