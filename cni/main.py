"""The entry: which verb or command, its answer on stdout, the exit code. Verbs are loaded only when they are called."""

from __future__ import annotations

import gc
import os
import sys
from time import monotonic

from nft.signals import signals

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cni.protocol.request import Request


PATIENCE = 0.05  # seconds; libcni writes the configuration while we start


# STATUS is asked every few seconds, VERSION before everything; a CHECK that finds nothing is no news.
TOLD = ("ADD", "DEL", "CHECK", "GC")


def main() -> None:
    """Never returns: leaving without Python's own clean-up saves 2-9 ms, and the kernel closes everything."""
    gc.disable()  # short-lived; 1 ms
    if sys.getfilesystemencoding() != "utf-8":
        # Paths and names are bytes to the kernel and UTF-8 in JSON, whatever the locale says (Latin-1).
        os.execv(sys.executable, [sys.executable, "-ISXutf8", *sys.argv])
    os.umask(0o022)  # whatever the caller's: nobody else may write into what we make
    signals.signal(signals.SIGCHLD, signals.SIG_DFL)  # a caller that ignores it would have our children reaped unseen
    # Bounded waits end by it; a caller that blocks it would make them endless. One that waits already is discarded.
    signals.signal(signals.SIGALRM, signals.SIG_IGN)
    signals.pthread_sigmask(signals.SIG_UNBLOCK, (signals.SIGALRM,))
    if None in (sys.stdin, sys.stdout, sys.stderr):
        stand_in_for_closed()
    status = 1
    try:
        status = run()
        sys.stdout.flush()
    except BrokenPipeError:
        status = status or 1  # whoever read has enough
    except OSError as error:
        from cni.protocol.log import say

        status = status or 1
        say(f"writing to stdout: {error}")
    except Exception:  # a defect of ours in a command for people; verbs answer by a document
        from traceback import print_exc

        print_exc()
    finally:
        try:
            sys.stderr.flush()
        finally:  # it may be closed, or its disk be full
            os._exit(status)


def stand_in_for_closed() -> None:
    """For descriptors 0 to 2 that the caller has closed: a socket of ours would get the number, and our words. The one
    for stdout is not writable, so an answer that reaches nobody is an error."""
    for stream in (sys.stdin, sys.stdout, sys.stderr):
        if stream is None:
            os.open("/dev/null", os.O_RDONLY)  # gets the lowest number that is free
    sys.stdout = sys.stdout or os.fdopen(1)
    sys.stderr = sys.stderr or os.fdopen(os.open("/dev/null", os.O_WRONLY), "w")


def run() -> int:
    verb = os.environ.get("CNI_COMMAND", "")
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
    """The document for stdout, "" for none; the network, as far as it is known; and what went wrong. Whatever happens,
    the runtime gets a CNI answer."""
    version = network = ""
    try:
        from cni.protocol.roles import check_program

        check_program(sys.argv[0])
        if verb == "VERSION":
            return answer_version(), "", None
        data = None
        name = os.path.basename(sys.argv[0])
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
    """The error document. `version` is "" until the configuration has said which one the runtime speaks."""
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
    """nerdctl reads the version of `firewall` from the first line to learn what it can do; the rest of the line must
    be a semantic version (guessFirewallPluginVersion of its netutil package)."""
    from cni.protocol.roles import role_of
    from cni.protocol.versions import VERSIONS
    from cni.version import REFERENCE, VERSION

    role = role_of(sys.argv[0])
    title = f"{role} plugin v{REFERENCE}+nftcni.{VERSION}" if role else f"nftcni plugin v{VERSION}"
    sys.stderr.write(f"CNI {title}\nCNI protocol versions supported: {', '.join(VERSIONS)}\n")
    return 0


def answer_version() -> str:
    """Echoes the version asked in, as the specification says ("VERSION"); libcni's own plugins never read stdin, so
    whatever else stands there is passed over, and nothing is waited for but a moment."""
    from cni.protocol.jsontext import dumps, loads
    from cni.protocol.versions import NEWEST, VERSIONS, version_document

    asked: object = None
    if not os.isatty(0):
        try:
            document = loads(read_soon().decode())
            asked = document.get("cniVersion") if isinstance(document, dict) else None
        except (OSError, ValueError):
            asked = None
    return dumps(version_document(asked if isinstance(asked, str) and asked in VERSIONS else NEWEST))


def read_soon() -> bytes:
    """What stdin has within PATIENCE. Raises OSError, TimeoutError too. `select` would cost a shared library."""

    def too_long(_number: int, _frame: object) -> None:
        raise TimeoutError

    signals.signal(signals.SIGALRM, too_long)
    signals.setitimer(signals.ITIMER_REAL, PATIENCE)
    try:
        return os.read(0, 1 << 16)
    finally:
        signals.setitimer(signals.ITIMER_REAL, 0)


def perform(request: Request) -> str:
    """One verb but VERSION: its document, "" for none. Raises CniError."""
    from cni.protocol.roles import MAIN_ROLES

    verb = request.verb
    if request.role not in ("", *MAIN_ROLES):
        from cni.dropin.roles import answer_as

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
        from cni.protocol.results import merged, parse_previous

        previous = parse_previous(request)
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
