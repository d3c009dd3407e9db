"""The `tfloader` command.

A command is a function that returns the exit status and whose docstring is its help, and a line in `COMMANDS` with
its arguments. What it needs is imported inside it, so that --help and --version answer at once.
"""

from __future__ import annotations

import argparse
import inspect
import os
import re
import sys
import traceback
from collections.abc import Sequence
from typing import Any

from tfloader import __version__
from tfloader.config import APPLICATIONS
from tfloader.conversion import FORMATS
from tfloader.errors import ArgumentError, TfloaderError
from tfloader.generation.command import generate
from tfloader.reports import info_lines, show_checks, show_json
from tfloader.terminal import escape_what_cannot_be_encoded, flush, show, silence_tensorflow

TOKEN_LENGTH = 4096
EXIT_ERROR, EXIT_USAGE, EXIT_INTERRUPTED, EXIT_BROKEN_PIPE = 1, 2, 130, 141


def info(options: argparse.Namespace) -> int:
    """Show what a checkpoint is, without loading it.

    Prints the release, the config in tfloader's words, the number of parameters, dtypes, size, files and tokenizer.
    Reads no tensor, and does not import TensorFlow.

    Example:
      tfloader info chinese_L-12_H-768_A-12
    """
    from tfloader import inspection

    found = inspection.info(options.path, options.model, dict(options.rename))
    show_json(found) if options.json else show("\n".join(info_lines(found)))
    return 0


def verify(options: argparse.Namespace) -> int:
    """Check a checkpoint, from its bytes to a forward pass; or compare two, as `tfloader compare` does.

    One line a check: every variable of the model is filled from exactly one tensor, all tensors are readable and
    finite, the model holds just what the file holds, tokenizer and embedding agree, a forward pass gives finite
    numbers. The exit status is 0 if the checkpoint is sound, 1 if not, 2 for wrong usage.

    Example:
      tfloader verify chinese_L-12_H-768_A-12 && echo sound
    """
    if options.other is not None:
        if options.rename:
            raise ArgumentError("--rename is for one checkpoint: convert it first.")
        return compare(options)
    if options.keep_tokens:
        raise ArgumentError("--keep-tokens is for two checkpoints: name the OTHER one, too.")
    from tfloader import inspection

    checks = inspection.verify(options.path, options.model, options.ignore, dict(options.rename))
    return show_checks(options, checks, options.path, "sound")


def compare(options: argparse.Namespace) -> int:
    """Compare two checkpoints, of any formats.

    One line a check: config, all tensors, tokenizers, and the outputs for random token ids, with largest differences.
    The exit status is 0 if both are the same model, 1 if not, 2 for wrong usage.

    Example:
      tfloader compare chinese_L-12_H-768_A-12 converted && echo the same model
    """
    from tfloader.conversion import comparison, source

    given = {"model": options.model, "ignore": options.ignore}
    checks = comparison.compare(options.path, options.other, source.token_ids(options.keep_tokens), **given)
    return show_checks(options, checks, options.other, "same", "the same model")


def convert(options: argparse.Namespace) -> int:
    """Write a checkpoint in another format, provably unchanged.

    DST must not be there yet, or be empty; it appears as a whole or not at all, and SRC is only read. What DST cannot
    hold is refused before anything is written, all of it at once. Config, tokenizer and generation defaults go along.
    Tensors keep their dtype unless one is named, and stream: memory is needed for the largest, not for all. Up to 1 GB
    the result is verified: tensor by tensor, and by what both sides give for random token ids.

    Example:
      tfloader convert chinese_L-12_H-768_A-12 converted --to huggingface
    """
    from tfloader.conversion import convert

    given = (
        "source",
        "target",
        "to",
        "model",
        "dtype",
        "max_shard_bytes",
        "keep_tokens",
        "tokenizer",
        "ignore",
        "verify",
    )
    checks = convert(**{name: getattr(options, name) for name in given}, rename=dict(options.rename) or None)
    return show_checks(options, checks, options.target, "written")


def download(options: argparse.Namespace) -> int:
    """Download a checkpoint: whole and checked, or not at all.

    SOURCE is the name of a public release (without it they are listed), hf:owner/name[@revision], gs://bucket/folder,
    or the address of an archive, which is unpacked, or of another file. Run it again to continue where it stopped.
    Prints the path that the other commands take.

    Proxies come from HTTPS_PROXY and HTTP_PROXY, a mirror of Hugging Face from HF_ENDPOINT, the token for gated
    models from HF_TOKEN; HF_HUB_OFFLINE=1 forbids requests.

    Example:
      tfloader download chinese_L-12_H-768_A-12
      tfloader download hf:google/flan-t5-small --mirror https://hf-mirror.com
    """
    from tfloader import downloads

    if not options.source:
        width = max(map(len, downloads.CATALOGUE))
        show("\n".join(f"{name:<{width}}  {row.licence:<12}  {row.home}" for name, row in downloads.CATALOGUE.items()))
        return 0
    path = downloads.download(
        options.source,
        options.output,
        sha256=options.sha256,
        mirror=options.mirror,
        token=read_token(options.token_file) if options.token_file else None,
        offline=options.offline or None,
        allow_pickle=options.allow_pickle,
    )
    show_json({"path": path}) if options.json else show(path)
    return 0


def argument(*names: str, **settings: Any) -> tuple[tuple[str, ...], dict[str, Any]]:
    """What a command line takes, in the words of `ArgumentParser.add_argument`."""
    return names, settings


def read_token(path: str) -> str:
    """The token that a file holds, or standard input, of which no more is read than a token may have."""
    from tfloader.files import read_text

    if path == "-":
        token = sys.stdin.read(TOKEN_LENGTH).strip()
        if not token:
            raise ArgumentError("--token-file -: standard input holds no token.")
        return token
    if os.path.exists(path) and not os.path.isfile(path):
        raise ArgumentError(
            f"--token-file {path}: not a file. A pipe is read so: ... | tfloader download --token-file -"
        )
    return read_text(path, limit=TOKEN_LENGTH).strip()


def renaming(text: str) -> tuple[str, str]:
    """The two sides of OLD=NEW."""
    old, sign, new = text.partition("=")
    if not (old and sign):
        raise ValueError(text)
    return old, new


def number_of_bytes(text: str) -> int:
    """What "2GB", "500 MB" or "1000" means; argparse reports the ValueError."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kMG]?B)?", text.strip())
    if match is None:
        raise ValueError(text)
    return int(float(match[1]) * {"kB": 1e3, "MB": 1e6, "GB": 1e9}.get(match[2], 1))


def sha256(text: str) -> str:
    if not re.fullmatch("[0-9a-fA-F]{64}", text):
        raise ValueError(text)
    return text


PATH = argument("path", metavar="PATH", help="a checkpoint: its folder, one of its files, or a TensorFlow prefix")
MODEL = argument("--model", metavar="FAMILY", help="the family, where the names of the tensors fit several")
IGNORE = argument(
    "--ignore", action="append", default=[], metavar="PATTERN", help="tensors to leave unread, such as 'classifier.*'"
)
RENAME = argument(
    "--rename",
    action="append",
    default=[],
    type=renaming,
    metavar="OLD=NEW",
    help="names of tensors that begin with OLD, or end with it for *OLD, have NEW there",
)
KEEP_TOKENS = argument("--keep-tokens", metavar="FILE", help="OTHER has only these tokens of the first, in this order")
JSON = argument("--json", action="store_true", help="print one JSON object")
TRACEBACK = argument("--traceback", action="store_true", help="show where in the code an error arose")

COMMANDS = {
    info: (PATH, MODEL, RENAME, JSON),
    verify: (
        PATH,
        argument("other", metavar="OTHER", nargs="?", help="a second checkpoint, to be compared with the first"),
        MODEL,
        IGNORE,
        RENAME,
        KEEP_TOKENS,
        JSON,
    ),
    compare: (PATH, argument("other", metavar="OTHER", help="a second checkpoint"), MODEL, IGNORE, KEEP_TOKENS, JSON),
    convert: (
        argument("source", metavar="SRC", help="a checkpoint: its folder, one of its files, or a TensorFlow prefix"),
        argument("target", metavar="DST", help="the folder to be made"),
        argument("--to", default="huggingface", choices=FORMATS, help="the format of DST (default huggingface)"),
        MODEL,
        argument("--dtype", choices=("float32", "float16", "bfloat16"), help="default: as in SRC"),
        argument(
            "--shard-size",
            dest="max_shard_bytes",
            type=number_of_bytes,
            metavar="SIZE",
            help="split safetensors at so many bytes, such as 2GB (default 5GB)",
        ),
        argument("--keep-tokens", metavar="FILE", help="ids to keep, in their new order: a JSON list, or one a line"),
        argument("--tokenizer", metavar="PATH", help="goes along in place of the one beside SRC"),
        argument("--no-tokenizer", dest="tokenizer", action="store_false", default=None, help="none goes along"),
        IGNORE,
        RENAME,
        argument("--verify", action=argparse.BooleanOptionalAction, help="compare both sides (default: up to 1 GB)"),
        JSON,
    ),
    download: (
        argument("source", metavar="SOURCE", nargs="?", help="what to download"),
        argument("-o", "--output", metavar="FOLDER", help="where to (default: a folder of the source's name)"),
        argument("--sha256", type=sha256, metavar="HEX", help="what the file at an address must have"),
        argument("--mirror", metavar="ADDRESS", help="use this in place of the hub (default: $HF_ENDPOINT)"),
        argument("--token-file", metavar="FILE", help="the token for gated models; - is a pipe (default: $HF_TOKEN)"),
        argument("--offline", action="store_true", help="make no requests"),
        argument("--allow-pickle", action="store_true", help="take pytorch_model.bin where there is nothing else"),
        JSON,
    ),
    generate: (
        argument("given", metavar="MODEL_OR_PROMPT", nargs="*", help="a checkpoint's path, and what to continue"),
        argument("--prompts", metavar="FILE", help="a text file with one prompt a line"),
        argument("--max-new-tokens", type=int, help="at most so many new tokens (default 64)"),
        argument("--sample", action="store_true", help="draw tokens at random in place of the likeliest"),
        argument("--temperature", type=float),
        argument("--top-k", type=int),
        argument("--top-p", type=float),
        argument("--num-beams", type=int),
        argument("--seed", type=int, help="makes samples reproducible"),
        argument("--option", action="append", default=[], metavar="NAME=VALUE", help="any other option"),
        argument("--no-defaults", action="store_true", help="do not read the folder's generation_config.json"),
        MODEL,
        argument("--application", choices=APPLICATIONS[1:], help="how an encoder reads as a language model"),
        argument("--dtype", help="such as bfloat16"),
        argument("--batch-size", type=int, default=8, help="prompts decoded together (default 8)"),
        argument("--stream", action="store_true", help="print the text as it comes"),
        JSON,
    ),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command line and returns its exit status."""
    escape_what_cannot_be_encoded()
    options = _parser().parse_args(argv)
    if not options.traceback:
        silence_tensorflow()
    try:
        try:
            return options.command(options)
        finally:
            flush()
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        return EXIT_BROKEN_PIPE
    except Exception as error:
        if options.traceback:
            traceback.print_exception(error)
        kind = "" if isinstance(error, (TfloaderError, OSError)) else f"{type(error).__name__}: "
        show(f"tfloader: error: {kind}{error}", sys.stderr)
        return EXIT_USAGE if isinstance(error, ArgumentError) else EXIT_ERROR


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("tfloader", description="Public Transformer checkpoints as Keras models.")
    parser.add_argument("--version", action="version", version=f"tfloader {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for command, arguments in COMMANDS.items():
        text = inspect.getdoc(command) or ""
        sub = commands.add_parser(
            command.__name__,
            help=text.split("\n")[0].rstrip("."),
            description=text,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        for names, settings in (*arguments, TRACEBACK):
            sub.add_argument(*names, **settings)
        sub.set_defaults(command=command)
    return parser
