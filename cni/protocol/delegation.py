"""Runs another plugin from CNI_PATH with our environment and configuration ("Plugin Delegation", SPEC.md).

`cni.verbs.delegate` decides which plugin, and what to do with its answer; `child` runs the process.
"""

from __future__ import annotations

import posix
import sys

from cni.protocol import child
from cni.protocol.errors import INTERNAL, INVALID_CONFIG, INVALID_ENVIRONMENT, IO_FAILURE, CniError, kernel_refused
from cni.protocol.fields import Fields, quote
from cni.protocol.jsontext import dumps, loads
from cni.protocol.request import Request
from cni.protocol.results import parse_result
from cni.protocol.spec import Result
from nft.system import exists, is_file, same_file, variable

SECONDS = 120  # then the plugin is killed; dhcp gives up earlier
DEPTH = "NFTCNI_DEPTH"  # how many processes of ours have called us, through other plugins
DEEPEST = 2
STUB = b"from cni.main import main"  # a line of conf/nftcni, and of the executable that conf/install writes


def run_plugin(request: Request, kind: str, verb: str, seconds: int = SECONDS) -> Result | None:
    """The plugin's result on ADD, None for other verbs. Raises CniError; the plugin's own error passes unchanged. Its
    stderr is ours."""
    program = find_plugin(kind, request.path)
    if is_ourselves(program):
        if verb in ("DEL", "GC"):
            return None  # it was never started, so there is nothing to undo
        raise CniError(
            INVALID_CONFIG,
            f'ipam.type: "{kind}": {program} is nftcni itself, which would call itself without end',
            "put the plugin of that name there, or leave ipam.type out for the built-in addresses",
        )
    depth = _depth()
    if depth >= DEEPEST:
        raise CniError(
            INVALID_CONFIG,
            f'ipam.type: "{kind}": the plugins call each other in a circle: nftcni called itself {depth} levels deep',
            f"look at what {program} calls",
        )
    environment = {**posix.environ, b"CNI_COMMAND": verb.encode(), DEPTH.encode(): str(depth + 1).encode()}
    try:
        code, output = child.run(program, dumps(request.document).encode(), environment, seconds)
    except child.TooLong:
        raise CniError(IO_FAILURE, f"ipam.type {kind}: {verb} by {program} took more than {seconds} s") from None
    except OSError as error:
        raise kernel_refused(f"ipam.type {kind}: {verb} by {program}", error) from None
    text = output.decode("utf-8", "replace")
    if code:
        raise _refusal(kind, verb, text, code)
    if verb != "ADD":
        return None
    try:
        return parse_result(Fields(loads(text), f"result of {kind}"))
    except ValueError as problem:
        said = f"it said {quote(text.strip()[:200])}" if text.strip() else "it said nothing"
        raise CniError(INTERNAL, f"ipam.type {kind}: its answer to ADD is not JSON: {problem}", said) from None


def find_plugin(kind: str, path: tuple[str, ...]) -> str:
    """The plugin's path. Raises CniError 4 if no folder has it."""
    for folder in path:
        program = f"{folder}/{kind}"
        if folder and is_file(program):
            return program
    raise CniError(INVALID_ENVIRONMENT, f'ipam.type: "{kind}" is in no folder of CNI_PATH', ":".join(path))


def is_ourselves(program: str) -> bool:
    """Whether the program is nftcni: a link of either kind to the executable that runs now, or a copy of any version's
    stub."""
    try:
        if exists(sys.argv[0]) and same_file(program, sys.argv[0]):
            return True
        with open(program, "rb") as file:
            head = file.read(4096)
    except OSError:
        return False  # the error of starting it says what is wrong
    return head.startswith(b"#!") and STUB in map(bytes.strip, head.splitlines())


def _depth() -> int:
    text = variable(DEPTH)
    return int(text) if text.isascii() and text.isdigit() and len(text) < 4 else 0


def _refusal(kind: str, verb: str, text: str, code: int) -> CniError:
    try:
        fields = Fields(loads(text))
        return CniError(
            fields.number("code", INTERNAL, 0, 1 << 31), f"{kind}: {fields.text('msg')}", fields.text("details")
        )
    except (ValueError, CniError):
        how = f"was killed by signal {-code}" if code < 0 else f"failed with exit status {code}"
        said = f"it said {quote(text.strip()[:200])}" if text.strip() else ""
        return CniError(INTERNAL, f"ipam.type {kind}: {verb} {how}", said)
