"""List what was attached and detached, for whom, how long it took, and what was refused, with its message.

Each verb writes one line to the host's journal, or to syslog on a host without a journal, and this reads the lines
there. With --follow it also prints every change of the table inet nftcni, whoever makes it.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from subprocess import Popen

HELP = "what was attached, detached and refused, and when"
EXAMPLES = ("nftcni events", "nftcni events --since '1 hour ago'", "nftcni events --follow", "nftcni events --json")
SYSLOGS = ("/var/log/syslog", "/var/log/messages")
IDENTIFIER = "nftcni"
SCHEMA = "nftcni/event/1"
FIELDS = {"NFTCNI_VERB": "verb", "NFTCNI_ATTACHMENT": "attachment", "NFTCNI_CALLER": "caller"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--since", metavar="TIME", help="a time for journalctl: '2 hours ago', 'today', '09:00'")
    parser.add_argument("--follow", action="store_true", help="go on as it happens, with changes of the table")
    parser.add_argument("--json", action="store_true", help="one document for each line (schema nftcni/event)")


def run(arguments: argparse.Namespace) -> int:
    import signal
    import sys

    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # so that the programs we started end with us
    children: list[Popen[str]] = []
    try:
        return _read(arguments, children)
    finally:
        for child in children:
            child.terminate()


def _read(arguments: argparse.Namespace, children: list[Popen[str]]) -> int:
    import os
    import shutil
    import sys

    if shutil.which("journalctl") and os.path.isdir("/run/systemd/journal"):
        return _journal(arguments, children)
    if arguments.since or (arguments.json and not arguments.follow):
        sys.stderr.write("nftcni events: --since and --json need systemd's journal, which this host does not have\n")
        return 2
    found = [path for path in SYSLOGS if os.path.exists(path)]
    if not found and not arguments.follow:
        sys.stderr.write("nftcni events: no journal and no syslog on this host; nothing is kept\n")
        return 2
    if found:
        _syslog(found[0])
    return _follow_table(arguments.json, children) if arguments.follow else 0


def _journal(arguments: argparse.Namespace, children: list[Popen[str]]) -> int:
    import threading

    words = ["journalctl", f"SYSLOG_IDENTIFIER={IDENTIFIER}", "-o", "json", "--no-pager", "-q"]
    words += ["--since", arguments.since] if arguments.since else []
    words += ["--follow", "--lines=20"] if arguments.follow else []
    if arguments.follow:
        threading.Thread(target=_follow_table, args=(arguments.json, children), daemon=True).start()
    process = _start(words, children)
    assert process.stdout is not None
    for line in process.stdout:
        print_entry(line, arguments.json)
    return 2 if process.wait() else 0


def _start(words: list[str], children: list[Popen[str]]) -> Popen[str]:
    from subprocess import PIPE, Popen

    children.append(Popen(words, stdout=PIPE, text=True, errors="replace"))
    return children[-1]


def print_entry(line: str, as_json: bool) -> None:
    """Prints one line of `journalctl -o json`."""
    import json
    import time

    from cni.operate.screen import paint

    try:
        entry = json.loads(line)
    except ValueError:
        return
    message = entry.get("MESSAGE", "")
    when = int(entry.get("__REALTIME_TIMESTAMP", 0)) / 1e6
    refused = entry.get("NFTCNI_CODE", "0") != "0"
    if as_json:
        document = {"schema": SCHEMA, "time": when, "message": message}
        document.update({name: entry.get(key, "") for key, name in FIELDS.items()})
        document["ms"] = float(entry.get("NFTCNI_MS", 0))
        document["code"] = int(entry.get("NFTCNI_CODE", 0))
        print(json.dumps(document))
        return
    stamp = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(when))
    print(f"{stamp}  {paint(message, 'red') if refused else message}")


def _syslog(path: str) -> None:
    with open(path, encoding="utf-8", errors="replace") as file:
        for line in file:
            if f" {IDENTIFIER}[" in line:
                print(line.rstrip("\n"))


def _follow_table(as_json: bool, children: list[Popen[str]]) -> int:
    """Prints changes of our table; `nft monitor` reports those of all tables."""
    import json
    import time

    from nft.schema import TABLE

    process = _start(["nft", "monitor"], children)
    assert process.stdout is not None
    for line in process.stdout:
        if f"inet {TABLE}" in line:
            now = time.time()
            text = line.strip()
            if as_json:
                print(json.dumps({"schema": SCHEMA, "time": now, "message": text, "verb": "table"}))
            else:
                print(f"{time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(now))}  table: {text}")
    return 2
