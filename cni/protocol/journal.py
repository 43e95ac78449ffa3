"""Sends one line to the host's journal for each verb, after the answer and without waiting; `nftcni events` reads it.

The line is one datagram to systemd's socket in its native form (systemd.journal-fields(7)), or to syslog's (RFC 3164)
where there is no journal. A full or missing socket loses the line and costs no time: the runtime has its answer
already.
"""

from __future__ import annotations

import posix
import sys

from nft.system import base_name, variable

SILENT = ("loopback", "tuning", "firewall", "host-local")  # they only add to another plugin's attachment
JOURNAL, SYSLOG = "/run/systemd/journal/socket", "/dev/log"
AF_UNIX, SOCK_DGRAM, SOCK_NONBLOCK = 1, 2, 0o4000  # the same everywhere but on mips and alpha, where sending may wait
INFO, WARNING = 6, 4
DAEMON = 3 << 3


def tell(verb: str, network: str, refusal: Exception | None, seconds: float) -> None:
    """Sends the line. The environment says which container it is about and who asked; `network` is "" if unknown."""
    role = base_name(sys.argv[0])
    if role in SILENT and refusal is None:
        return
    container, ifname = variable("CNI_CONTAINERID"), variable("CNI_IFNAME")
    whom = f"{network or '?'}/{container}/{ifname}" if container and verb != "GC" else network or "?"
    caller = _caller()
    code = str(getattr(refusal, "code", 999)) if refusal else "0"
    millis = f"{seconds * 1000:.1f}"
    text = f"{verb} {whom} for {caller} in {millis} ms"
    if refusal is not None:
        text += f": refused, code {code}: {refusal}"
    fields = {
        "MESSAGE": text,
        "PRIORITY": str(WARNING if refusal else INFO),
        "SYSLOG_IDENTIFIER": "nftcni",
        "NFTCNI_VERB": verb,
        "NFTCNI_ATTACHMENT": whom,
        "NFTCNI_MS": millis,
        "NFTCNI_CALLER": caller,
        "NFTCNI_CODE": code,
    }
    native = "".join(f"{key}={_plain(value)}\n" for key, value in fields.items())
    if not _send(JOURNAL, native):
        _send(SYSLOG, f"<{DAEMON + (WARNING if refusal else INFO)}>nftcni[{posix.getpid()}]: {_plain(text)}")


def _plain(text: str) -> str:
    return " ".join(text.split())[:2000]


def _caller() -> str:
    """The name of the program that ran us."""
    try:
        with open(f"/proc/{posix.getppid()}/comm", "rb", 0) as file:
            return file.read().decode("utf-8", "replace").strip()
    except OSError:
        return "?"


def _send(path: str, text: str) -> bool:
    from nft.stdlib import SOCK_CLOEXEC, socket

    try:
        sock = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0)
        try:
            sock.connect(path)
            sock.send(text.encode("utf-8", "replace"))
        finally:
            sock.close()
    except OSError:
        return False
    return True
