"""The sentence encoder's model in plain PyTorch, from the same file and for the same tokens."""
import json, math, struct

import torch
import torch.nn.functional as F


def tensors(path):
    """Those of a safetensors file that are f32."""
    with open(path, "rb") as f:
        header = json.loads(f.read(struct.unpack("<Q", f.read(8))[0]))
        data = bytearray(f.read())
    return {name: torch.frombuffer(data, dtype=torch.float32, offset=t["data_offsets"][0], count=math.prod(t["shape"])).reshape(t["shape"])
            for name, t in header.items() if t.get("dtype") == "F32"}


class Bert:
    def __init__(self, weights, heads, eps):
        w = tensors(weights)
        self.heads, self.eps = heads, eps
        names = ("word", "position", "token_type")
        self.tables = [w[f"embeddings.{name}_embeddings.weight"] for name in names]
        pair = lambda name: (w[f"{name}.weight"], w[f"{name}.bias"])
        self.norm = pair("embeddings.LayerNorm")
        self.layers = []
        while (name := f"encoder.layer.{len(self.layers)}.") + "output.dense.weight" in w:
            qkv = [pair(f"{name}attention.self.{part}") for part in ("query", "key", "value")]
            parts = ("attention.output.dense", "attention.output.LayerNorm", "intermediate.dense", "output.dense", "output.LayerNorm")
            self.layers.append([tuple(map(torch.cat, zip(*qkv)))] + [pair(name + part) for part in parts])

    def __call__(self, ids, places, attend):
        """`attend` maps q, k and v, [.., hidden] each, to what tokens take from each other."""
        words, positions, types = self.tables
        normed = lambda x, norm: F.layer_norm(x, x.shape[-1:], *norm, self.eps)
        x = normed(F.embedding(ids, words) + F.embedding(places, positions) + types[0], self.norm)
        for qkv, out, out_norm, up, down, down_norm in self.layers:
            x = normed(F.linear(attend(*F.linear(x, *qkv).chunk(3, -1)), *out) + x, out_norm)
            x = normed(F.linear(F.gelu(F.linear(x, *up)), *down) + x, down_norm)
        return x


def forms(weights, heads, eps, texts):
    """Padded to the longest text, as sentence-transformers does, and one behind the other."""
    bert = Bert(weights, heads, eps)
    lengths = [len(text) for text in texts]
    longest = max(lengths)
    padded = torch.tensor([text + [0] * (longest - len(text)) for text in texts])
    seen = torch.arange(longest) < torch.tensor(lengths)[:, None]
    mask = None if min(lengths) == longest else seen[:, None, None, :]
    packed = torch.tensor([token for text in texts for token in text])
    places = torch.cat([torch.arange(n) for n in lengths])

    def heads_of(x):
        return x.unflatten(-1, (heads, -1)).transpose(-2, -3)

    def attend_padded(q, k, v):
        y = F.scaled_dot_product_attention(heads_of(q), heads_of(k), heads_of(v), attn_mask=mask)
        return y.transpose(-2, -3).flatten(-2)

    def attend_packed(*qkv):
        parts = zip(*(x.split(lengths) for x in qkv))
        each = (F.scaled_dot_product_attention(*(heads_of(x)[None] for x in part))[0] for part in parts)
        return torch.cat([y.transpose(-2, -3).flatten(-2) for y in each])

    @torch.inference_mode()
    def run_padded():
        x = bert(padded, torch.arange(longest), attend_padded)
        sums = (x * seen[:, :, None]).sum(1)
        return F.normalize(sums / seen.sum(1, keepdim=True))

    @torch.inference_mode()
    def run_packed():
        x = bert(packed, places, attend_packed)
        return F.normalize(torch.stack([part.mean(0) for part in x.split(lengths)]))

    return [run_padded, run_packed]


def package(folder, texts):
    """sentence-transformers, the runtime that the model's package is made for, with the same tokens, padded."""
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(folder, device="cpu")
    longest = max(map(len, texts))
    ids = torch.tensor([text + [0] * (longest - len(text)) for text in texts])
    seen = torch.tensor([[1] * len(text) + [0] * (longest - len(text)) for text in texts])

    @torch.inference_mode()
    def run():
        return model({"input_ids": ids, "attention_mask": seen})["sentence_embedding"]

    return run
