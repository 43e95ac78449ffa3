"""The commands for people: one parser for all, from which the help, the man page and the completion are made.

Each command is a file of this folder with HELP, EXAMPLES, `add_arguments` and `run`; `run` imports what is heavy.
"""

from __future__ import annotations

import argparse
import sys
from importlib import import_module

from cni.operate.screen import CannotLook
from cni.protocol.errors import CniError, kernel_refused

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import ModuleType

MODULES = {  # in the order in which a person needs them
    "list": "listing",
    "ports": "ports",
    "explain": "explain",
    "doctor": "doctor",
    "repair": "repair",
    "check": "conflists",
    "top": "top",
    "metrics": "metrics",
    "events": "events",
    "graph": "graph",
    "gc": "ended",
    "forget": "forget",
    "convert": "convert",
    "migrate": "migrate",
    "watch": "watch",
}
DESCRIPTION = "A whole container network on nftables: what is attached to this host, and why something does not answer."
ENVIRONMENT = {
    "NFTCNI_DATA_DIR": "the state folder, if it is not /run/nftcni",
    "NO_COLOR": "print no colours (https://no-color.org)",
}
EXIT = (
    "Exit status: 0 all well, 1 something is wrong on the host, 2 not understood, or the host could not be looked at."
)


class Parser(argparse.ArgumentParser):
    """A parser that prints help texts as written and takes no abbreviated options."""

    def __init__(self, **options: object) -> None:
        options.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        super().__init__(allow_abbrev=False, **options)  # type: ignore[arg-type]


def module_of(command: str) -> ModuleType:
    return import_module(f"cni.operate.{MODULES[command]}")


def build_parser(only: str = "") -> Parser:
    """The parser of all commands, or of the one that will run."""
    environment = "".join(f"  {name:16} {text}\n" for name, text in ENVIRONMENT.items())
    parser = Parser(prog="nftcni", description=DESCRIPTION, epilog=f"environment:\n{environment}\n{EXIT}")
    parser.add_argument("-V", "--version", action="store_true", help="print the version")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", title="commands", parser_class=Parser)
    for name in [only] if only else MODULES:
        module = module_of(name)
        examples = "".join(f"  {line}\n" for line in module.EXAMPLES)
        sub = commands.add_parser(
            name, help=module.HELP, description=(module.__doc__ or "").strip(), epilog=f"examples:\n{examples}\n{EXIT}"
        )
        module.add_arguments(sub)
        sub.set_defaults(run=module.run)
    return parser


def operate(words: list[str]) -> int:
    """Runs a command. Returns the exit status: 0 all well, 1 something is wrong on the host, 2 not understood, or the
    host could not be looked at."""
    command = words[0] if words and words[0] in MODULES else ""
    parser = build_parser(command)
    if words == ["help"]:
        words = ["--help"]
    try:
        arguments = parser.parse_args(words)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 2
    if arguments.version:
        from cni.version import VERSION

        print(f"nftcni {VERSION}")
        return 0
    if not arguments.command:
        parser.print_help(sys.stderr)
        return 2
    return perform(arguments)


def perform(arguments: argparse.Namespace) -> int:
    """Runs the command. Returns its exit status; errors become messages on stderr."""
    what = f"nftcni {arguments.command}"
    try:
        status = arguments.run(arguments)
        return status if isinstance(status, int) else 0
    except CniError as error:
        sys.stderr.write(f"{what}: {error}\n")
        return 2 if arguments.command in ("doctor", "explain") else 1
    except BrokenPipeError:
        return 1  # the reader has closed the pipe
    except OSError as error:
        sys.stderr.write(f"{kernel_refused(what, error)}\n")
        return 2 if arguments.command in ("doctor", "explain") else 1
    except KeyboardInterrupt:
        return 130
    except CannotLook as error:
        sys.stderr.write(f"{what}: {error}\n")
        return 2
