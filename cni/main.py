"""The entry: picks the verb or command, writes its answer to stdout, sets the exit status. It loads only what it
calls."""

from __future__ import annotations

import gc
import posix
import sys
from time import monotonic

from nft.signals import signals
from nft.system import base_name, variable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cni.protocol.request import Request


PATIENCE = 0.05  # seconds; libcni writes the configuration while we start


# STATUS comes every few seconds and VERSION before everything, so neither gets a line in the journal.
TOLD = ("ADD", "DEL", "CHECK", "GC")


def main() -> None:
    """Never returns. It leaves without Python's clean-up, which saves 2-9 ms; the kernel closes everything."""
    gc.disable()  # the process is short-lived; this saves 1 ms
    if sys.getfilesystemencoding() != "utf-8":
        # Paths and names are bytes to the kernel and UTF-8 in JSON, whatever the locale says (Latin-1).
        posix.execv(sys.executable, [sys.executable, "-ISXutf8", *sys.argv])
    posix.umask(0o022)  # whatever the caller's is: nobody else may write to our files
    signals.signal(signals.SIGCHLD, signals.SIG_DFL)  # if the caller ignores it, the kernel would reap our children
    # Bounded waits end by SIGALRM; blocked by the caller, they would be endless. A pending one is discarded.
    signals.signal(signals.SIGALRM, signals.SIG_IGN)
    signals.pthread_sigmask(signals.SIG_UNBLOCK, (signals.SIGALRM,))
    if None in (sys.stdin, sys.stdout, sys.stderr):
        stand_in_for_closed()
    status = 1
    try:
        status = run()
        sys.stdout.flush()
    except BrokenPipeError:
        status = status or 1  # the reader has closed the pipe
    except OSError as error:
        from cni.protocol.log import say

        status = status or 1
        say(f"writing to stdout: {error}")
    except Exception:  # a defect of ours in a command for people; verbs answer with a document
        from traceback import print_exc

        print_exc()
    finally:
        try:
            sys.stderr.flush()
        finally:  # stderr may be closed, or its disk full
            posix._exit(status)


def stand_in_for_closed() -> None:
    """Opens descriptors 0 to 2 if the caller has closed them: otherwise a socket of ours would get the number, and our
    output. The stand-in for stdout is not writable, so an answer that reaches nobody is an error."""
    for stream in (sys.stdin, sys.stdout, sys.stderr):
        if stream is None:
            posix.open("/dev/null", posix.O_RDONLY)  # gets the lowest free number
    from os import fdopen

    sys.stdout = sys.stdout or fdopen(1)
    sys.stderr = sys.stderr or fdopen(posix.open("/dev/null", posix.O_WRONLY), "w")


def run() -> int:
    verb = variable("CNI_COMMAND")
    if len(sys.argv) > 1 and not verb:
        from cni.operate.commands import operate

        return operate(sys.argv[1:])
    if not verb:
        return about()
    started = monotonic()
    text, network, error = answer(verb)
    status = 0 if error is None else 1
    if text:
        from cni.protocol.stdio import write_document

        status = write_document(text) or status
    if verb in TOLD and (verb != "CHECK" or error is not None):
        from cni.protocol.journal import tell

        tell(verb, network, error, monotonic() - started)
    return status


def answer(verb: str) -> tuple[str, str, Exception | None]:
    """(document for stdout or "", network or "" if unknown, error or None). Whatever happens, the runtime gets a CNI
    answer."""
    version = network = ""
    try:
        from cni.protocol.roles import check_program

        check_program(sys.argv[0])
        if verb == "VERSION":
            return answer_version(), "", None
        data = None
        name = base_name(sys.argv[0])
        if name in ("tuning", "portmap", "firewall") and verb in ("ADD", "DEL"):
            from cni.dropin.passthrough import shortcut
            from cni.protocol.stdio import read_stdin

            data = read_stdin()
            text = shortcut(name, verb, data)
            if text is not None:
                return text, "", None
        from cni.protocol.request import read_request

        request = read_request(verb, data)
        version, network = request.version, request.network
        return perform(request), network, None
    except Exception as error:
        return refuse(verb, version, error), network, error


def refuse(verb: str, version: str, error: Exception) -> str:
    """The error document. `version` is "" while the configuration has not said which version the runtime speaks."""
    from cni.protocol.errors import INTERNAL, IO_FAILURE, CniError, kernel_refused
    from cni.protocol.jsontext import dumps
    from cni.protocol.spec import error_document
    from cni.protocol.versions import NEWEST

    if isinstance(error, CniError):
        refusal = error
    elif isinstance(error, OSError):
        refusal = kernel_refused(verb, error)
    elif isinstance(error, RecursionError):
        refusal = CniError(INTERNAL, "the configuration is nested too deeply")
    elif isinstance(error, ImportError):
        refusal = CniError(IO_FAILURE, f"{verb}: loading the plugin's code: {error}", "is the installation whole?")
    else:  # a defect of ours
        from traceback import format_exc

        last = format_exc().strip().splitlines()[-3:]
        place = " | ".join(line.strip() for line in last)
        refusal = CniError(INTERNAL, f"{verb}: unexpected {type(error).__name__}: {error}", place)
    return dumps(error_document(refusal, version or NEWEST))


def about() -> int:
    """Prints name and version. nerdctl reads `firewall`'s version from the first line, whose rest must be a semantic
    version (guessFirewallPluginVersion of its netutil package)."""
    from cni.protocol.roles import role_of
    from cni.protocol.versions import VERSIONS
    from cni.version import REFERENCE, VERSION

    role = role_of(sys.argv[0])
    title = f"{role} plugin v{REFERENCE}+nftcni.{VERSION}" if role else f"nftcni plugin v{VERSION}"
    sys.stderr.write(f"CNI {title}\nCNI protocol versions supported: {', '.join(VERSIONS)}\n")
    return 0


def answer_version() -> str:
    """The answer to VERSION, which echoes the version on stdin ("VERSION" of the specification). libcni's own plugins
    never read stdin, so anything else there is ignored, and we wait only a moment for it."""
    from cni.protocol.jsontext import dumps, loads
    from cni.protocol.versions import NEWEST, VERSIONS, version_document

    asked: object = None
    if not posix.isatty(0):
        try:
            document = loads(read_soon().decode())
            asked = document.get("cniVersion") if isinstance(document, dict) else None
        except (OSError, ValueError):
            asked = None
    return dumps(version_document(asked if isinstance(asked, str) and asked in VERSIONS else NEWEST))


def read_soon() -> bytes:
    """What stdin has within PATIENCE. Raises OSError, TimeoutError included. `select` would load a shared library."""

    def too_long(_number: int, _frame: object) -> None:
        raise TimeoutError

    signals.signal(signals.SIGALRM, too_long)
    signals.setitimer(signals.ITIMER_REAL, PATIENCE)
    try:
        return posix.read(0, 1 << 16)
    finally:
        signals.setitimer(signals.ITIMER_REAL, 0)


def perform(request: Request) -> str:
    """Runs any verb but VERSION. Returns its document, "" for none. Raises CniError."""
    from cni.protocol.roles import MAIN_ROLES

    verb = request.verb
    if request.role not in ("", *MAIN_ROLES):
        from cni.dropin.dispatch import answer_as

        return answer_as(request)
    if verb == "ADD":
        from cni.model.config import has_unknown
        from cni.protocol.jsontext import dumps
        from cni.protocol.spec import result_document
        from cni.verbs.add import add

        if has_unknown(request.document):
            from cni.model.typos import tell

            tell(request)
        named = bool(request.role)
        if request.document.get("prevResult") is None:
            return dumps(result_document(add(request), request.version, named=named))
        from cni.protocol.results import merged, parse_previous, refuse_second

        previous = parse_previous(request)
        refuse_second(request, previous)
        return dumps(merged(previous.document, result_document(add(request), request.version, named=named)))
    if verb == "DEL":
        from cni.verbs.delete import delete

        delete(request)
    elif verb == "CHECK":
        from cni.verbs.check import check

        check(request)
    elif verb == "GC":
        from cni.verbs.garbage import collect_garbage

        collect_garbage(request)
    elif verb == "STATUS":
        from cni.verbs.status import status

        status(request)
    return ""
