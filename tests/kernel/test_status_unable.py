"""STATUS where an ADD is at work, and on kernels that lack something: 0 says that an ADD would succeed now.

A kernel without a module is hard to come by, so what asks for modules is asked for one that no kernel has.
"""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path

import pytest
from support.scratch import PLUGIN, Answer, Host, Json, network

from nft.lacking import EXPRESSIONS, lacking
from nft.netlink import NETLINK_NETFILTER, Netlink

DUAL = ("10.88.0.0/24", "fd00:88::/64")
CONFIG = network("net0", *DUAL)


def started(host: Host, config: Json, *prefix: str, path: str = "/x") -> subprocess.Popen[str]:
    """An ADD at work."""
    variables = {
        **{"CNI_COMMAND": "ADD", "CNI_CONTAINERID": "c1", "CNI_IFNAME": "eth0"},
        **{"CNI_NETNS": "/run/netns/c1", "CNI_PATH": path},
    }
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    process = host.popen(*prefix, PLUGIN, env=variables, **pipes)
    assert process.stdin is not None
    process.stdin.write(json.dumps(config))
    process.stdin.close()
    process.stdin = None
    return process


def status(host: Host, config: Json, **env: str) -> Answer:
    return host.cni("STATUS", config, container="", netns="", ifname="", env=env)


def test_during_the_first_add_of_a_boot_the_host_is_ready(host: Host) -> None:
    """Between its record and its table: containerd took the node for broken."""
    host.container("c1")
    slow = ("strace", "-qq", "-o", "/run/log", "-e", "trace=fork,vfork,clone,clone3")
    process = started(host, CONFIG, *slow, "-e", "inject=fork,clone,clone3:delay_enter=1500000:when=1")
    while not list(host.file("/run/nftcni").glob("*/attachments/net0/c1@eth0")):
        assert process.poll() is None, process.communicate()
        time.sleep(0.005)
    assert host.elements() == {}, "the table is not there yet"
    assert status(host, CONFIG).words == ""
    out, err = process.communicate()
    assert process.returncode == 0, out + err


def test_during_a_first_add_that_waits_for_its_addresses(host: Host, tmp_path: Path) -> None:
    """DHCP may take a minute, and the lock is not held meanwhile."""
    host.container("c1")
    script = tmp_path / "slow"
    script.write_text(
        "#!/bin/sh\ncat >/dev/null\n[ $CNI_COMMAND = ADD ] || exit 0\nsleep 2\n"
        """echo '{"ips": [{"address": "10.88.0.9/24", "gateway": "10.88.0.1"}]}'\n"""
    )
    script.chmod(0o755)
    config = network("net0", ipam={"type": "slow"})
    process = started(host, config, path=str(tmp_path))
    answers = []
    while process.poll() is None:
        answers.append(status(host, config, CNI_PATH=str(tmp_path)).words)
    out, err = process.communicate()
    assert process.returncode == 0, out + err
    assert set(answers) == {""} and len(answers) > 1
    host.nft("flush ruleset")
    assert status(host, config, CNI_PATH=str(tmp_path)).code == 51, "now a container is cut off"


def test_a_kernel_without_ipv6(host: Host) -> None:
    """ipv6.disable=1: no address can be added, so a network that has some can have no container."""
    host.run("mount", "-t", "tmpfs", "none", "/proc/sys/net/ipv6")
    answer = status(host, CONFIG)
    assert answer.code == 50 and "IPv6" in answer.words and "ipv6.disable" in answer.words, answer.words
    assert status(host, network("net0", DUAL[0])).status == 0


def test_this_kernel_has_what_the_table_needs(host: Host) -> None:
    with host.entered():
        netlink = Netlink(NETLINK_NETFILTER)
    assert lacking(netlink) == []
    wanted = {"nosuch": "nft_nosuch", **EXPRESSIONS}
    assert lacking(netlink, wanted) == ["nosuch (nft_nosuch)"]
    assert host.run("nft", "list", "ruleset") == "", "to ask changes nothing"
    assert status(host, CONFIG).status == 0
    netlink.close()


@pytest.mark.parametrize("verb", ["ADD", "STATUS", "DEL"])
def test_a_kernel_without_nf_tables_is_told_with_its_reason(host: Host, verb: str) -> None:
    """nfnetlink answers EINVAL for a subsystem that is not there."""
    host.container("c1")
    wrapper = host.file("/run/without")
    inject = "inject=sendto:error=EINVAL:when=1"
    wrapper.write_text(f'#!/bin/sh\nexec strace -qq -o /run/log -e trace=sendto -e {inject} {PLUGIN} "$@"\n')
    wrapper.chmod(0o755)
    answer = host.cni(verb, CONFIG, plugin="/run/without")
    assert answer.status == 1 and "sendto" in host.file("/run/log").read_text()
    assert "nf_tables" in answer.words and "EINVAL" in answer.words, answer.words
