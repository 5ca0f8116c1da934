import torch

# PyTorch has no 4-, 6- or 12-bit floats; its e4m3 ends at 448 and is as much work.


def fp_quantize(x, codes, step, seed, offset, mantissa, stochastic):
    groups, _, per = x.shape
    if per != 1 or codes.shape[2] != 1 or stochastic:
        return []
    flat, scaled = x.view(groups, -1), torch.empty(groups, x.shape[1])
    out = codes.view(groups, -1).view(torch.float8_e4m3fn if mantissa == 3 else torch.float8_e5m2)

    def run():
        low, high = torch.aminmax(flat, dim=1, keepdim=True)
        most = torch.maximum(-low, high).float()
        torch.mul(flat, 448 / most, out=scaled)
        out.copy_(scaled)
        step.copy_(most.flatten() / 448)

    return [run]


def fp_dequantize(codes, step, y, mantissa):
    groups, _, per = y.shape
    if per != 1:
        return []
    narrow = codes.view(groups, -1).view(torch.float8_e4m3fn if mantissa == 3 else torch.float8_e5m2)
    out = y.view(groups, -1)
    wide = torch.empty(out.shape)
    return [lambda: out.copy_(narrow).mul_(step[:, None]),
            lambda: out.copy_(wide.copy_(narrow).mul_(step[:, None]))]


def fp_selective_dequantize(codes, step, index, y, mantissa):
    if y.shape[3] != 1:
        return []
    kind = torch.float8_e4m3fn if mantissa == 3 else torch.float8_e5m2

    def run():
        y.copy_(codes.index_select(0, index).view(kind)).mul_(step.index_select(0, index)[:, :, None, None])

    return [run]
