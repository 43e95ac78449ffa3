"""The entry: which verb or command, its answer on stdout, the exit code. Verbs are loaded only when they are called."""

from __future__ import annotations

import gc
import os
import sys

VERSION = "0.1.0"
REFERENCE = "1.9.0"  # the release of the reference plugins whose keys the drop-in names know


def main() -> None:
    """Never returns: leaving without Python's own clean-up saves 2-9 ms, and the kernel closes everything."""
    gc.disable()  # short-lived; 1 ms
    status = 1
    try:
        status = run()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def run() -> int:
    verb = os.environ.get("CNI_COMMAND", "")
    if len(sys.argv) > 1 and not verb:
        from .operator import operate

        return operate(sys.argv[1:])
    if not verb:
        return about()
    from .errors import INTERNAL, CniError

    try:
        text = answer(verb)
    except CniError as error:
        refusal = error
    except RecursionError:
        refusal = CniError(INTERNAL, "the configuration is nested too deeply")
    except Exception as error:  # a defect of ours: the runtime still gets a proper answer
        from traceback import format_exc

        last = format_exc().strip().splitlines()[-3:]
        place = " | ".join(line.strip() for line in last)
        refusal = CniError(INTERNAL, f"{verb}: unexpected {type(error).__name__}: {error}", place)
    else:
        if text:
            from .request import write_document

            write_document(text)
        return 0
    from .jsontext import dumps
    from .request import write_document
    from .spec import NEWEST, error_document

    write_document(dumps(error_document(refusal, NEWEST)))
    return 1


def about() -> int:
    """nerdctl reads the version of `firewall` from the first line to learn what it can do; the rest of the line must
    be a semantic version (guessFirewallPluginVersion of its netutil package)."""
    from .request import role_of
    from .spec import VERSIONS

    role = role_of(sys.argv[0])
    title = f"{role} plugin v{REFERENCE}+nftcni.{VERSION}" if role else f"nftcni plugin v{VERSION}"
    sys.stderr.write(f"CNI {title}\nCNI protocol versions supported: {', '.join(VERSIONS)}\n")
    return 0


def answer(verb: str) -> str:
    """The document for stdout, "" for none. Raises CniError."""
    from .jsontext import dumps
    from .spec import NEWEST, result_document, version_document

    if verb == "VERSION":
        return dumps(version_document(NEWEST))
    from .request import read_request

    request = read_request(verb)
    if request.role and request.role != "bridge":
        from .dropin import answer_as

        return answer_as(request)
    if verb == "ADD":
        from .attach import add

        return dumps(result_document(add(request), request.version))
    if verb == "DEL":
        from .detach import delete

        delete(request)
    elif verb == "CHECK":
        from .check import check

        check(request)
    elif verb == "GC":
        from .collect import collect

        collect(request)
    elif verb == "STATUS":
        from .status import status

        status(request)
    return ""
