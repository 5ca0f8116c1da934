"""As Hugging Face's warpers do it, and the shorter way over the greatest ones where top-k allows it."""
import torch


def sample(logits, tokens, logprobs, seed, offset, temperature, top_k, top_p):
    def draw(x):
        return torch.multinomial(torch.softmax(x, -1), 1)

    def nucleus(x):
        values, order = torch.sort(x, descending=False)
        drop = torch.softmax(values, -1).cumsum(-1) <= 1 - top_p
        drop[:, -1] = False
        return x.masked_fill(drop.scatter(1, order, drop), -float("inf"))

    def all_of_it():
        return draw(logits.float() / temperature)

    def greatest_ones():
        values, order = torch.topk(logits, top_k)
        values = values.float() / temperature
        if top_p < 1:  # topk sorts from the greatest on
            chances = torch.softmax(values, -1)
            values = values.masked_fill(chances.cumsum(-1) - chances >= top_p, -float("inf"))
        return order.gather(1, draw(values))

    if top_k > 0:
        return [greatest_ones]
    return [all_of_it] if top_p >= 1 else [lambda: draw(nucleus(logits.float() / temperature))]
