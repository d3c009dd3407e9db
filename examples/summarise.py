"""Titles for texts with UniLM: one BERT that reads the text on both sides and writes the title from left to right.

python examples/summarise.py                       (a small new BERT on 400 poems, to see it run: a minute)
python examples/summarise.py --model chinese_L-12_H-768_A-12 --data csl.tsv --epochs 5 --output titles
tfloader generate titles "要概括的文章……" --num-beams 4

A line of the data holds title and text, separated by a tab; or, as in the sample, 诗 or 词, title, author and poem.
What the small model writes looks like a title but seldom fits the poem: that takes a pretrained Chinese BERT, or at
least more poems.
"""

from __future__ import annotations

import argparse
import collections
from pathlib import Path

import keras
import numpy as np

import tfloader

SAMPLE = Path(__file__).parent / "data" / "poems_sample.tsv"
LONGEST_TITLE = 24  # tokens
SPECIAL_TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
SMALL = {
    "hidden_size": 128,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 512,
    "hidden_act": "gelu",
    "max_position_embeddings": 512,
    "type_vocab_size": 2,
    "hidden_dropout_prob": 0.1,
    "attention_probs_dropout_prob": 0.1,
    "initializer_range": 0.02,
}


def read_pairs(path: Path) -> list[tuple[str, str]]:
    """(text, title) of each line."""
    rows = [line.split("\t") for line in path.read_text(encoding="utf-8").split("\n") if line.strip()]
    wrong = [number for number, row in enumerate(rows, 1) if len(row) not in (2, 4)]
    if wrong:
        raise SystemExit(f"{path}: {len(wrong)} lines have neither 2 nor 4 columns, the first is line {wrong[0]}.")
    return [(row[3], row[1]) if len(row) == 4 else (row[1], row[0]) for row in rows]


def pretrained(folder: Path) -> tuple[keras.Model, tfloader.Tokenizer]:
    """A Chinese BERT, without the third of its vocabulary that Chinese text hardly needs."""
    vocabulary, keep_tokens = tfloader.load_vocab(folder / "vocab.txt", simplified=True, startswith=SPECIAL_TOKENS)
    model = tfloader.load(folder, application="unilm", keep_tokens=keep_tokens)
    return model, tfloader.Tokenizer(vocabulary, do_lower_case=True)


def new(pairs: list[tuple[str, str]]) -> tuple[keras.Model, tfloader.Tokenizer]:
    """A small BERT that knows nothing yet; its vocabulary is the characters of the data."""
    counts = collections.Counter(character for pair in pairs for text in pair for character in text.lower())
    tokens = SPECIAL_TOKENS + [character for character, _ in counts.most_common() if not character.isspace()]
    tokenizer = tfloader.Tokenizer({token: index for index, token in enumerate(tokens)}, do_lower_case=True)
    config = {**SMALL, "vocab_size": len(tokens)}
    return tfloader.build_transformer_model(config, application="unilm", with_mlm="linear"), tokenizer


def training_arrays(
    tokenizer: tfloader.Tokenizer, pairs: list[tuple[str, str]], max_length: int
) -> tuple[list[np.ndarray], np.ndarray, np.ndarray]:
    """[CLS] text [SEP] title [SEP] as inputs, the tokens that follow them, and weights.

    The title and the [SEP] behind it are segment 1: just what is to be written, and therefore has a loss. The model's
    mask hides from each token of segment 1 what comes after it, and all of segment 1 from the text.
    """
    ids, segments, _ = tokenizer(*map(list, zip(*pairs, strict=True)), max_length=max_length)
    return [ids[:, :-1], segments[:, :-1]], ids[:, 1:], segments[:, 1:].astype("float32")


def write_titles(
    model: keras.Model, tokenizer: tfloader.Tokenizer, texts: list[str], max_length: int, num_beams: int = 4
) -> list[str]:
    """The best title that beam search finds for each text."""
    # As in training: [CLS] text [SEP] in segment 0; what TextGenerator writes is in segment 1, up to a [SEP].
    prompts = [tokenizer.encode(text, maxlen=max_length - LONGEST_TITLE)[0] for text in texts]
    generator = tfloader.TextGenerator(model, tokenizer)
    found = generator.generate_ids(prompts, num_beams=num_beams, max_new_tokens=LONGEST_TITLE)
    return [generator.tokenizer.decode(ids) for ids in found.sequences]


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="folder of a Chinese BERT with its masked-language-model head")
    parser.add_argument("--data", type=Path, default=SAMPLE, help="titles and texts, a pair a line")
    parser.add_argument("--output", type=Path, help="folder to save the trained model in")
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--max-length", type=int, default=128, help="tokens of text and title; longer texts are cut")
    parser.add_argument("--learning-rate", type=float, help="2e-5 with --model, else 1e-3")
    parser.add_argument("--show", type=int, default=8, help="held-out texts to write titles for")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args(argv)
    keras.utils.set_random_seed(options.seed)

    pairs = read_pairs(options.data)
    if not 0 < options.show < len(pairs):
        raise SystemExit(
            f"{options.data} has {len(pairs)} pairs: --show must be at least 1 and leave some to learn from."
        )
    training, held_out = pairs[: -options.show], pairs[-options.show :]
    model, tokenizer = pretrained(options.model) if options.model else new(training)
    rate = options.learning_rate or (2e-5 if options.model else 1e-3)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True, reduction="mean_with_sample_weight")
    model.compile(keras.optimizers.Adam(rate), loss)
    inputs, following, weights = training_arrays(tokenizer, training, options.max_length)
    print(f"{len(training)} pairs to learn from, {model.count_params() / 1e6:.1f}M parameters", flush=True)
    model.fit(inputs, following, sample_weight=weights, batch_size=options.batch_size, epochs=options.epochs, verbose=2)
    inputs, following, weights = training_arrays(tokenizer, held_out, options.max_length)
    print(f"held-out loss {model.evaluate(inputs, following, sample_weight=weights, verbose=0):.3f}\n")

    titles = write_titles(model, tokenizer, [text for text, _ in held_out], options.max_length)
    for (text, title), written in zip(held_out, titles, strict=True):
        print(f"{text[:60]}\n  its title: {title}\n  written:   {written}\n")
    if options.output:
        tfloader.save(model, options.output, tokenizer=tokenizer)
        print(f"saved in {options.output}")


if __name__ == "__main__":
    main()
