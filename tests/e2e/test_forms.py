"""Every form of configuration that people have, through the drop-in names and through the reference plugins.

`forms.jsonl` holds them, one a line: which keys go together in public configurations (`places` says in how many), in
values of our own. Each runs on two hosts alike, one with our names, one with the reference plugins and iptables, as
libcni would run it. What the runtime is told, who reaches whom, CHECK and what DEL leaves are compared; the summary
counts. `foreign` is a main plugin that neither is: the reference's ptp under another name.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import counts
import programs
import pytest
from support.scratch import CHECKOUT, Host, Json, Namespace
from support.traffic import Server, ask

FORMS = [json.loads(line) for line in Path(__file__).with_name("forms.jsonl").read_text().splitlines()]
# A form takes seconds, on two hosts: every fourth, or with NFTCNI_FORMS=all all of them.
STEP = 1 if os.environ.get("NFTCNI_FORMS") == "all" else 4
NAMES = ("bridge", "ptp", "portmap", "firewall", "tuning", "bandwidth", "host-local", "static", "loopback")
REFERENCE = tuple(f"reference/{name}" for name in NAMES)
PORTS = [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]

# Where another answer than the reference's is right, and why: what decides it, and what the summary says.
REFUSED = {
    "iptables syntax": "conditions in iptables syntax, which the reference refuses as well on a host without iptables",
    "does not filter VLANs": "VLANs on a bridge that does not filter them",
}


class Side:
    """One host with one set of plugins."""

    def __init__(self, folder: Path, ours: bool) -> None:
        self.folder = folder
        for name in NAMES:
            target = CHECKOUT / "conf" / "nftcni" if ours else programs.BIN / "reference" / name
            (folder / name).symlink_to(target)
        (folder / "foreign").symlink_to(programs.BIN / "reference" / "ptp")
        self.host = Host()
        self.lan = self.host.neighbour()
        self.host.set_sysctl("ipv6/conf/all/forwarding", "1")  # stays on, and brings routes
        self.host.run("ip", "route", "add", "default", "via", "198.51.100.2")
        self.host.run("ip", "-6", "route", "add", "default", "via", "2001:db8:100::2")
        self.container = self.host.container("c1")

    def call(self, form: Json, verb: str, plugin: Json, previous: Json) -> Any:
        config = {key: value for key, value in plugin.items() if key != "capabilities"}
        config.update({"name": "form", "cniVersion": form["cniVersion"]})
        if (plugin.get("capabilities") or {}).get("portMappings"):
            config["runtimeConfig"] = {**config.get("runtimeConfig", {}), "portMappings": PORTS}
        if previous is not None:
            config["prevResult"] = previous
        options: dict[str, Any] = {"plugin": str(self.folder / plugin["type"]), "env": {"CNI_PATH": str(self.folder)}}
        return self.host.cni(verb, {key: value for key, value in config.items() if value != ""}, "c1", **options)

    def run(self, form: Json) -> Json:
        """{"refused": words}, or what is to be compared."""
        before = self.host.snapshot()
        result: Json = None
        for plugin in form["plugins"]:
            answer = self.call(form, "ADD", plugin, result)
            if answer.status:
                return {"refused": f"{plugin['type']}: {answer.words}"}
            result = answer.document
        found = {"result": comparable(result), "reached": self.reached(result), "check": self.check(form, result)}
        for plugin in reversed(form["plugins"]):
            answer = self.call(form, "DEL", plugin, result)
            assert answer.status == 0, answer.stdout
        return {**found, "left": self.left(before)}

    def left(self, before: Json) -> list[str]:
        """The kernel takes away routes of a link in its own time."""
        found: list[str] = []
        for _ in range(20):
            after = self.host.snapshot()
            found = sorted(key for key in before if before[key] != after[key])
            if not found:
                break
            time.sleep(0.1)
        return found

    def check(self, form: Json, result: Json) -> list[str]:
        if form["cniVersion"] not in ("0.4.0", "1.0.0", "1.1.0"):
            return []
        answers = [(plugin["type"], self.call(form, "CHECK", plugin, result)) for plugin in form["plugins"]]
        return [f"{kind}: {answer.words}" for kind, answer in answers if answer.status]

    def reached(self, result: Json) -> dict[str, bool]:
        """Who gets an answer from whom."""
        container, host, lan = self.container, self.host, self.lan
        ips = [item["address"].split("/")[0] for item in result.get("ips", [])]
        ips += [result[key]["ip"].split("/")[0] for key in ("ip4", "ip6") if key in result]
        own = next((ip for ip in ips if "." in ip and not ip.startswith("127.")), "")
        if not own:
            return {}
        time.sleep(0.2)  # the reference waits for nothing but the host port
        questions: list[tuple[str, Namespace, str, int]] = [
            *[("host to container", host, own, 80), ("container to outside", container, "198.51.100.2", 80)],
            *[("published port from outside", lan, "198.51.100.1", 8080), ("from the host", host, "127.0.0.1", 8080)],
            ("from the container itself", container, "198.51.100.1", 8080),
        ]
        with Server(container, 80), Server(lan, 80):
            return {
                what: ask(place, address, port) not in ("silence", "refused")
                for what, place, address, port in questions
            }

    def close(self) -> None:
        self.host.close()


def comparable(result: Json) -> Json:
    """Without what no two runs have in common, or no two versions of a result."""
    found = json.loads(json.dumps(result))
    for item in found.get("interfaces", []):
        item.pop("mac", None)
        item.pop("mtu", None)
        for prefix in ("veth", "bwp"):
            item["name"] = prefix if item["name"].startswith(prefix) else item["name"]
    for item in found.get("ips", []):
        item.pop("version", None)
    return {key: value for key, value in found.items() if value}


def verdict(ours: Json, theirs: Json) -> tuple[str, str]:
    """(kind, why): equal, more, less, differs, refused, both refuse."""
    if "refused" in ours:
        if "refused" in theirs:
            return "both refuse", ours["refused"]
        return "refused", ours["refused"]
    if "refused" in theirs:
        return "more", f"the reference says: {theirs['refused']}"
    lost = [what for what, there in theirs["reached"].items() if there and not ours["reached"].get(what)]
    if lost or ours["check"] or ours["left"]:
        return "less", f"{lost} {ours['check']} {ours['left']}"
    if ours["result"] != theirs["result"]:
        return "differs", f"{json.dumps(ours['result'])} instead of {json.dumps(theirs['result'])}"
    return "equal", ""


@pytest.mark.parametrize(
    "form",
    FORMS[::STEP],
    ids=[f"{n}-{'-'.join(p['type'] for p in f['plugins'])}" for n, f in enumerate(FORMS)][::STEP],
)
def test_form(form: Json, tmp_path: Path) -> None:
    programs.require(*REFERENCE)
    answers = []
    for ours in (True, False):
        folder = tmp_path / str(ours)
        folder.mkdir()
        side = Side(folder, ours)
        try:
            answers.append(side.run(form))
        finally:
            side.close()
    kind, why = verdict(*answers)
    forms = counts.FORMS.setdefault(kind, [0, 0])
    forms[0] += 1
    forms[1] += form["places"]
    reason = next((text for words, text in REFUSED.items() if words in why), "")
    if kind == "refused" and reason:
        counts.REASONS[reason] = kind
        return
    if kind == "differs" and only_destinations_differ(*answers):
        counts.REASONS["a route's destination with host bits, which we answer without"] = kind
        return
    if kind == "differs" and form["cniVersion"] == "0.2.0" and form["plugins"] == [{"type": "loopback"}]:
        counts.REASONS["the loopback's result in 0.2.0, which ours gives in the form of that version"] = kind
        return
    assert kind in ("equal", "more", "both refuse"), why


def only_destinations_differ(ours: Json, theirs: Json) -> bool:
    bare = [{**answer["result"], "routes": len(answer["result"].get("routes", []))} for answer in (ours, theirs)]
    return bare[0] == bare[1]
