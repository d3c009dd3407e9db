"""Chinese text from GPT2_ML, the published 1.5B model, sampled as its authors do; in bfloat16 it needs 4 GB of memory.

python examples/generate_gpt2_ml.py gpt2-ml-15g "今天天气"          (a folder: checkpoint, config file, vocabulary)
python examples/generate_gpt2_ml.py model.ckpt-220000 "今天天气" --config mega.json --vocab clue-vocab.txt --samples 3

There are two releases (github.com/imcaspar/gpt2-ml): one trained on 15 GB of text with BERT's vocabulary of 21128
tokens, one on 30 GB with CLUE's of 8021. Their ids differ, so the full stop is looked up by its text.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tensorflow as tf

import tfloader

FULL_STOP = "。"
# Padding in training, which was given no loss: the authors' sampler never chooses it. Here it says that a text is over.
END = 0


def ends_with(mark: int, minimum: int) -> Callable[[Any, Any], Any]:
    """A logits processor: a text of `minimum` new tokens or more ends with its next `mark`.

    Before, a mark may come and the text goes on, unlike with min_new_tokens, which would forbid it. `END` is all that
    may follow the last mark, and may follow nothing else.
    """

    def process(logits: Any, context: Any) -> Any:
        over = (context.tokens[:, -1] == mark) & (context.generated >= max(minimum, 1))
        is_end = tf.range(tf.shape(logits)[1]) == END
        return tf.where(is_end[None, :] == over[:, None], logits, float("-inf"))

    return process


def habits(generator: tfloader.TextGenerator, minimum: int) -> dict[str, Any]:
    """Generation options for this model's vocabulary."""
    tokenizer = generator.tokenizer
    mark = tokenizer.token_to_id(FULL_STOP)
    if tokenizer.id_to_token(mark) != FULL_STOP:
        raise SystemExit(f"The vocabulary of {tokenizer.vocab_size} tokens has no {FULL_STOP!r}: is it GPT2_ML's?")
    unused = range(tokenizer.vocab_size, generator.config.vocab_size)  # the 15 GB model has two rows without a token
    return {
        "do_sample": True,
        "eos_token_id": END,
        "logits_processor": ends_with(mark, minimum),
        "suppress_tokens": list(unused),
    }


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="the checkpoint: its folder, or its path without .index")
    parser.add_argument("prompt", help="how the text begins")
    parser.add_argument("--config", type=Path, help="the config file (mega.json), if it is not beside the checkpoint")
    parser.add_argument("--vocab", type=Path, help="the vocabulary, if it is not beside the checkpoint")
    parser.add_argument("--dtype", default="bfloat16", help="float32 needs twice the memory")
    parser.add_argument("--top-p", type=float, default=0.95, help="the authors' default is 0.95")
    parser.add_argument("--min-length", type=int, default=128, help=f"new tokens before a {FULL_STOP} ends the text")
    parser.add_argument("--max-length", type=int, default=256, help="most new tokens; with the prompt at most 1024")
    parser.add_argument("--samples", type=int, default=1, help="texts to make; a single one is shown as it comes")
    parser.add_argument("--seed", type=int, help="makes samples reproducible")
    options = parser.parse_args(argv)

    tokenizer = tfloader.load_tokenizer(options.vocab or options.model, family="gpt2_ml")  # no [CLS], no [SEP]
    model = tfloader.load(options.model, model="gpt2_ml", config=options.config, dtype=options.dtype)
    generator = tfloader.TextGenerator(model, tokenizer)
    asked = habits(generator, options.min_length) | {
        "top_p": options.top_p,
        "max_new_tokens": options.max_length,
        "seed": options.seed,
    }
    if options.samples == 1:
        print(options.prompt, end="", flush=True)
        for piece in generator.stream(options.prompt, **asked):
            print(piece, end="", flush=True)
        print()
    else:
        for text in generator.generate(options.prompt, num_return_sequences=options.samples, **asked):
            print(f"{options.prompt}{text}\n")


if __name__ == "__main__":
    main()
