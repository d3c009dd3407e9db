"""T5 fills the gaps in a text: sentinels <extra_id_0>, <extra_id_1> ... in, the words that belong there out.

python examples/fill_spans.py                                    (a small new T5 on 400 poems, to see it run: a minute)
python examples/fill_spans.py --model span_filler "床前明月光<extra_id_0>疑是地上霜。"
python examples/fill_spans.py --model t5.1.1.base "The <extra_id_0> sat on the <extra_id_1>." --num-beams 4

--model takes a T5 1.1 or mT5, Google's or a Hugging Face folder. Without it a new T5 learns from span corruption
(Raffel et al., 2020) and is saved. From the sample it learns where punctuation belongs, hardly a word.
A line of --data is a text, or has one in its last column.
"""

from __future__ import annotations

import argparse
import random
import re
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import keras
import numpy as np
import sentencepiece

import tfloader

SAMPLE = Path(__file__).parent / "data" / "poems_sample.tsv"
TEXTS = [
    "春眠不觉晓<extra_id_0>处处闻啼鸟<extra_id_1>夜来风雨声，花落知多少。",
    "白日依山尽，黄河<extra_id_0>欲穷千里目<extra_id_1>更上一层楼。",
]
SENTINEL = "<extra_id_{}>"
LONGEST = 48  # tokens of a text in training
SMALL = {
    "model_type": "t5",
    "d_model": 128,
    "d_kv": 32,
    "d_ff": 256,
    "num_layers": 2,
    "num_heads": 4,
    "feed_forward_proj": "gated-gelu",
    "tie_word_embeddings": False,
    "dropout_rate": 0.1,
    "pad_token_id": 0,
    "eos_token_id": 1,
    "decoder_start_token_id": 0,
}
# Of SentencePiece: every character is a piece, no text is changed, and the special ones stand where T5 has them.
PIECES = {
    **{"model_type": "char", "vocab_size": 100_000, "hard_vocab_limit": False, "character_coverage": 1.0},
    **{"normalization_rule_name": "identity", "add_dummy_prefix": False},
    **{"pad_id": 0, "eos_id": 1, "unk_id": 2, "bos_id": -1, "minloglevel": 2},
}


def sentinel_ids(tokenizer: tfloader.SpTokenizer) -> list[int]:
    """The ids of the 100 sentinels, however the vocabulary spells them."""
    encoded = [tokenizer.encode(SENTINEL.format(number))[0][:-1] for number in range(100)]
    if any(len(ids) != 1 for ids in encoded) or len({ids[0] for ids in encoded}) < 100:
        raise SystemExit("This tokenizer has no sentinels <extra_id_0> to <extra_id_99>: is it a T5's?")
    return [ids[0] for ids in encoded]


# ---- training


def corrupt(ids: Sequence[int], sentinels: Sequence[int], chance: random.Random) -> tuple[list[int], list[int]]:
    """(what is left of a text, what is gone), with a sentinel for each gap and one more at the end.

    15% of the tokens go, in gaps of 3 on average; text and gaps take turns, and the text comes first.
    """
    gone = max(1, round(0.15 * len(ids)))
    count = max(1, round(gone / 3))
    gaps = parts(gone, count, chance)
    source, target, place = [], [], 0
    for sentinel, kept, gap in zip(sentinels, parts(len(ids) - gone, count, chance), gaps, strict=False):
        source += [*ids[place : place + kept], sentinel]
        target += [sentinel, *ids[place + kept : place + kept + gap]]
        place += kept + gap
    return source, [*target, sentinels[count]]


def parts(total: int, count: int, chance: random.Random) -> list[int]:
    """A total as the sum of so many positive numbers, at random."""
    cuts = sorted(chance.sample(range(1, total), count - 1))
    return [end - start for start, end in pairwise([0, *cuts, total])]


def arrays(
    texts: list[list[int]], tokenizer: tfloader.SpTokenizer, chance: random.Random
) -> tuple[list[np.ndarray], np.ndarray, np.ndarray]:
    """Texts with new gaps as inputs of encoder and decoder, the tokens that the decoder is to give, and weights."""
    sentinels, end = sentinel_ids(tokenizer), tokenizer.eos_token_id
    rows = [[[*part, end] for part in corrupt(text, sentinels, chance)] for text in texts]
    sources, targets = (keras.utils.pad_sequences(part, padding="post") for part in zip(*rows, strict=True))
    # The decoder starts from id 0, which is a real token there; later zeros are padding and have no loss.
    return [sources, np.pad(targets, ((0, 0), (1, 0)))[:, :-1]], targets, (targets != 0).astype("float32")


def train(texts: list[str], folder: Path, epochs: int, batch_size: int) -> None:
    """A small T5, whose pieces are single characters, learns to fill gaps and is saved in a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "spiece.model", "wb") as file:
        sentencepiece.SentencePieceTrainer.train(sentence_iterator=iter(texts), model_writer=file, **PIECES)
    tokenizer = tfloader.load_tokenizer(folder, family="t5")
    config = {**SMALL, "vocab_size": tokenizer.vocab_size}
    # T5 does not scale its scores: with a start as small as usual (0.02) attention would stay even for long.
    model = tfloader.build_transformer_model(config, model="t5", with_lm="linear", initializer_range=0.05)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True, reduction="mean_with_sample_weight")
    model.compile(keras.optimizers.Adam(2e-3), loss, weighted_metrics=["accuracy"])
    encoded = [tokenizer.encode(text)[0][:-1][:LONGEST] for text in texts]
    held_out, chance = len(encoded) // 20 + 1, random.Random(1)
    checks = arrays(encoded[-held_out:], tokenizer, chance)
    for epoch in range(epochs):
        inputs, targets, weights = arrays(encoded[:-held_out], tokenizer, chance)
        now = {"initial_epoch": epoch, "epochs": epoch + 1, "validation_data": checks, "verbose": 2}
        model.fit(inputs, targets, batch_size, sample_weight=weights, **now)
    tfloader.save(model, folder, tokenizer=tokenizer)


# ---- filling


def fill(generator: tfloader.TextGenerator, texts: Sequence[str], **options) -> list[str]:
    """The texts with their gaps filled; a sentinel for which the model has no answer stays."""
    number_of = {token: number for number, token in enumerate(sentinel_ids(generator.tokenizer))}
    # mT5 knows its sentinels only behind a space; to the others a space makes no difference.
    prompts = [generator.tokenizer.encode(re.sub(r"\s*(<extra_id_\d+>)", r" \1", text))[0] for text in texts]
    filled = []
    for text, ids in zip(texts, generator.generate_ids(prompts, **options).sequences, strict=True):
        for number, answer in answers(ids, number_of).items():
            text = text.replace(SENTINEL.format(number), generator.tokenizer.decode(answer))
        filled.append(text)
    return filled


def answers(ids: Sequence[int], number_of: dict[int, int]) -> dict[int, list[int]]:
    """What stands behind each sentinel, the first time that it comes."""
    found: dict[int, list[int]] = {}
    answer: list[int] = []
    for token in ids:
        if token in number_of:
            answer = []
            found.setdefault(number_of[token], answer)
        else:
            answer.append(token)
    return found


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("texts", nargs="*", default=TEXTS, help="texts with <extra_id_0>, <extra_id_1> ... in them")
    parser.add_argument("--model", type=Path, help="a T5 1.1 or mT5: folder, or TensorFlow prefix")
    parser.add_argument("--vocab", type=Path, help="its SentencePiece model, if it is not beside the checkpoint")
    parser.add_argument("--num-beams", type=int, default=1)
    parser.add_argument("--data", type=Path, default=SAMPLE, help="texts to learn from, where there is no --model")
    parser.add_argument("--output", type=Path, default=Path("span_filler"), help="folder for the new model")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--batch-size", type=int, default=16)
    options = parser.parse_args(argv)
    without = [text for text in options.texts if SENTINEL.format(0) not in text]
    if without:
        raise SystemExit(f"There is no gap in {without[0]!r}: write <extra_id_0> where something is missing.")
    keras.utils.set_random_seed(1)

    if options.model is None:
        lines = options.data.read_text(encoding="utf-8").split("\n")
        texts = [text for line in lines if len(text := line.split("\t")[-1].strip()) >= 10]
        print(f"A new model learns from {len(texts)} texts and is saved in {options.output}", flush=True)
        train(texts, options.output, options.epochs, options.batch_size)
    folder = options.model or options.output
    tokenizer = tfloader.load_tokenizer(options.vocab or folder, family="t5")
    generator = tfloader.TextGenerator(tfloader.load(folder, model="t5"), tokenizer)
    for text in fill(generator, options.texts, num_beams=options.num_beams):
        print(text)


if __name__ == "__main__":
    main()
