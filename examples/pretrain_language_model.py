r"""Train a small Chinese GPT-2 on classical poems from nothing: the very script that made the model in the box.

python examples/pretrain_language_model.py                                       (the sample, to see it run)
python examples/pretrain_language_model.py --data poems.tsv --output poet --epochs 8 --dtype mixed_bfloat16 \
    --min-count 3                                                    (all 66,148 poems: 90 minutes on two cores)

A line of the data holds 诗 or 词, title, author and poem, separated by tabs. The model reads a poem behind what is
known of it, `七言绝句《春夜》李白：...`, each part of which is left out at random, so that later a prompt may give
any of them, or only the poem's first words. Run the same command again to go on after an interruption.
"""

from __future__ import annotations

import argparse
import collections
import json
import random
import re
from collections.abc import Iterator
from pathlib import Path

import keras
import numpy as np

import tfloader

SAMPLE = Path(__file__).parent / "data" / "poems_sample.tsv"
SPECIAL_TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
FORMS = {(5, 4): "五言绝句", (7, 4): "七言绝句", (5, 8): "五言律诗", (7, 8): "七言律诗"}
LONGEST_TITLE = 24
CONFIG = {
    "model_type": "gpt2",
    "n_embd": 256,
    "n_layer": 4,
    "n_head": 4,
    "n_positions": 384,
    "activation_function": "gelu_new",
    "resid_pdrop": 0.1,
    "embd_pdrop": 0.1,
    "attn_pdrop": 0.0,
}


def form_of(kind: str, poem: str) -> str:
    """What the lengths of its lines make a poem: 七言绝句, 五言律诗, 五言古诗 ..., 杂言诗, or 词."""
    lengths = [len(line) for line in lines_of(poem)]
    if kind == "词":
        return "词"
    if len(set(lengths)) > 1 or lengths[0] not in (5, 7):
        return "杂言诗"
    return FORMS.get((lengths[0], len(lengths)), "五言古诗" if lengths[0] == 5 else "七言古诗")


def read_poems(path: Path) -> list[tuple[str, str, str, str]]:
    """(form, title, author, poem) of each line that is whole: no colon or quotation, no doubled punctuation."""
    rows = [line.split("\t") for line in path.read_text(encoding="utf-8").split("\n") if line]
    whole = [row for row in rows if not re.search("[：《》]|[，。？！；、]{2}", row[3]) and row[3].endswith("。")]
    return [(form_of(kind, poem), title, author, poem) for kind, title, author, poem in whole]


def lines_of(poem: str) -> list[str]:
    return [line for line in re.split("[，。？！；、]", poem) if line]


def split(poems: list, share: float = 0.03) -> tuple[list, list]:
    """(training, validation): the data's order is random, so its end is as good a choice as any.

    Poems that have a line in common with a held-out one (other versions of it, mostly) are in neither part.
    """
    count = max(1, int(len(poems) * share))
    held_out = {line for *_, text in poems[-count:] for line in lines_of(text) if len(line) >= 5}
    return [poem for poem in poems[:-count] if held_out.isdisjoint(lines_of(poem[3]))], poems[-count:]


def make_vocabulary(poems: list[tuple[str, str, str, str]], at_least: int) -> list[str]:
    """The special tokens, then every character that the poems have often enough, the commonest first."""
    counts = collections.Counter(character for poem in poems for character in "".join(poem))
    needed = set("：《》" + "".join(form for form, *_ in poems))
    common = [character for character, count in counts.most_common() if count >= at_least or character in needed]
    return SPECIAL_TOKENS + common + sorted(needed - set(common))


class Poem:
    """One poem in token ids, part by part."""

    def __init__(self, poem: tuple[str, str, str, str], ids: dict[str, int]):
        form, title, author, text = poem
        self.form, self.text = [ids[character] for character in form], [ids[c] for c in text] + [ids["[SEP]"]]
        self.title = self._known(f"《{title}》", ids) if len(title) <= LONGEST_TITLE else []
        self.author = self._known(author, ids)
        self.colon = [ids["："]]

    @staticmethod
    def _known(text: str, ids: dict[str, int]) -> list[int]:
        return [ids[character] for character in text] if set(text) <= set(ids) else []

    def bare(self) -> list[int]:
        """The poem alone."""
        return self.text

    def described(self, chance: random.Random | None = None) -> list[int]:
        """Behind what is known of it: all of that, or each part by chance, and often none."""
        parts = [self.form, self.title, self.author]
        if chance:
            kept = 0.8 if chance.random() < 0.8 else 0.0
            parts = [part for part in parts if chance.random() < kept]
        known = [token for part in parts for token in part]
        return known + self.colon + self.text if known else self.text


def batches(sequences: list[list[int]], tokens: int, chance: random.Random) -> list[list[list[int]]]:
    """Sequences of like length together, about so many tokens in each batch, in random order."""
    ordered = sorted(sequences, key=lambda sequence: (len(sequence), chance.random()))
    found, start = [], 0
    while start < len(ordered):
        end = start + 1
        while end < len(ordered) and len(ordered[end]) * (end + 1 - start) <= tokens:
            end += 1
        found.append(ordered[start:end])
        start = end
    chance.shuffle(found)
    return found


def arrays(batch: list[list[int]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A batch as inputs, the tokens that follow them, and weights that leave padding out."""
    length = max(map(len, batch))
    ids = np.array([sequence + [0] * (length - len(sequence)) for sequence in batch], "int32")
    real = np.array([[1.0] * len(sequence) + [0.0] * (length - len(sequence)) for sequence in batch], "float32")
    return ids[:, :-1], ids[:, 1:], real[:, 1:]


def forever(poems: list[Poem], tokens: int, seed: int) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Training batches; every epoch describes the poems anew."""
    chance = random.Random(seed)
    while True:
        yield from map(arrays, batches([poem.described(chance) for poem in poems], tokens, chance))


def perplexity(model: keras.Model, sequences: list[list[int]], tokens: int = 8192) -> float:
    """exp of the mean negative log-probability of a token, the first of each sequence left out."""
    total = count = 0.0
    for batch in batches(sequences, tokens, random.Random(0)):
        inputs, following, weights = arrays(batch)
        losses = keras.ops.sparse_categorical_crossentropy(following, model(inputs), from_logits=True)
        total += float(np.sum(np.asarray(losses, "float64") * weights))
        count += weights.sum()
    return float(np.exp(total / count))


def compiled(config: dict, steps: int, learning_rate: float, dtype: str) -> keras.Model:
    """A model with its random start, ready to be fitted."""
    model = tfloader.build_transformer_model(config, model="gpt2", final_activation="linear", dtype=dtype)
    schedule = keras.optimizers.schedules.CosineDecay(
        0.0, steps, warmup_target=learning_rate, warmup_steps=max(1, steps // 20), alpha=0.02
    )
    optimizer = keras.optimizers.Muon(
        schedule, weight_decay=0.1, adam_weight_decay=0.1, adam_beta_2=0.98, global_clipnorm=1.0
    )
    optimizer.exclude_from_weight_decay(var_names=["bias", "beta", "gamma"])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True, reduction="mean_with_sample_weight")
    model.compile(optimizer, loss)
    return model


def write(model: keras.Model, config: dict, vocabulary: list[str], folder: Path) -> None:
    """The trained model as a Hugging Face folder of half the size: float16."""
    half = tfloader.build_transformer_model(config, model="gpt2", final_activation="linear", dtype="float16")
    half.set_weights([weight.astype("float16") for weight in model.get_weights()])
    tokenizer = tfloader.Tokenizer(str(folder / "vocab.txt"), do_lower_case=False)
    tfloader.save(half, folder, tokenizer=tokenizer)
    never = [vocabulary.index(token) for token in SPECIAL_TOKENS if token != "[SEP]"]
    habits = {"do_sample": True, "top_p": 0.85, "top_k": 0, "max_new_tokens": 320, "suppress_tokens": never}
    text = json.dumps({**habits, "eos_token_id": config["eos_token_id"]}, indent=2)
    (folder / "generation_config.json").write_text(text + "\n", encoding="utf-8")


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=SAMPLE, help="poems, one a line")
    parser.add_argument("--output", type=Path, default=Path("poet"), help="folder for the model")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--min-count", type=int, default=1, help="rarer characters, and their poems, are left out")
    parser.add_argument("--batch-tokens", type=int, default=3072)
    parser.add_argument("--learning-rate", type=float, default=3e-3)
    parser.add_argument("--dtype", default="float32", help="mixed_bfloat16 is faster where the processor has it")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args(argv)
    keras.utils.set_random_seed(options.seed)

    training, validation = split(read_poems(options.data))
    options.output.mkdir(parents=True, exist_ok=True)
    vocabulary = make_vocabulary(training, options.min_count)
    (options.output / "vocab.txt").write_text("\n".join(vocabulary) + "\n", encoding="utf-8")
    ids = {token: index for index, token in enumerate(vocabulary)}
    training, validation = (
        [Poem(poem, ids) for poem in part if set(poem[3]) <= set(ids)] for part in (training, validation)
    )
    chance = random.Random(0)
    steps = len(batches([poem.described(chance) for poem in training], options.batch_tokens, chance))
    print(f"{len(training)} poems to learn from, {len(validation)} held out")
    print(f"{len(vocabulary)} tokens, {steps} steps an epoch", flush=True)

    config = {**CONFIG, "vocab_size": len(vocabulary), "bos_token_id": None, "eos_token_id": ids["[SEP]"]}
    model = compiled(config, steps * options.epochs, options.learning_rate, options.dtype)
    held_out = [arrays(batch) for batch in batches([poem.described() for poem in validation], 8192, random.Random(0))]
    best = options.output / "best.weights.h5"
    model.fit(
        forever(training, options.batch_tokens, options.seed),
        steps_per_epoch=steps,
        epochs=options.epochs,
        validation_data=(batch for _ in iter(int, 1) for batch in held_out),
        validation_steps=len(held_out),
        callbacks=[
            keras.callbacks.BackupAndRestore(options.output / "backup"),
            keras.callbacks.ModelCheckpoint(best, save_best_only=True, save_weights_only=True),
        ],
        verbose=2,
    )
    model.load_weights(best)
    write(model, config, vocabulary, options.output)
    for way, described in (("alone", Poem.bare), ("described", Poem.described)):
        print(f"validation perplexity, poems {way}: {perplexity(model, [described(poem) for poem in validation]):.2f}")


if __name__ == "__main__":
    main()
