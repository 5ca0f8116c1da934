import torch
import torch.nn.functional as F

FUNCTIONS = {0: lambda x: x, 2: F.gelu}


def quantized_linear(x, q, params, bias, residual, y, kind):
    """The weight made whole, then a product; and, where there is one, the product straight from codes."""
    rows, groups, width, per_byte = x.shape
    columns, f = q.shape[0], FUNCTIONS[kind]
    flat = x.reshape(rows, -1)
    step, offset = (params[..., i : i + 1].to(x.dtype) for i in (0, 1))
    whole = torch.empty(columns, groups, width, per_byte, dtype=x.dtype)

    def expanded():
        if per_byte == 1:
            torch.addcmul(offset, q.to(x.dtype), step, out=whole.view(q.shape))
        else:
            low, high = (q << 4) >> 4, q >> 4
            for i, codes in enumerate((low, high)):
                torch.addcmul(offset, codes.to(x.dtype), step, out=whole[..., i])
        return f(F.linear(flat, whole.view(columns, -1), bias)).add_(residual)

    forms = [expanded]
    if per_byte == 1 and groups == 1:
        codes, scales = q.view(columns, -1), step.flatten()
        forms.append(lambda: f(torch._weight_int8pack_mm(flat, codes, scales).add_(bias)).add_(residual))
    if per_byte == 2 and width * 2 in (32, 64, 128, 256):
        codes = torch.randint(0, 16, (columns, groups * width * 2), dtype=torch.int32)
        packed = torch.ops.aten._convert_weight_to_int4pack_for_cpu(codes, 1)
        scales = params.transpose(0, 1).to(x.dtype).contiguous()
        product = torch.ops.aten._weight_int4pack_mm_for_cpu
        forms.append(lambda: f(product(flat, packed, width * 2, scales).add_(bias)).add_(residual))
    return forms


def fp_linear(x, codes, step, bias, residual, y, kind, mantissa):
    """PyTorch has no product of such weights, nor formats but those of 8 bits, which it makes whole."""
    rows, groups, parts, per = x.shape
    if codes.shape[3] != per:
        return []
    narrow = codes.view(torch.float8_e4m3fn if mantissa == 3 else torch.float8_e5m2)
    flat, f, scale = x.reshape(rows, -1), FUNCTIONS[kind], step[..., None, None].to(x.dtype)
    whole = torch.empty(codes.shape, dtype=x.dtype)

    def expanded():
        torch.mul(narrow.to(x.dtype), scale, out=whole)
        return f(F.linear(flat, whole.view(len(whole), -1), bias)).add_(residual)

    return [expanded]
