"""The commands for people: list, repair, doctor, watch. They may take their time and use the slow libraries."""

from __future__ import annotations

import sys

from cni.operate.repair import describe, mend, problems_of, this_host
from cni.protocol.errors import CniError, kernel_refused
from cni.state.record import to_document

USAGE = """usage: nftcni list [--json]      the attachments of this host
       nftcni repair [--check]   rebuild the table, the ports' flags and the sysctls from the records
       nftcni doctor             what keeps this host from serving containers, and what to do
       nftcni watch              repair within a moment whenever somebody flushes the table
       nftcni --version
NFTCNI_DATA_DIR names the state folder where it is not /run/nftcni.
"""


def operate(words: list[str]) -> int:
    """The exit status: 0 well, 1 something is wrong on the host, 2 not understood."""
    if words in (["--version"], ["-V"]):
        from cni.version import VERSION

        print(f"nftcni {VERSION}")
        return 0
    commands = {
        ("list",): lambda: list_attachments(False),
        ("list", "--json"): lambda: list_attachments(True),
        ("repair",): lambda: repair(False),
        ("repair", "--check"): lambda: repair(True),
        ("doctor",): doctor,
        ("watch",): watch,
    }
    command = commands.get(tuple(words))
    if command is None:
        asked = words in (["--help"], ["-h"], ["help"])
        (sys.stdout if asked else sys.stderr).write(USAGE)
        return 0 if asked else 2
    try:
        return command()
    except CniError as error:
        sys.stderr.write(f"nftcni {words[0]}: {error}\n")
        return 1
    except OSError as error:
        sys.stderr.write(f"{kernel_refused(f'nftcni {words[0]}', error)}\n")
        return 1
    except KeyboardInterrupt:
        return 130


def list_attachments(as_json: bool) -> int:
    import json

    with this_host().transaction("listing the attachments") as host:
        items = host.records()
    if as_json:
        print(json.dumps([to_document(item) for item in items], indent=2))
        return 0
    for item in items:
        print(describe(item))
    return 0


def repair(only_check: bool) -> int:
    with this_host().transaction("repairing") as host:
        found = problems_of(host)
        for problem in found:
            print(problem)
        if only_check or not found:
            print(f"{len(found)} problems" if found else "nothing to repair")
            return 1 if found else 0
        return mend(host)


def doctor() -> int:
    from cni.operate.doctor import examine

    with this_host().transaction("examining the host") as host:
        return examine(host)


def watch() -> int:
    from cni.operate.watch import follow

    return follow()
