"""How good are the poems of the small Chinese model? Perplexity beside a trigram, line lengths, copied lines.

python benchmarks/boxed_model.py --data poems.tsv              (the poems that it was trained on; ten minutes)
python benchmarks/boxed_model.py --data poems.tsv --model poet --count 20

Prints tables in Markdown. The poems that were held out in training are found as examples/pretrain_language_model.py
found them.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from common import machine, table, versions
from kneser_ney import KneserNey

import tfloader

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "examples"))
import pretrain_language_model as training  # noqa: E402

BOXED = ROOT / "tfloader" / "assets" / "classical_poems"
FORMS = ("五言绝句", "七言绝句", "五言律诗", "七言律诗")
WAYS: dict[str, dict[str, Any]] = {"as shipped": {}, "greedy": {"do_sample": False}}
BATCH = 25
Row = tuple[str, str, str, str]  # form, title, author, poem


# ---- perplexity


def log_probabilities(model: Any, sequences: Sequence[Sequence[int]], batch: int = 32) -> list[np.ndarray]:
    """Of each token but the first of each sequence."""
    found: list[np.ndarray] = [np.empty(0)] * len(sequences)
    by_length = sorted(range(len(sequences)), key=lambda index: len(sequences[index]))
    for start in range(0, len(by_length), batch):
        chosen = by_length[start : start + batch]
        inputs, following, _ = training.arrays([list(sequences[index]) for index in chosen])
        logits = np.asarray(model(inputs), "float64")
        logits -= logits.max(axis=-1, keepdims=True)
        scores = np.take_along_axis(logits, following[:, :, None], axis=2)[:, :, 0] - np.log(
            np.exp(logits).sum(axis=-1)
        )
        for index, row in zip(chosen, scores, strict=True):
            found[index] = row[: len(sequences[index]) - 1]
    return found


def report_perplexity(model: Any, learned: Sequence[Any], held_out: Sequence[Any], vocab_size: int) -> str:
    """Of the end of a poem too, not of the first token of all, for which there is no context."""
    rows = []
    scores = {}
    for way, described in (("alone", training.Poem.bare), ("described", training.Poem.described)):
        sequences = [described(poem) for poem in held_out]
        trigram = KneserNey([described(poem) for poem in learned], vocab_size)
        scores[way] = [log_probabilities(model, sequences), [trigram.log_probabilities(item) for item in sequences]]
    # The same characters, given more.
    lengths = [len(poem.text) - 1 for poem in held_out]
    behind = [[row[-n:] for row, n in zip(part, lengths, strict=True)] for part in scores["described"]]
    for name, parts in (
        ("poems alone", scores["alone"]),
        ("the same, behind form, title and author", behind),
        ("form, title, author and poem", scores["described"]),
    ):
        found = [np.concatenate(part) for part in parts]
        rows.append([name, f"{len(found[0])}", *(f"{np.exp(-np.mean(part)):.2f}" for part in found)])
    return table(["held-out poems", "tokens", "model", "trigram"], rows)


# ---- what it writes


def form_of(poem: str) -> str:
    """Its form by the lengths of its lines; nothing where there is no line."""
    return training.form_of("诗", poem) if training.lines_of(poem) else ""


def written(generator: tfloader.TextGenerator, prompts: Sequence[str], **options: Any) -> list[str]:
    """A text for each prompt; samples do not depend on one another, and are the same every time."""
    found: list[str] = []
    for start in range(0, len(prompts), BATCH):
        batch = list(prompts[start : start + BATCH])
        found += generator.generate(batch, **options, seed=list(range(start, start + len(batch))))
        print(f"{len(found)} of {len(prompts)} poems", end="\r", file=sys.stderr)
    return found


def requests(held_out: Sequence[Row], known: Collection[str], count: int) -> dict[str, list[str]]:
    """Prompts for each form, with the titles and authors of held-out poems."""
    poems = [row for row in held_out if row[0] != "词" and len(row[1]) <= training.LONGEST_TITLE]
    poems = [row for row in poems if set(row[1] + row[2]) <= set(known)][:count]
    return {form: [f"{form}《{title}》{author}：" for _, title, author, _ in poems] for form in FORMS}


def beginnings(held_out: Sequence[Row], known: Collection[str], count: int) -> list[str]:
    """The first four characters of held-out poems whose lines are all of 5 or all of 7."""
    found = [poem[:4] for form, _, _, poem in held_out if form not in ("词", "杂言诗")]
    return [text for text in found if set(text) <= set(known)][:count]


def share(found: Sequence[bool]) -> str:
    return f"{100 * np.mean(found):.1f}% of {len(found)}" if found else "none written"


def report_writing(
    generator: tfloader.TextGenerator,
    learned: Sequence[Row],
    held_out: Sequence[Row],
    known: Collection[str],
    count: int,
) -> Iterator[str]:
    """Tables of right line lengths and of copied lines, and a sample of each form."""
    asked, begun = requests(held_out, known, count), beginnings(held_out, known, count)
    poems = {
        way: {form: written(generator, prompts, **options) for form, prompts in asked.items()}
        for way, options in WAYS.items()
    }
    rows = [[form, *(share([form_of(poem) == form for poem in poems[way][form]]) for way in WAYS)] for form in FORMS]
    bare = []
    for options in WAYS.values():
        whole = [start + rest for start, rest in zip(begun, written(generator, begun, **options), strict=True)]
        bare.append(share([form_of(poem) not in ("", "杂言诗") for poem in whole]))
    rows.append(["four characters, lines all of 5 or all of 7", *bare])
    yield table(["asked for: right line lengths", *WAYS], rows)

    seen = {line for *_, poem in learned for line in training.lines_of(poem)}
    texts = {way: [poem for part in parts.values() for poem in part] for way, parts in poems.items()}
    copied = {who: [line in seen for poem in part for line in training.lines_of(poem)] for who, part in texts.items()}
    rows = [[who, share(found)] for who, found in copied.items()]
    yield table(["lines that a training poem has, too", "share"], rows)

    yield "\n".join(f"- {prompts[0]}{poems['as shipped'][form][0]}" for form, prompts in asked.items())


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="the file of poems that the model was trained on")
    parser.add_argument("--model", type=Path, default=BOXED, help="folder of the model (default: the one in the box)")
    parser.add_argument("--count", type=int, default=100, help="poems to write of each form")
    options = parser.parse_args(argv)

    learned, held_out = training.split(training.read_poems(options.data))
    ids = tfloader.load_vocab(options.model / "vocab.txt")
    learned, held_out = ([row for row in part if set(row[3]) <= set(ids)] for part in (learned, held_out))
    generator = tfloader.TextGenerator(
        model := tfloader.load(options.model), tfloader.load_tokenizer(options.model), defaults=options.model
    )
    print(machine(), ", ".join(f"{name} {version}" for name, version in versions().items()), sep="\n\n")
    print(f"\n{len(learned)} poems were learned, {len(held_out)} held out.\n", flush=True)
    poems = ([training.Poem(row, ids) for row in part] for part in (learned, held_out))
    print(report_perplexity(model, *poems, len(ids)), flush=True)
    for part in report_writing(generator, learned, held_out, ids, options.count):
        print(f"\n{part}", flush=True)


if __name__ == "__main__":
    main()
