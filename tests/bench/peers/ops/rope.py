import torch


def rope(x, cos, sin, positions, y, offset, inverse, interleaved):
    """The forms of the usual model code; PyTorch has no op for it."""
    if positions is not None or inverse or offset:
        return []
    n = 2 * cos.shape[1]
    if n != x.shape[-1]:
        return []
    c, s = (t[None, :, None].to(x.dtype) for t in (cos, sin))
    if interleaved:
        a, b, to_a, to_b = x[..., 0::2], x[..., 1::2], y[..., 0::2], y[..., 1::2]
    else:
        a, b, to_a, to_b = x[..., :n // 2], x[..., n // 2:], y[..., :n // 2], y[..., n // 2:]

    def halves():
        torch.mul(a, c, out=to_a).addcmul_(b, s, value=-1)
        torch.mul(b, c, out=to_b).addcmul_(a, s)

    forms = [halves]
    if interleaved and x.dtype == torch.float32:
        turn = torch.complex(cos, sin)[None, :, None]
        points = torch.view_as_complex(x.view(*x.shape[:-1], -1, 2))
        result = torch.view_as_complex(y.view(*y.shape[:-1], -1, 2))
        forms.append(lambda: torch.mul(points, turn, out=result))
    return forms
