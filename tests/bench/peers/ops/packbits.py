import torch

WEIGHTS = torch.tensor([128, 64, 32, 16, 8, 4, 2, 1], dtype=torch.uint8)
SHIFTS = torch.tensor([7, 6, 5, 4, 3, 2, 1, 0], dtype=torch.uint8)


def packbits(x, bits):
    def flags():
        return x.ge(0) if x.is_floating_point() else x.ne(0)

    def shifted():
        f = flags().view(torch.uint8)
        out = f[:, 0] << 7
        for i in range(1, 8):
            out |= f[:, i] << (7 - i)
        bits.copy_(out)

    return [lambda: bits.copy_((flags() * WEIGHTS).sum(1, dtype=torch.uint8)), shifted]


def unpackbits(bits, x, signs):
    def run():
        flags = torch.bitwise_right_shift(bits[:, None], SHIFTS).bitwise_and_(1)
        x.copy_(flags)
        if signs:
            x.mul_(2).sub_(1)

    return [run]
