"""What sentence-transformers makes of 20 texts, written down as a small fixture.

`python tests/golden/models/sentence_encoder.py FOLDER` makes `sentence_encoder.json` beside it from the model
in FOLDER (examples/sentence_encoder/fetch.sh); `examples/tests/sentence_encoder/minilm.rs` holds the example against it.
The versions that answered stand in the file.
"""
import importlib.metadata, json, os, sys

import torch
from sentence_transformers import SentenceTransformer

LONG = "The host finds which kernel takes the call, has its artefact built, and launches it. "
TEXTS = [
    "The weather is lovely today.",
    "It's so sunny outside!",
    "He drove to the stadium.",
    "a",
    "?!",
    "  leading, trailing\tand\n inner   blanks  ",
    "Crème brûlée à la façon de l'Élysée, naïve coöperation, Ångström",
    "e\u0301 is e with a combining accent, \u00e9 is one character",
    "你好，世界。今天天气很好。",
    "こんにちは世界、カタカナとひらがな",
    "안녕하세요 세계",
    "Привет, мир! Γειά σου Κόσμε! שלום עולם مرحبا بالعالم",
    "🙂🚀 emoji 👩‍👩‍👧‍👦 and ☕️",
    "zero\u200bwidth, soft\u00adhyphen, no\u00a0break, control\u0007bell, \ufffd",
    "https://example.org/a_b?c=d&e=%20#f; x = y[0] + 1e-6 * (z ** 2) // \"quoted\" 'text'",
    "antidisestablishmentarianism pneumonoultramicroscopicsilicovolcanoconiosis " + "x" * 120,
    "[CLS] special tokens [SEP] written out [MASK] [PAD] [UNK]",
    "I have 3.14 dogs, 2,718 cats and -42 °C; the price is $1,299.99 (50 % off).",
    LONG * 12,  # 2 + 12 * 19 tokens: it fits
    LONG * 40,  # it does not
]

torch.set_num_threads(1)
model = SentenceTransformer(sys.argv[1], device="cpu")
rows = []
for text in TEXTS:
    ids = model.preprocess([text])["input_ids"][0].tolist()
    # One at a time, so that no padding is computed with.
    embedding = model.encode([text])[0]
    rows.append({"text": text, "ids": ids, "embedding": [float(f"{v:.9g}") for v in embedding]})
path = os.path.splitext(os.path.abspath(__file__))[0] + ".json"
versions = {n: importlib.metadata.version(n) for n in ("sentence-transformers", "transformers", "tokenizers", "torch")}
with open(path, "w") as f:
    f.write(json.dumps({"versions": versions})[:-1] + ', "max_length": %d, "texts": [\n' % model.max_seq_length)
    f.write(",\n".join(json.dumps(row) for row in rows))
    f.write("\n]}\n")
print(f"{path}: {len(rows)} texts of {[len(r['ids']) for r in rows]} tokens, {os.path.getsize(path)} bytes")
