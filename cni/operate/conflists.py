"""Check network files before a runtime reads them: mistakes and surprises, each with its line and column.

A mistake is what a runtime or ADD would refuse. Warnings are unknown keys that look like a known one, ports that no
runtime will pass on, and subnets that other files or the host's own routes have already.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

    from cni.operate.document import Document, Finding

HELP = "is this network's file valid, and does it mean what it seems to"
EXAMPLES = (
    "nftcni check",
    "nftcni check /etc/cni/net.d/10-web.conflist",
    "nftcni check --json *.conflist",
)
SCHEMA = "nftcni/check/1"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("files", metavar="FILE", nargs="*", help="default: all in /etc/cni/net.d")
    parser.add_argument("--json", action="store_true", help="for programs (schema nftcni/check)")


def run(arguments: argparse.Namespace) -> int:
    from cni.operate import conf_checks
    from cni.operate.document import ERROR
    from cni.operate.lint import read

    documents = [read(path) for path in arguments.files] if arguments.files else conf_checks.documents()
    found = {document.path: [*document.findings, *against_others(document)] for document in documents}
    wrong = any(one.level == ERROR for findings in found.values() for one in findings)
    if arguments.json:
        from cni.operate.screen import print_json

        files = [
            {"path": path, "findings": [one_document(one) for one in findings]} for path, findings in found.items()
        ]
        print_json({"schema": SCHEMA, "files": files, "valid": not wrong})
    else:
        _print(documents, found)
    return 1 if wrong else 0


def one_document(one: Finding) -> dict[str, object]:
    return {"level": one.level, "line": one.line, "column": one.column, "text": one.text, "hint": one.hint}


def _print(documents: list[Document], found: dict[str, list[Finding]]) -> None:
    from cni.operate.screen import paint

    if not documents:
        print("there is no network in the folder")
    for document in documents:
        findings = found[document.path]
        for one in sorted(findings, key=lambda one: (one.line, one.column)):
            colour = "red" if one.level == "error" else "yellow"
            hint = f" ({one.hint})" if one.hint else ""
            print(f"{document.path}:{one.line}:{one.column}: {paint(one.level, colour)}: {one.text}{hint}")
        if not findings:
            print(f"{document.path}: " + ("valid" if document.plugins else "valid, no network of nftcni"))


def against_others(document: Document) -> list[Finding]:
    """Compares with other files, and with routes of the host that do not leave by this network's own bridge."""
    from cni.kernel.rtnetlink import RT_TABLE_MAIN
    from cni.operate import conf_checks
    from cni.operate.document import WARNING, Finding, place
    from cni.operate.lint import networks_of
    from cni.operate.walk.kernel import Kernel

    if not document.plugins:
        return []
    others = [other for other in conf_checks.documents() if other.plugins and not _same(other.path, document.path)]
    networks = networks_of(document)
    bridges = {network.bridge for network in networks}
    found = []
    for other in others:
        if other.name == document.name:
            line, column = place(document.text, "name")
            found.append(Finding(WARNING, line, column, f'{other.path} is called "{document.name}" too'))
        for network in networks if other.name != document.name else ():
            if any(conf_checks.are_on_one_bridge(network, theirs) for theirs in networks_of(other)):
                line, column = place(document.text, "bridge")
                text = f"{other.path} is on the bridge {network.bridge} too"
                found.append(Finding(WARNING, line, column, text, conf_checks.NOT_ISOLATED))
    kernel = Kernel()
    try:
        routes = [
            (dst, link)
            for dst, table, link, _kind, _via in kernel.routes
            if table == RT_TABLE_MAIN and dst.length and link not in bridges
        ]
    finally:
        kernel.close()
    for prefix, text in document.subnets:
        line, column = place(document.text, text, value=True)
        for other in others:
            for taken, _text in other.subnets:
                if conf_checks.meet(prefix, taken) and not conf_checks.have_one_bridge(document, other):
                    found.append(Finding(WARNING, line, column, f"{prefix} overlaps {taken} of {other.path}"))
        for dst, link in routes:
            if conf_checks.meet(prefix, dst):
                hint = "ADD refuses a subnet that is in use elsewhere"
                if dst.length < prefix.length:
                    hint = "the host would then reach containers at these addresses, and no longer what is there now"
                found.append(
                    Finding(WARNING, line, column, f"{prefix} overlaps the host's route to {dst} by {link}", hint)
                )
    return list(dict.fromkeys(found))


def _same(one: str, other: str) -> bool:
    import os

    return os.path.realpath(one) == os.path.realpath(other)
