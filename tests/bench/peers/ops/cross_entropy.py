import torch
import torch.nn.functional as F


def cross_entropy(logits, targets, loss, lse, ignore_index, label_smoothing):
    options = {"ignore_index": ignore_index, "label_smoothing": label_smoothing, "reduction": "none"}
    return [lambda: F.cross_entropy(logits, targets, **options)]


def cross_entropy_backward(dloss, logits, targets, lse, dlogits, vocabulary, offset, ignore_index, label_smoothing,
                           scale):
    if vocabulary != logits.shape[1]:
        return []
    logits.requires_grad_()
    options = {"ignore_index": ignore_index, "label_smoothing": label_smoothing, "reduction": "none"}
    loss = F.cross_entropy(logits, targets, **options)
    dloss = dloss.to(loss.dtype)
    return [lambda: torch.autograd.grad(loss, logits, dloss, retain_graph=True)]


def cross_entropy_mean(loss, targets, mean, weight, ignore_index):
    def run():
        kept = targets != ignore_index
        return loss.masked_fill(~kept, 0).sum() / kept.sum()
    return [run]
