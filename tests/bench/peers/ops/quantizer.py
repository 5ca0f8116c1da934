import torch


def ranges(x, symmetric, levels):
    """Step and offset of each group of `x`, [G, N]."""
    low, high = torch.aminmax(x, dim=1, keepdim=True)
    low, high = low.float(), high.float()
    reach = torch.maximum(-low, high) if symmetric else 0.5 * (high - low)
    offset = torch.zeros_like(reach) if symmetric else 0.5 * (high + low)
    return reach / levels, offset


def quantize(x, q, params, symmetric):
    groups, _, per_byte = x.shape
    levels = 128 if per_byte == 1 else 8
    flat = x.reshape(groups, -1)
    rounded = torch.empty(flat.shape)
    narrow = torch.empty(flat.shape, dtype=torch.int8)

    def composed():
        step, offset = ranges(flat, symmetric, levels)
        if symmetric:
            torch.mul(flat, 1 / step, out=rounded)
        else:
            torch.sub(flat, offset, out=rounded).mul_(1 / step)
        rounded.round_().clamp_(-levels, levels - 1)
        if per_byte == 1:
            q.copy_(rounded.view(q.shape))
        else:
            narrow.copy_(rounded)
            torch.bitwise_or(narrow[:, 0::2] & 15, narrow[:, 1::2] << 4, out=q)
        params[:, :1], params[:, 1:] = step, offset

    def per_channel():
        step, _ = ranges(flat, True, levels)
        torch.quantize_per_channel(flat, step.flatten(), torch.zeros(groups), 0, torch.qint8)

    fused = [per_channel] if per_byte == 1 and symmetric and x.dtype == torch.float32 else []
    return [composed, *fused]


def swizzle_quantize(x, q, params, symmetric):
    m, d, l, c, h, p = x.shape
    ordered = x.permute(2, 1, 0, 3, 4, 5)
    run = quantize(torch.empty(l * d * m * c, h, p, dtype=x.dtype), q.view(-1, h), params.view(-1, 2), symmetric)[0]
    return [lambda: (ordered.contiguous(), run())]


def dequantize(q, params, y):
    groups, _, per_byte = y.shape
    step, offset = params[:, :1].contiguous(), params[:, 1:].contiguous()
    out = y.view(groups, -1)

    def composed():
        if per_byte == 1:
            out.copy_(q)
        else:
            y[:, :, 0] = (q << 4) >> 4
            y[:, :, 1] = q >> 4
        out.mul_(step).add_(offset)

    return [composed, *([lambda: torch.addcmul(offset, q, step)] if per_byte == 1 else [])]


def fake_quantize(x, y, seed, offset, bits, symmetric, stochastic):
    levels = 1 << (bits - 1)
    zero = torch.zeros(x.shape[0], dtype=torch.int32)
    scratch, noise = torch.empty(x.shape), torch.empty(x.shape)

    def fused():
        step, _ = ranges(x, True, levels)
        torch.fake_quantize_per_channel_affine(x, step.flatten(), zero, 0, -levels, levels - 1)

    def composed():
        step, middle = ranges(x, symmetric, levels)
        torch.sub(x, middle, out=scratch).mul_(1 / step)
        if stochastic:
            scratch.add_(noise.uniform_()).floor_()
        else:
            scratch.round_()
        y.copy_(scratch.clamp_(-levels, levels - 1).mul_(step).add_(middle))

    return [composed, *([fused] if symmetric and not stochastic else [])]


def quantized_reduction(q, params, out, out_params, bits, symmetric):
    devices, groups, bytes_ = q.shape
    step, middle = params[..., :1].contiguous(), params[..., 1:].contiguous()
    per_byte = 8 // bits
    total = torch.empty(groups, bytes_ * per_byte)
    one = torch.empty(groups, bytes_ * per_byte)
    requantise = quantize(total.view(groups, bytes_, per_byte), out, out_params, symmetric)

    def run():
        total.zero_()
        for d in range(devices):
            if per_byte == 1:
                one.copy_(q[d])
            else:
                one[:, 0::2], one[:, 1::2] = (q[d] << 4) >> 4, q[d] >> 4
            total.add_(one.mul_(step[d]).add_(middle[d]))
        requantise[0]()

    return [run]
