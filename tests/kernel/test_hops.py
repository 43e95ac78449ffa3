"""How many files a host port passes on its way into the table: at most 12 for ADD, 10 for DEL.

A copy of the executable records each file of ours that has a function that is given the port or returns it: as a
number, in a value or in a message's bytes. The README's Contributing section names the same files.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from support.scratch import CHECKOUT, Host, network, port

HOST_PORT = 50137
TRACER = f"""#!/usr/bin/python3 -IS
import os, posix, sys
sys.path.insert(0, "{CHECKOUT}")
files = set()
PACKED = ({HOST_PORT}).to_bytes(2, "big")

def holds(value, depth=0):
    if isinstance(value, bool) or depth > 5:
        return False
    if isinstance(value, int):
        return value == {HOST_PORT}
    if isinstance(value, (bytes, str)):
        return (PACKED in value) if isinstance(value, bytes) else "{HOST_PORT}" in value
    if isinstance(value, dict):
        return any(holds(item, depth + 1) for item in value.values())
    if isinstance(value, (list, tuple)):
        return any(holds(item, depth + 1) for item in value)
    if type(value).__name__ in ("Attachment", "Network"):
        return False
    named = type(value).__name__ in ("PortMapping", "Element")
    return named and holds(vars(value), depth + 1)

# A function that is given the whole request, network or attachment handles its ports if it names them, or passes them
# on to who does.
HANDLING = {{"mappings", "attachment_elements", "add_elements", "delete_elements", "begin"}}
HANDLING |= {{"from_document", "parse_port_mappings", "plan_attachment"}}

def look(frame, event, result):
    path = frame.f_code.co_filename
    if event in ("call", "return") and path.startswith("{CHECKOUT}/") and path not in files:
        given = [frame.f_locals.get(name) for name in frame.f_code.co_varnames[: frame.f_code.co_argcount]]
        whole = any(type(value).__name__ in ("Attachment", "Network", "Request") for value in given)
        handled = whole and HANDLING.intersection(frame.f_code.co_names)
        if handled or any(map(holds, given)) or event == "return" and holds(result):
            files.add(path)

def leave(status):
    if os.getpid() != process:
        leaving(status)
    with open("/run/hops", "w") as out:
        out.write("\\n".join(sorted(files)))
    leaving(status)

leaving, process, posix._exit = posix._exit, os.getpid(), leave
from cni.main import main
sys.setprofile(look)
main()
"""
# What serves every value alike: records, JSON and bytes.
CARRIERS = {"nft/value.py", "nft/framing.py", "cni/model/attachment.py", "cni/protocol/fields.py"}
CARRIERS |= {"cni/protocol/jsontext.py", "cni/state/files.py", "cni/state/folder.py"}
# Branches of the way into the table: where claim and record are kept, who listens there, the sysctls that forwarding
# and 127.0.0.1 need. DEL begins with the record.
BRANCHES = {
    "ADD": {
        *("cni/state/store.py", "cni/state/record.py", "cni/state/claims.py"),
        *("cni/kernel/listeners.py", "cni/forwarding.py", "cni/localnet.py"),
    },
    "DEL": {"cni/state/claims.py", "cni/forwarding.py", "cni/localnet.py"},
}


def passed(host: Host, verb: str, config: object, tmp_path: Path) -> set[str]:
    tracer = tmp_path / "nftcni"
    tracer.write_text(TRACER)
    tracer.chmod(0o755)
    answer = host.cni(verb, config, plugin=str(tracer))
    assert answer.status == 0, answer.stdout
    files = host.run("cat", "/run/hops").split()
    return {str(Path(path).relative_to(CHECKOUT)) for path in files} - CARRIERS - BRANCHES[verb]


@pytest.mark.parametrize(("verb", "limit"), [("ADD", 12), ("DEL", 10)])
def test_a_host_port_passes_few_files(host: Host, tmp_path: Path, verb: str, limit: int) -> None:
    host.add(network("net0", "10.88.0.0/24"), "first")  # the first ADD loads the whole table
    host.container("c1")
    config = network("net0", "10.88.0.0/24", ports=[port(HOST_PORT, 80)])
    if verb == "DEL":
        host.add(config, "c1")
        config = network("net0", "10.88.0.0/24")
    files = passed(host, verb, config, tmp_path)
    assert "nft/messages.py" in files, f"the port arrives: {sorted(files)}"
    assert len(files) <= limit, " ".join(sorted(files))
    path = re.search(rf"^- {verb}: (`.*?)\n(-|\n)", (CHECKOUT / "README.md").read_text(), re.DOTALL | re.MULTILINE)
    assert path and files == set(re.findall(r"`([a-z/_]+\.py)`", path[1])), sorted(files)
