"""How fast is fine-tuning, beside other libraries, and what do its parts cost?

    python benchmarks/finetune.py [--quick] [--size SIZE] [--only PART ...] [--peers-python PATH]
                                  [--keras-hub-python PATH]

BERT-base's shape with random weights, 8 sequences of 128 tokens, dropout 0.1, AdamW. Every system is measured in fresh
processes that take turns, one at a time; prints tables in Markdown. Needs Linux and 6 GB of memory.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import json
import os
import statistics
import sys
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from common import in_fresh_process, machine, medians, memory, met, rounds, table, versions
from load import bert_base

ROWS, LENGTH, LABELS = 8, 128, 4
TAGS = 13  # O, and B and I of six kinds of entities
TAGGED_ROWS = 64  # for Viterbi
RATE = 2e-5
SENTENCES = Path(__file__).resolve().parents[1] / "examples" / "data" / "wnut17_train.conll"
SENTENCE_ROWS = 16
FIRST_GOAL, FGM_GOAL, CRF_GOAL, VITERBI_GOAL = 10.0, 2.1, 0.05, 50_000
MB = 1000**2

# Keys of BERT's config that differ from BERT-base's.
SIZES: dict[str, dict[str, int]] = {
    "base": {},
    "base, 3 blocks": {"num_hidden_layers": 3},
    "small": {"num_hidden_layers": 4, "hidden_size": 256, "num_attention_heads": 4, "intermediate_size": 1024},
    "tiny": {"num_hidden_layers": 2, "hidden_size": 64, "num_attention_heads": 2, "intermediate_size": 128},
}

Config = Mapping[str, Any]
Run = Callable[[], Any]


def batch() -> tuple[Any, Any, Any]:
    """Token ids [rows, length] whose rows end in padding (id 0), what is real (1) and what not (0), labels [rows]."""
    import numpy as np

    random = np.random.default_rng(0)
    real = np.arange(LENGTH) < np.linspace(LENGTH * 3 // 4, LENGTH, ROWS)[:, None]
    ids = np.where(real, random.integers(1, 20000, (ROWS, LENGTH)), 0)
    return ids.astype("int32"), real.astype("int32"), random.integers(0, LABELS, ROWS).astype("int32")


# ---- the systems: each gives a function that takes one training step, or encodes one batch, and waits for the result


def tfloader_classifier(config: Config, dtype: str, labels: int, variant: str = "") -> Any:
    import keras

    import tfloader
    from tfloader.optimizers import AdaFactor

    scope: Any = contextlib.nullcontext()
    if variant == "remat":
        parts = ("MultiHeadSelfAttention", "FeedForward")
        names = [f"Transformer-{index}-{part}" for index in range(config["num_hidden_layers"]) for part in parts]
        scope = keras.RematScope("list_of_layers", layer_names=names)
    with scope:
        encoder = tfloader.build_transformer_model(config, with_pool=True, dtype=dtype)
    features = keras.layers.Dropout(config["hidden_dropout_prob"], dtype=dtype)(encoder.output)
    model = keras.Model(encoder.inputs, keras.layers.Dense(labels, dtype="float32")(features))
    optimizer = AdaFactor(RATE) if variant == "AdaFactor" else keras.optimizers.AdamW(RATE)
    model.compile(optimizer, keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    if variant.startswith("FGM"):
        tfloader.adversarial_training(model, "Embedding-Token", tfloader.FGM(clean="clean" in variant))
    return model


def tfloader_trainer(config: Config, dtype: str, variant: str = "") -> Run:
    ids, _, labels = batch()
    model = tfloader_classifier(config, dtype, LABELS, variant)
    return lambda: model.train_on_batch([ids, ids * 0], labels)


def tfloader_encoder(config: Config, dtype: str) -> Run:
    import tfloader

    ids, _, _ = batch()
    model = tfloader.build_transformer_model(config, dtype=dtype)
    return lambda: model.predict_on_batch([ids, ids * 0])


def keras_hub_backbone(config: Config, dtype: str) -> tuple[Any, dict[str, Any]]:
    from keras_hub.models import BertBackbone

    backbone = BertBackbone(
        vocabulary_size=config["vocab_size"],
        num_layers=config["num_hidden_layers"],
        num_heads=config["num_attention_heads"],
        hidden_dim=config["hidden_size"],
        intermediate_dim=config["intermediate_size"],
        dropout=config["hidden_dropout_prob"],
        max_sequence_length=config["max_position_embeddings"],
        num_segments=config["type_vocab_size"],
        dtype=dtype,
    )
    ids, real, _ = batch()
    return backbone, {"token_ids": ids, "segment_ids": ids * 0, "padding_mask": real}


def keras_hub_trainer(config: Config, dtype: str) -> Run:
    import keras
    from keras_hub.models import BertTextClassifier

    backbone, inputs = keras_hub_backbone(config, dtype)
    model = BertTextClassifier(backbone, num_classes=LABELS, preprocessor=None)
    model.compile(
        optimizer=keras.optimizers.AdamW(RATE),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=[],
    )
    labels = batch()[2]
    return lambda: model.train_on_batch(inputs, labels)


def keras_hub_encoder(config: Config, dtype: str) -> Run:
    backbone, inputs = keras_hub_backbone(config, dtype)
    return lambda: backbone.predict_on_batch(inputs)


def transformers_model(config: Config, kind: str, weights: str, **options: Any) -> tuple[Any, dict[str, Any]]:
    import torch
    import transformers

    torch.set_num_threads(os.cpu_count() or 1)
    model = getattr(transformers, kind)(transformers.BertConfig(**config, num_labels=LABELS), **options)
    ids, real, _ = batch()
    inputs = {"input_ids": torch.tensor(ids), "attention_mask": torch.tensor(real)}
    return model.to(getattr(torch, weights)), inputs


def transformers_trainer(config: Config, dtype: str) -> Run:
    """ "mixed_bfloat16" is autocast over float32 weights; "bfloat16" stores the weights so, and AdamW's moments too."""
    import torch

    mixed = dtype == "mixed_bfloat16"
    model, inputs = transformers_model(config, "BertForSequenceClassification", "float32" if mixed else dtype)
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), RATE)
    labels = torch.tensor(batch()[2]).long()

    def step() -> float:
        with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
            loss = model(**inputs, labels=labels).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss.item()

    return step


def transformers_encoder(config: Config, dtype: str) -> Run:
    import torch

    model, inputs = transformers_model(config, "BertModel", dtype, add_pooling_layer=False)
    model.eval()

    def encode() -> Any:
        with torch.inference_mode():
            return model(**inputs).last_hidden_state

    return encode


OWN, HUB, TORCH = "tfloader", "KerasHub", "transformers (torch)"
FULL, MIXED, HALF = "float32", "mixed_bfloat16", "bfloat16"
HOMES = {OWN: "own", HUB: "keras_hub", TORCH: "peers"}  # which interpreter has it

TRAINERS: dict[str, Callable[[Config, str], Run]] = {
    OWN: tfloader_trainer,
    HUB: keras_hub_trainer,
    TORCH: transformers_trainer,
}
ENCODERS: dict[str, Callable[[Config, str], Run]] = {
    OWN: tfloader_encoder,
    HUB: keras_hub_encoder,
    TORCH: transformers_encoder,
}
VARIANTS = ("FGM", "FGM, clean=True", "AdaFactor", "remat")


def measure(run: Run, steps: int) -> dict[str, float]:
    """The first call's seconds, on the clock and of all cores together; the later calls' milliseconds; peak bytes."""
    began, busy = time.perf_counter(), time.process_time()
    run()
    first, first_cpu = time.perf_counter() - began, time.process_time() - busy
    clock, cores = [], []
    for _ in range(steps):
        began, busy = time.perf_counter(), time.process_time()
        run()
        clock.append((time.perf_counter() - began) * 1e3)
        cores.append((time.process_time() - busy) * 1e3)
    return {
        "first": first,
        "first cpu": first_cpu,
        "median": statistics.median(clock),
        "least": min(clock),
        "cpu": min(cores),
        "peak": memory("VmHWM"),
    }


# ---- parts of tfloader on their own


def crf_loss(_: Config, __: str) -> Run:
    """The loss of a CRF on one batch, and its gradients."""
    import numpy as np
    import tensorflow as tf

    import tfloader

    layer = tfloader.ConditionalRandomField()
    random = np.random.default_rng(0)
    scores = tf.constant(random.standard_normal((ROWS, LENGTH, TAGS)), tf.float32)
    tags = tf.constant(random.integers(0, TAGS, (ROWS, LENGTH)), tf.int32)
    layer(scores)

    @tf.function
    def gradients() -> Any:
        with tf.GradientTape() as tape:
            tape.watch(scores)
            loss = tf.reduce_mean(layer.sparse_loss(tags, scores))
        return tape.gradient(loss, [scores, *(weight.value for weight in layer.trainable_weights)])

    return lambda: gradients()[0].numpy()


def viterbi(_: Config, __: str) -> Run:
    """The best tags of many sequences, on one core."""
    import numpy as np
    import tensorflow as tf

    import tfloader

    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    random = np.random.default_rng(0)
    scores = tf.constant(random.standard_normal((TAGGED_ROWS, LENGTH, TAGS)), tf.float32)
    transitions = tf.constant(random.standard_normal((TAGS, TAGS)), tf.float32)
    decode = tf.function(lambda: tfloader.viterbi_decode(scores, transitions)[0])
    return lambda: decode().numpy()


PARTS = {"CRF loss": crf_loss, "Viterbi": viterbi}
PADDINGS = ("to the longest of all", "to the longest of the batch", "batches of like lengths")


def measure_epoch(padding: str, config: Config) -> dict[str, float]:
    """Seconds of the second epoch over real sentences, a token a word; and which share of the tokens is padding."""
    import numpy as np

    import tfloader

    all_ids = [
        [1, *(2 + zlib.crc32(word.encode()) % 20000 for word in sentence.tokens), 2]
        for sentence in tfloader.read_tagged(SENTENCES, scheme="BIO")
    ]
    longest = max(map(len, all_ids)) if padding == PADDINGS[0] else None
    counted = {"all": 0, "real": 0}

    class Sentences(tfloader.DataGenerator):
        def collate(self, items: list[list[int]]) -> Any:
            ids = tfloader.sequence_padding(items, length=longest)
            counted["all"] += ids.size
            counted["real"] += sum(map(len, items))
            return (ids, np.zeros_like(ids)), np.array([len(item) % LABELS for item in items])

    model = tfloader_classifier(config, FULL, LABELS)
    like = len if padding == PADDINGS[2] else None
    data = Sentences(all_ids, SENTENCE_ROWS, shuffle=True, length_of=like)
    model.fit(data, verbose=0)
    began, busy = time.perf_counter(), time.process_time()
    model.fit(data, verbose=0)
    return {
        "seconds": time.perf_counter() - began,
        "cpu": time.process_time() - busy,
        "padding": 1 - counted["real"] / counted["all"],
        "sentences": len(all_ids),
        "longest": max(map(len, all_ids)),
    }


# ---- the report


class Report:
    """Runs the processes and writes the sections, and keeps what they found for the goals."""

    def __init__(self, pythons: Mapping[str, str], size: str, repetitions: int, steps: int) -> None:
        self.pythons, self.size, self.repetitions, self.steps = pythons, size, repetitions, steps
        self.found: dict[Any, list[dict[str, Any]]] = {}

    def train(self) -> str:
        wanted = {(system, dtype): [system] for dtype in (FULL, MIXED) for system in TRAINERS}
        wanted[TORCH, HALF] = [TORCH]
        runs = self._measure("--train", wanted)
        return f"### Training step\n\n{steps_table(runs)}"

    def encode(self) -> str:
        runs = self._measure("--encode", {(name, dtype): [name] for dtype in (FULL, HALF) for name in ENCODERS})
        return f"### Encoding\n\n{steps_table(runs)}"

    def variants(self) -> str:
        """A plain step is measured again, so that it takes turns with the others."""
        wanted = {(f"{OWN}, {name or 'plain'}", FULL): [OWN, name] for name in ("", *VARIANTS)}
        runs = self._measure("--train", wanted)
        return f"### What may be added to tfloader's training step\n\n{steps_table(runs)}"

    def tagging(self) -> str:
        runs = self._measure("--part", {(name, FULL): [name] for name in PARTS})
        lines = steps_table(runs)
        return f"### Tagging ({TAGS} tags; Viterbi {TAGGED_ROWS} x {LENGTH} on one core)\n\n{lines}"

    def padding(self) -> str:
        size = "tiny" if self.size == "tiny" else "small"
        jobs = {name: (self.pythons["own"], ["--epoch", name, size]) for name in PADDINGS}
        results = {name: medians(found) for name, found in rounds(__file__, jobs, self.repetitions).items()}
        failed = [result["error"] for result in results.values() if "error" in result]
        if failed:
            return f"### Padding\n\nmissing: {failed[0]}"
        fixed = results[PADDINGS[0]]
        lines = [
            [
                name,
                f"{result['padding']:.1%}",
                f"{result['seconds']:.1f}",
                f"{result['seconds'] / fixed['seconds']:.2f}",
                f"{result['cpu'] / fixed['cpu']:.2f}",
            ]
            for name, result in results.items()
        ]
        title = (
            f"### Padding: {fixed['sentences']:.0f} sentences of WNUT 2017, the longest of {fixed['longest']:.0f} "
            f"tokens, by {SENTENCE_ROWS}; an epoch of a BERT of {SIZES[size]['num_hidden_layers']} x "
            f"{SIZES[size]['hidden_size']}"
        )
        header = ["padding", "share of padding", "s an epoch", "ratio", "ratio of core seconds"]
        return f"{title}\n\n{table(header, lines)}"

    def _measure(self, kind: str, wanted: Mapping[tuple[str, str], Sequence[str]]) -> dict[Any, Any]:
        jobs = {
            (kind, *key): (
                self.pythons[HOMES.get(what[0], "own")],
                [kind, *what, *[""] * (2 - len(what)), key[1], self.size, str(self.steps)],
            )
            for key, what in wanted.items()
        }
        runs = rounds(__file__, jobs, self.repetitions)
        self.found |= {key: found for key, found in runs.items() if "error" not in found[-1]}
        return {key[1:]: found for key, found in runs.items()}

    # goals

    def goals(self) -> str:
        """The goals as ratios of medians, of minima, and of the cores' time."""
        lines = []
        for kind, what, dtypes in (("--train", "step", (FULL, MIXED)), ("--encode", "encode", (FULL, HALF))):
            for dtype in dtypes:
                own = self._numbers(kind, OWN, dtype)
                for peer in (HUB, TORCH):
                    lines.append(self._ratio(f"{what} {dtype} / {peer}", own, self._numbers(kind, peer, dtype), 1.0))
            if kind == "--train":
                halved = self._numbers(kind, TORCH, HALF)
                lines.append(self._ratio(f"{what} {MIXED} / {TORCH}, weights in {HALF}", own, halved))
        plain = self._numbers("--train", f"{OWN}, plain", FULL)
        for name in VARIANTS:
            goal = FGM_GOAL if name.startswith("FGM") else None
            own = self._numbers("--train", f"{OWN}, {name}", FULL)
            lines.append(self._ratio(f"{name} / plain step", own, plain, goal))
        crf = self._numbers("--part", "CRF loss", FULL)
        for dtype in (FULL, MIXED):
            step = self._numbers("--train", OWN, dtype)
            lines.append(self._ratio(f"CRF loss / step {dtype}", crf, step, CRF_GOAL))
        for dtype in (FULL, MIXED):
            if found := self.found.get(("--train", OWN, dtype)):
                firsts = [medians(found)["first"], *(min(run[key] for run in found) for key in ("first", "first cpu"))]
                cells = [f"{first:.1f} s" for first in firsts]
                lines.append([f"first step {dtype}", *cells, f"{FIRST_GOAL:.0f} s", met(firsts[1] <= FIRST_GOAL)])
        if speed := self._numbers("--part", "Viterbi", FULL):
            rates = [TAGGED_ROWS * LENGTH / value * 1e3 for value in speed]
            cells = [f"{rate / 1e3:.0f}k" for rate in rates]
            goal = f"{VITERBI_GOAL / 1e3:.0f}k"
            lines.append(["Viterbi, tokens a second and core", *cells, goal, met(rates[1] >= VITERBI_GOAL)])
        header = ["tfloader", "of medians", "of minima", "of core time", "goal", "met (minima)"]
        return f"### Goals\n\n{table(header, [line for line in lines if line])}"

    def _numbers(self, *key: str) -> list[float]:
        """Median, minimum, least time of all cores; nothing if it was not measured."""
        found = self.found.get(key)
        if not found:
            return []
        return [medians(found)["median"], min(run["least"] for run in found), min(run["cpu"] for run in found)]

    def _ratio(self, what: str, own: list[float], other: list[float], goal: float | None = None) -> list[str]:
        if not own or not other:
            return []
        ratios = [a / b for a, b in zip(own, other, strict=True)]
        return [what, *(f"{ratio:.3g}" for ratio in ratios), f"{goal or ''}", met(ratios[1] <= goal) if goal else ""]


def steps_table(runs: Mapping[tuple[str, str], list[dict[str, Any]]]) -> str:
    lines = []
    for (system, dtype), found in runs.items():
        middle = medians(found)
        if "error" in middle:
            lines.append([system, dtype, f"missing: {middle['error']}", *[""] * 5])
            continue
        least = min(run["least"] for run in found), min(run["cpu"] for run in found)
        firsts = middle["first"], min(run["first cpu"] for run in found)
        cells = [*(f"{value:.1f}" for value in firsts), *(f"{value:.4g}" for value in (middle["median"], *least))]
        lines.append([system, dtype, *cells, f"{middle['peak'] / MB:.0f}"])
    return table(["system", "dtype", "first call s", "core s", "median ms", "least ms", "core ms", "peak MB"], lines)


SECTIONS = {
    "train": Report.train,
    "encode": Report.encode,
    "variants": Report.variants,
    "tagging": Report.tagging,
    "padding": Report.padding,
}


CHILDREN = ("--train", "--encode", "--part", "--epoch", "--versions")


def config_of(size: str) -> Config:
    return {**bert_base()[0], **SIZES[size]}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="one round of 2 steps in place of three of 5")
    parser.add_argument("--size", choices=SIZES, default="base", help="tiny: to see whether everything runs")
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=list(SECTIONS), help="what is measured")
    parser.add_argument("--peers-python", default=sys.executable, help="interpreter with transformers and torch")
    parser.add_argument("--keras-hub-python", default=sys.executable, help="interpreter that has KerasHub")
    options = parser.parse_args()
    pythons = {"own": sys.executable, "peers": options.peers_python, "keras_hub": options.keras_hub_python}
    print(machine(), end="\n\n")
    for home, python in pythons.items():
        found = in_fresh_process(__file__, "--versions", python=python)
        print(f"- {home}: {', '.join(f'{name} {version}' for name, version in found.items())}")
    print(flush=True)
    report = Report(pythons, options.size, *((1, 2) if options.quick else (3, 5)))
    for name in options.only:
        before = os.getloadavg()[0]
        print(SECTIONS[name](report), end="\n\n")
        print(f"Load average {before:.0f} before, {os.getloadavg()[0]:.0f} after.\n", flush=True)
    print(report.goals())


def child(*arguments: str) -> dict[str, Any]:
    """What a process of its own measures, or the whole message of its error."""
    try:
        match arguments:
            case ["--train", system, variant, dtype, size, steps]:
                make = functools.partial(TRAINERS[system], **({"variant": variant} if variant else {}))
                return measure(make(config_of(size), dtype), int(steps))
            case ["--encode", system, _, dtype, size, steps]:
                return measure(ENCODERS[system](config_of(size), dtype), int(steps))
            case ["--part", part, _, dtype, size, steps]:
                return measure(PARTS[part](config_of(size), dtype), int(steps))
            case ["--epoch", padding, size]:
                return measure_epoch(padding, config_of(size))
        return versions()
    except Exception as error:
        return {"error": " ".join(f"{type(error).__name__}: {error}".split())[:200]}


if __name__ == "__main__":
    if sys.argv[1:2] and sys.argv[1] in CHILDREN:
        print(json.dumps(child(*sys.argv[1:])))
    else:
        main()
