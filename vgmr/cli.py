"""The `vgmr` command."""

from __future__ import annotations

import sys
from importlib import import_module

COMMANDS = {
    "run": ("vgmr.notebook.run:main", "execute a notebook with parameters"),
    "batch": ("vgmr.notebook.sweep:main", "execute a grid of notebooks and parameters, here or on a cluster"),
    "data": ("vgmr.data.manage:run", "list, check or prepare data sets"),
    "records": ("vgmr.records:main", "train what the repository keeps, or check it"),
    "search": ("vgmr.search:main", "search one default for VGMR on the open data"),
    "notebooks": ("vgmr.notebook.publish:main", "execute and clean the committed notebooks, or check them"),
    "bench": ("vgmr.analysis.cost:main", "measure cost as ratios to the plain model"),
}


def main(arguments: list[str] | None = None) -> int:
    """Run `vgmr COMMAND ...`; returns the exit status."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if not arguments or arguments[0] not in COMMANDS:
        if arguments and arguments[0] not in ("-h", "--help"):
            print(f"unknown command {arguments[0]!r}", file=sys.stderr)
        print("usage: vgmr COMMAND ...\n")
        for name, (_, purpose) in COMMANDS.items():
            print(f"  {name:10}{purpose}")
        return 0 if arguments and arguments[0] in ("-h", "--help") else 2
    try:
        module, _, function = COMMANDS[arguments[0]][0].partition(":")
        status: int = getattr(import_module(module), function)(arguments[1:])
    except (ValueError, FileNotFoundError, ImportError, RuntimeError, FloatingPointError) as error:
        print(f"vgmr {arguments[0]}: {error}", file=sys.stderr)
        return 1
    return status
