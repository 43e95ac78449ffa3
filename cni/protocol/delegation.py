"""Another plugin, exec'd from CNI_PATH with our environment and configuration ("Plugin Delegation", SPEC.md).

Which plugin, and what becomes of its answer, is `cni.verbs.delegate`.
"""

from __future__ import annotations

import os

from cni.protocol.errors import INTERNAL, INVALID_ENVIRONMENT, IO_FAILURE, CniError, kernel_refused
from cni.protocol.fields import Fields
from cni.protocol.jsontext import dumps, loads
from cni.protocol.request import Request
from cni.protocol.results import parse_result
from cni.protocol.spec import Result

SECONDS = 120  # after that the plugin is killed; dhcp itself gives up earlier


def run_plugin(request: Request, kind: str, verb: str) -> Result | None:
    """The plugin's result on ADD. Its own error passes through unchanged; its stderr goes to ours."""
    import subprocess

    program = find_plugin(kind, request.path)
    environment = dict(os.environ, CNI_COMMAND=verb)
    try:
        done = subprocess.run(
            [program],
            input=dumps(request.document).encode(),
            env=environment,
            stdout=subprocess.PIPE,
            timeout=SECONDS,
            check=False,
        )
    except OSError as error:
        raise kernel_refused(f"ipam.type {kind}: starting {program} for {verb}", error) from None
    except subprocess.TimeoutExpired:
        raise CniError(IO_FAILURE, f"ipam.type {kind}: {verb} by {program} took more than {SECONDS} s") from None
    text = done.stdout.decode("utf-8", "replace")
    if done.returncode:
        raise _refusal(kind, verb, text, done.returncode)
    if verb != "ADD":
        return None
    try:
        return parse_result(Fields(loads(text), f"result of {kind}"))
    except ValueError as problem:
        raise CniError(INTERNAL, f"ipam.type {kind}: its answer to ADD is not JSON: {problem}") from None


def find_plugin(kind: str, path: tuple[str, ...]) -> str:
    for folder in path:
        program = os.path.join(folder, kind)
        if folder and os.path.isfile(program):
            return program
    raise CniError(INVALID_ENVIRONMENT, f'ipam.type: "{kind}" is in no folder of CNI_PATH', ":".join(path))


def _refusal(kind: str, verb: str, text: str, code: int) -> CniError:
    try:
        fields = Fields(loads(text))
        return CniError(
            fields.number("code", INTERNAL, 0, 1 << 31), f"{kind}: {fields.text('msg')}", fields.text("details")
        )
    except (ValueError, CniError):
        return CniError(INTERNAL, f"ipam.type {kind}: {verb} failed with exit status {code}", text.strip()[:200])
