"""The `tfloader` command.

A command is a function that returns the exit status and whose docstring is its help, and a line in `COMMANDS` with
its arguments. What it needs is imported inside it, so that --help and --version answer at once.
"""

from __future__ import annotations

import argparse
import inspect
import os
import sys
from collections.abc import Sequence
from typing import Any

from tfloader import __version__
from tfloader.errors import TfloaderError
from tfloader.generation.command import generate

EXIT_ERROR, EXIT_INTERRUPTED, EXIT_BROKEN_PIPE = 1, 130, 141


def info(options: argparse.Namespace) -> int:
    """Show what a checkpoint is, without loading it.

    Prints the release, the config in tfloader's words, the number of parameters, dtypes, size, files and tokenizer.
    Reads no tensor, and imports neither TensorFlow nor PyTorch (PyTorch for PyTorch files only).

    Example:
      tfloader info chinese_L-12_H-768_A-12
    """
    from tfloader import inspection

    found = inspection.info(options.path)
    if options.json:
        show_json(found)
    else:
        show("\n".join(_info_lines(found)))
    return 0


def verify(options: argparse.Namespace) -> int:
    """Check a checkpoint, from its bytes to a forward pass.

    One line a check: every variable of the model is filled from exactly one tensor, all tensors are readable and
    finite, the model holds just what the file holds, tokenizer and embedding agree, a forward pass gives finite
    numbers. The exit status is 0 if the checkpoint is sound, 1 if it is not, 2 for wrong usage.

    Example:
      tfloader verify chinese_L-12_H-768_A-12 && echo sound
    """
    from tfloader import inspection

    checks = []
    for check in inspection.verify(options.path):
        checks.append(check)
        if options.traceback and check.error:
            show_traceback(check.error)
        if not options.json:
            show(f"{check.status:<8} {check.name:<13} " + check.detail.replace("\n", "\n" + " " * 23))
    failed = [check.name for check in checks if check.status == "FAILED"]
    if options.json:
        outcomes = [{"name": check.name, "status": check.status, "detail": check.detail} for check in checks]
        show_json({"path": options.path, "sound": not failed, "checks": outcomes})
    else:
        show(f"{options.path} is {'not sound: ' + ', '.join(failed) if failed else 'sound'}")
    return EXIT_ERROR if failed else 0


def argument(*names: str, **settings: Any) -> tuple[tuple[str, ...], dict[str, Any]]:
    """What a command line takes, in the words of `ArgumentParser.add_argument`."""
    return names, settings


PATH = argument("path", metavar="PATH", help="a checkpoint: its folder, one of its files, or a TensorFlow prefix")
JSON = argument("--json", action="store_true", help="print one JSON object")
TRACEBACK = argument("--traceback", action="store_true", help="show where in the code an error arose")

COMMANDS = {
    info: (PATH, JSON),
    verify: (PATH, JSON),
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
        argument("--application", choices=("lm", "unilm"), help="for BERT: how it reads"),
        argument("--dtype", help="such as bfloat16"),
        argument("--batch-size", type=int, default=8, help="prompts decoded together (default 8)"),
        argument("--stream", action="store_true", help="print the text as it comes"),
        JSON,
    ),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command line and returns its exit status."""
    options = _parser().parse_args(argv)
    # TensorFlow's own messages would stand between the lines of ours.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        status = options.command(options)
        sys.stdout.flush()
        return status
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # Python flushes once more when it exits, which must not fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_BROKEN_PIPE
    except (TfloaderError, OSError) as error:
        if options.traceback:
            show_traceback(error)
        show(f"tfloader: error: {error}", sys.stderr)
        return EXIT_ERROR


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


def show(text: str, file: Any = None) -> None:
    """Prints text; what a file's author put into a name cannot steer the terminal."""
    safe = (c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in text)
    print("".join(safe), file=file, flush=True)


def show_json(content: Any) -> None:
    import json

    show(json.dumps(content, indent=2, default=str))


def show_traceback(error: Exception) -> None:
    import traceback

    traceback.print_exception(error)


def _info_lines(found: dict[str, Any]) -> list[str]:
    lines = {
        "path": found["path"],
        "release": found["release"],
        **{name: value for name, value in found["config"].items() if _says_something(name, value, found["config"])},
        "parts": ", ".join(found["parts"]),
        "parameters": f"{found['parameters']:,}",
        "dtypes": ", ".join(sorted(found["dtypes"])),
        "size": _size(found["bytes"]),
        "files": ", ".join(map(os.path.basename, found["files"])),
        "tokenizer": "{kind}, {vocab_size:,} tokens".format(**found["tokenizer"])
        if "kind" in found["tokenizer"]
        else f"none: {found['tokenizer']['none']}",
    }
    foreign, unknown = found["not_of_the_model"], found["unknown"]
    if foreign["tensors"]:
        numbers = f"{foreign['parameters']:,} numbers"
        lines["not of the model"] = f"{foreign['tensors']} of the tensors, {numbers} (optimizer slots and the like)"
    if unknown:
        some = ", ".join(unknown[:5]) + (", ..." if len(unknown) > 5 else "")
        lines["unknown tensors"] = f"{len(unknown)}, which load() refuses unless told to ignore them: {some}"
    width = max(map(len, lines)) + 1
    indent = "\n" + " " * (width + 1)
    return [f"{name + ':':<{width}} {value}".replace("\n", indent) for name, value in lines.items() if value != ""]


def _says_something(name: str, value: Any, config: dict[str, Any]) -> bool:
    if name.startswith("relative_") and config["max_position_embeddings"]:
        return False  # a default that such a model does not use
    return value is not None and value is not False and value != {}


def _size(nbytes: float) -> str:
    for unit in ("bytes", "kB", "MB"):
        if nbytes < 1000:
            return f"{nbytes:.4g} {unit}"
        nbytes /= 1000
    return f"{nbytes:.4g} GB"
