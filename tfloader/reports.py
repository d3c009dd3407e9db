"""What the commands print of what they found, for people or as JSON."""

from __future__ import annotations

import argparse
import json
import os
import traceback
from collections.abc import Iterable
from typing import Any

from tfloader.terminal import show


def show_checks(
    options: argparse.Namespace, checks: Iterable[Any], path: str, outcome: str, words: str | None = None
) -> int:
    """Prints each check as soon as it is known, and what follows from all of them; gives the exit status."""
    words, found = words or outcome, []
    for check in checks:
        found.append(check)
        if options.traceback and check.error:
            traceback.print_exception(check.error)
        if not options.json:
            show(f"{check.status:<8} {check.name:<13} " + check.detail.replace("\n", "\n" + " " * 23))
    failed = [check.name for check in found if check.status == "FAILED"]
    if options.json:
        shown = [{"name": check.name, "status": check.status, "detail": check.detail} for check in found]
        show_json({"path": path, outcome: not failed, "checks": shown})
    else:
        show(f"{path} is {f'not {words}: ' + ', '.join(failed) if failed else words}")
    return 1 if failed else 0


def show_json(content: Any) -> None:
    show(json.dumps(content, indent=2, default=str))


def info_lines(found: dict[str, Any]) -> list[str]:
    tokenizer, foreign, unknown = found["tokenizer"], found["not_of_the_model"], found["unknown"]
    lines = {
        "path": found["path"],
        "release": found["release"],
        **{name: value for name, value in found["config"].items() if _says_something(name, value, found["config"])},
        "parts": ", ".join(found["parts"]),
        "parameters": f"{found['parameters']:,}",
        "dtypes": ", ".join(sorted(found["dtypes"])),
        "size": _size(found["bytes"]),
        "files": ", ".join(map(os.path.basename, found["files"])),
        "tokenizer": ("{kind}, {vocab_size:,} tokens" if "kind" in tokenizer else "none: {none}").format(**tokenizer),
    }
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
    from tfloader.naming.releases import expresses

    unused = name.startswith("relative_") and config["max_position_embeddings"]  # a default
    unused = unused or ("group" in name and not expresses(config["family"], name))
    return not unused and value is not None and value is not False and value != {}


def _size(nbytes: float) -> str:
    for unit in ("bytes", "kB", "MB"):
        if nbytes < 1000:
            return f"{nbytes:.4g} {unit}"
        nbytes /= 1000
    return f"{nbytes:.4g} GB"
