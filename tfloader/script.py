"""What the scripts in convert/ do: `tfloader download` and then `tfloader convert`."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence

from tfloader import cli
from tfloader.downloads.catalogue import CATALOGUE


def main(group: str, about: str, argv: Sequence[str] | None = None) -> int:
    """Downloads a release of a group and writes it in another format; returns the exit status.

    Args:
        group: the script's name; its releases are the rows of the catalogue that name it.
        about: its docstring.
        argv: the command line. What is not known here goes to `tfloader convert`.
    """
    rows = {name: row for name, row in CATALOGUE.items() if row.group == group}
    cuts = {name: row.cut for name, row in rows.items() if row.cut}
    parser = argparse.ArgumentParser(
        f"{group}.py", description=about, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("name", metavar="NAME", choices=[name for name in rows if name not in cuts], help="the release")
    parser.add_argument("target", metavar="DST", help="the folder to be made")
    parser.add_argument("--source", metavar="FOLDER", help="where the download is, or is to go (default: NAME)")
    for names, arguments in cli.COMMANDS[cli.download]:
        if names[0] in ("--mirror", "--offline", "--allow-pickle"):
            parser.add_argument(*names, **arguments)
    parser.set_defaults(cut=None)
    for name, cut in cuts.items():
        parser.add_argument(cut.option, dest="cut", action="store_const", const=name, help=cut.help)
    parser.epilog = "All other options are those of `tfloader convert`, such as --to tensorflow or --dtype float16."
    options, rest = parser.parse_known_args(argv)

    settings = [f"--mirror={options.mirror}"] if options.mirror else []
    settings += [f"--{name.replace('_', '-')}" for name in ("offline", "allow_pickle") if getattr(options, name)]
    wanted = {options.name: options.source or options.name}
    if options.cut:
        vocabulary = f"{wanted[options.name]}-vocabulary"
        wanted[options.cut] = vocabulary
        keep = os.path.join(vocabulary, cuts[options.cut].keep_tokens)
        rest = [f"--keep-tokens={keep}", f"--tokenizer={vocabulary}", *rest]
    for name, folder in wanted.items():
        status = cli.main(["download", name, "--output", folder, *settings])
        if status:
            return status
    return cli.main(["convert", wanted[options.name], options.target, *rest])
