"""The read-only stand-in for iptables: what nerdctl reads from it, and that it refuses everything else.

The command lines are those of go-iptables 0.8 and nerdctl 2.3 (pkg/portutil/iptable, pkg/ocihook).
"""

from __future__ import annotations

import subprocess

import pytest
from support.scratch import CHECKOUT, Host, network, port

PORTS = [port(8080, 80), port(5353, 53, "udp", "127.0.0.1"), port(9000, 9, "sctp", "::")]


def iptables(host: Host, *words: str, name: str = "iptables") -> subprocess.CompletedProcess[str]:
    link = host.file(f"/run/{name}")
    if not link.is_symlink():
        link.symlink_to(CHECKOUT / "conf" / "dropin" / "iptables-answers")
    return host.call("env", "PATH=/nonexistent", f"/run/{name}", *words)  # where a real one would be


def test_version_is_one_that_go_iptables_reads(host: Host) -> None:
    done = iptables(host, "--version")
    assert done.returncode == 0
    assert done.stdout.startswith("iptables v1.8.9 (nf_tables)")


def test_no_table_means_no_ports(host: Host) -> None:
    assert iptables(host, "-t", "nat", "-S", "CNI-HOSTPORT-DNAT", "1", "--wait").returncode == 0
    assert iptables(host, "-t", "nat", "-S", "CNI-HOSTPORT-DNAT", "--wait").stdout == "-N CNI-HOSTPORT-DNAT\n"


def test_published_ports_are_listed_by_family_with_their_host_addresses(host: Host) -> None:
    host.add(network("net0", "10.88.0.0/24", "fd00:88::/64", ports=PORTS))
    lines = iptables(host, "-t", "nat", "-S", "CNI-HOSTPORT-DNAT", "--wait").stdout.splitlines()
    assert lines[0] == "-N CNI-HOSTPORT-DNAT"
    assert sorted(lines[1:]) == [
        "-A CNI-HOSTPORT-DNAT -d 127.0.0.1/32 -p udp -m udp --dport 5353 -j DNAT --to-destination 10.88.0.2:53",
        "-A CNI-HOSTPORT-DNAT -p tcp -m tcp --dport 8080 -j DNAT --to-destination 10.88.0.2:80",
    ]
    lines6 = iptables(host, "-t", "nat", "-S", "CNI-HOSTPORT-DNAT", name="ip6tables").stdout.splitlines()
    assert sorted(lines6[1:]) == [
        "-A CNI-HOSTPORT-DNAT -p sctp -m sctp --dport 9000 -j DNAT --to-destination [fd00:88::2]:9",
        "-A CNI-HOSTPORT-DNAT -p tcp -m tcp --dport 8080 -j DNAT --to-destination [fd00:88::2]:80",
    ]


@pytest.mark.parametrize("table", ["nat", "filter", "mangle"])
def test_whole_listings_hold_no_container_id_that_nerdctl_would_delete_rules_by(host: Host, table: str) -> None:
    host.add(network(ports=PORTS[:1]), container="f00dfeed")
    done = iptables(host, "-t", table, "-S")
    assert done.returncode == 0
    assert "-P OUTPUT ACCEPT" in done.stdout.splitlines()
    assert "f00dfeed" not in done.stdout


@pytest.mark.parametrize("chain", ["CNI-DN-0123456789abcdef", "DOCKER"])
def test_unknown_chains_do_not_exist(host: Host, chain: str) -> None:
    done = iptables(host, "-t", "nat", "-S", chain, "1", "--wait")
    assert done.returncode == 1
    assert "No chain/target/match by that name" in done.stderr


@pytest.mark.parametrize(
    "words",
    [
        ("-t", "nat", "-A", "POSTROUTING", "-j", "MASQUERADE"),
        ("-t", "nat", "-X", "CNI-0123"),
        ("-F",),
        ("-t", "nat", "-C", "POSTROUTING", "-j", "ACCEPT"),
        ("-P", "FORWARD", "DROP"),
        (),
    ],
)
def test_changes_are_refused_with_what_to_do_instead(host: Host, words: tuple[str, ...]) -> None:
    before = host.run("nft", "-j", "list", "ruleset")
    done = iptables(host, *words)
    assert done.returncode == 2
    assert "nftcni" in done.stderr
    assert "nft" in done.stderr
    assert host.run("nft", "-j", "list", "ruleset") == before


NOMAD = ("NOMAD-ADMIN", "-o", "nomad", "-d", "172.26.64.0/20", "-j", "ACCEPT")


def test_what_nomad_asks_before_any_plugin(host: Host) -> None:
    """A chain and a rule that accept what nothing here drops (setupAdminChain of its networking_bridge_linux.go)."""
    for words in (
        ("-t", "filter", "-S", "--wait"),
        ("-t", "filter", "-N", "NOMAD-ADMIN", "--wait"),
        ("-t", "filter", "-C", *NOMAD, "--wait"),
        ("-t", "filter", "-A", *NOMAD, "--wait"),
    ):
        assert iptables(host, *words).returncode == 0, words


@pytest.mark.parametrize(
    "words",
    [
        ("-t", "nat", "-A", *NOMAD),
        ("-t", "filter", "-A", *NOMAD[:-1], "DROP"),
        ("-t", "filter", "-A", "FORWARD", *NOMAD[1:]),
        ("-t", "filter", "-A", "NOMAD-ADMIN", "-s", "192.0.2.1", "-j", "ACCEPT"),
        ("-t", "filter", "-A", *NOMAD, "-p", "tcp"),
        ("-t", "filter", "-N", "FORWARD"),
        ("-t", "nat", "-N", "NOMAD-ADMIN"),
        ("-t", "filter", "-D", *NOMAD),
        ("-t", "filter", "-A", "NOMAD-ADMIN", "!", "-o", "nomad", "-j", "ACCEPT"),
    ],
)
def test_nothing_more_is_acknowledged(host: Host, words: tuple[str, ...]) -> None:
    assert iptables(host, *words).returncode != 0


def test_what_is_dropped_is_not_acknowledged(host: Host) -> None:
    host.add(network("nomad", "172.26.64.0/20", bridge="nomad"))
    assert iptables(host, "-t", "filter", "-C", *NOMAD).returncode != 0
    other = ("NOMAD-ADMIN", "-o", "other", "-d", "10.0.0.0/24", "-j", "ACCEPT")
    assert iptables(host, "-t", "filter", "-C", *other).returncode == 0
    host.nft("table inet own { chain f { type filter hook forward priority 0; policy drop; }\n}")
    assert iptables(host, "-t", "filter", "-C", *other).returncode != 0


def test_an_ordinary_user_is_told_what_is_missing(host: Host) -> None:
    """nerdctl without root asks too; it got a traceback."""
    host.add(network("net0", "10.88.0.0/24", ports=[port(8080, 80)]))
    iptables(host, "--version")
    words = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "env", "PATH=/nonexistent")
    done = host.call(*words, "/run/iptables", "-t", "nat", "-S", "CNI-HOSTPORT-DNAT")
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr.startswith("iptables: reading the published ports: ") and done.stderr.count("\n") == 1
    assert "EPERM" in done.stderr and "needs root" in done.stderr
