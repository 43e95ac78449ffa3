"""A foreign IPAM plugin, exec'd from CNI_PATH with our environment and configuration ("Plugin Delegation", SPEC.md).

Loaded only for an `ipam.type` that is not ours; it costs what an exec costs. The lock is not held meanwhile: a DHCP
server may take its time.
"""

from __future__ import annotations

import os
import sys

from cni.host import Host
from cni.model.attachment import Attachment
from cni.model.config import Network, parse_route
from cni.model.plan import plan_attachment, with_delegated
from cni.protocol.errors import INTERNAL, INVALID_ENVIRONMENT, IO_FAILURE, TRY_AGAIN_LATER, CniError, kernel_refused
from cni.protocol.fields import Fields
from cni.protocol.jsontext import dumps, loads
from cni.protocol.request import Request
from cni.protocol.spec import Dns, Result, ResultAddress
from nft.addresses import parse_address, parse_prefix

SECONDS = 120  # after that the delegate is killed; dhcp itself gives up earlier


def run_delegate(request: Request, kind: str, verb: str) -> Result | None:
    """The delegate's result on ADD. Its own error passes through unchanged; stderr goes to ours."""
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
        return read_result(Fields(loads(text), f"result of {kind}"))
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


def read_result(fields: Fields) -> Result:
    """An IPAM result of any version; raises CniError code 7 for what is not one."""
    ips = []
    for entry in fields.sections("ips"):
        prefix = entry.parsed("address", parse_prefix)
        if prefix is None:
            raise entry.fail("address", "is required")
        ips.append(ResultAddress(prefix, entry.parsed("gateway", parse_address)))
    routes = [parse_route(entry) for entry in fields.sections("routes")]
    for key in ("ip4", "ip6"):
        old = fields.section(key)
        prefix = old.parsed("ip", parse_prefix)
        if prefix is not None:
            ips.append(ResultAddress(prefix, old.parsed("gateway", parse_address)))
            routes += [parse_route(entry) for entry in old.sections("routes")]
    section = fields.section("dns")
    dns = Dns(section.texts("nameservers"), section.text("domain"), section.texts("search"), section.texts("options"))
    return Result((), tuple(ips), tuple(routes), dns)


def add_delegated(host: Host, request: Request, network: Network, netns: int, before: Attachment | None) -> Result:
    """ADD with foreign addresses: the record first, for a kill must leave something to undo; the delegate, then we."""
    from cni.bridge import with_uplink
    from cni.verbs.add import attach, refuse_held_ports, without_shared_ports
    from cni.verbs.delete import detach

    if before is not None:
        detach(host, before)
    mine = intent = plan_attachment(request, network, ())
    host.state.begin(intent)
    host.unlock()
    try:
        result = run_delegate(request, network.ipam.delegate, "ADD")
        host.lock()
        if host.record(intent.ident) != intent:
            raise CniError(TRY_AGAIN_LATER, f"{intent.ident} was deleted while {network.ipam.delegate} worked for it")
        if result is None or not result.ips:
            raise CniError(INTERNAL, f"ipam.type {network.ipam.delegate}: its answer to ADD has no address")
        item = without_shared_ports(host.state, with_uplink(host, with_delegated(intent, network, result)))
        refuse_held_ports(host.state, item)
        host.state.begin(item)
        mine = item
        return attach(host, item, netns)
    except Exception:
        undo(host, request, mine)
        raise


def undo(host: Host, request: Request, mine: Attachment) -> None:
    """The spec's rollback: the delegate's DEL, without the lock, then the record. Neither, where the runtime has added
    another one meanwhile: the delegate knows it by the same name. A second failure is only said on stderr."""
    from cni.verbs.delete import detach

    host.unlock()
    try:
        host.lock()
        found = host.record(mine.ident)
        if found is not None and found != mine and found.delegate == mine.delegate:
            return
    except (CniError, OSError) as error:
        sys.stderr.write(f"nftcni: rollback of {mine.ident}: {error}\n")
    host.unlock()
    try:
        run_delegate(request, mine.delegate, "DEL")
    except CniError as error:
        sys.stderr.write(f"nftcni: rollback of {mine.ident}: {error}\n")
    try:
        host.lock()
        if host.record(mine.ident) == mine:
            detach(host, mine)
    except (CniError, OSError) as error:
        sys.stderr.write(f"nftcni: rollback of {mine.ident}: {error}\n")
