"""The CNI specification line by line: SPEC.md 1.1.0, and where it is silent what libcni and its skel package do.

test_spec_index has the whole list with numbers, and says which test shows which line. DEL is test_spec_del, results are
test_spec_results, bad values test_bad_input.
"""

from __future__ import annotations

import os
import stat
import time

import pytest
from support.scratch import CHECKOUT, PLUGIN, Host, network, port

VERSIONS = ("0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0")
GC_LIST: list[object] = []


def config_for(verb: str, version: str = "1.1.0") -> dict[str, object]:
    config = network("net0", version=version)
    if verb == "GC":
        config["cni.dev/valid-attachments"] = GC_LIST
    if verb == "CHECK":
        config["prevResult"] = {"cniVersion": version, "ips": []}
    return config


# 1.1 Invocation and environment


def test_one_executable_serves_through_a_symlink_of_its_name(host: Host) -> None:
    """Any other name that leads to it might be a delegate's, and it would call itself."""
    for name in ("nftcni-web", "some-type"):
        host.file(f"/run/{name}").symlink_to(CHECKOUT / "conf" / "nftcni")
    host.container("c1")
    assert host.cni("ADD", network(), plugin="/run/nftcni-web").status == 0
    refused = host.cni("ADD", network(), "c2", netns="/run/netns/c1", ifname="eth1", plugin="/run/some-type")
    assert refused.code == 7 and "some-type" in refused.words
    assert stat.S_IMODE(os.stat(CHECKOUT / "conf" / "nftcni").st_mode) & 0o111


@pytest.mark.parametrize(
    ("verb", "required"),
    [
        ("ADD", ("CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_PATH")),
        ("CHECK", ("CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_PATH")),
        ("DEL", ("CNI_CONTAINERID", "CNI_IFNAME", "CNI_PATH")),
        ("GC", ("CNI_PATH",)),
        ("STATUS", ()),
    ],
)
def test_required_environment_of_each_verb(host: Host, verb: str, required: tuple[str, ...]) -> None:
    host.container("c1")
    names = ("CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_PATH")
    for name in names:
        before = host.snapshot()
        answer = host.cni(verb, config_for(verb), env={name: ""})
        if name in required:
            assert answer.code == 4 and name in answer.words
            assert host.snapshot() == before
        else:
            assert answer.code != 4
        host.cni("DEL", network())


def test_all_missing_variables_are_named_at_once(host: Host) -> None:
    answer = host.refused("ADD", network(), env={"CNI_CONTAINERID": "", "CNI_NETNS": "", "CNI_IFNAME": ""})
    assert all(name in answer.words for name in ("CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"))


def test_unused_variables_are_not_looked_at(host: Host) -> None:
    broken = {"CNI_CONTAINERID": "../x", "CNI_NETNS": "nowhere", "CNI_IFNAME": "a/b"}
    for verb in ("GC", "STATUS", "VERSION"):
        assert host.cni(verb, config_for(verb), env=broken).status == 0, verb


def test_ids_and_names_of_the_longest_kind_in_use(host: Host) -> None:
    """nerdctl's IDs have 72 characters and more with long containerd namespaces; comments in the table only 128."""
    config = network("k8s-pod-network.with_all.of-them", ports=[port(8080, 80)])
    container = "default-" + "0123456789abcdef" * 8
    netns = host.container("c1").path
    before = host.snapshot()
    host.add(config, container, netns=netns)
    assert host.namespaces[0].link("eth0")
    host.delete(config, container, netns=netns)
    assert host.snapshot() == before


def test_the_namespace_may_be_given_by_a_process(host: Host) -> None:
    """nerdctl's hook says /proc/PID/ns/net."""
    container = host.container("c1")
    with host.popen("ip", "netns", "exec", "c1", "sleep", "60") as process:
        try:
            # nsenter and ip have exec'd their way to sleep, in the same process.
            comm = host.file(f"/proc/{process.pid}/comm")
            assert any("sleep" in comm.read_text() or time.sleep(0.01) for _ in range(1000))
            result = host.add(network(), netns=f"/proc/{process.pid}/ns/net")
        finally:
            process.kill()
    assert result["interfaces"][2]["sandbox"] == f"/proc/{process.pid}/ns/net"
    assert container.addresses("eth0") == {"10.88.0.2/24"}


@pytest.mark.parametrize("ifname", ["eth0", "a", "veth-in.side_15", "lan0@x"])
def test_interface_names_that_are_allowed(host: Host, ifname: str) -> None:
    host.add(network(), ifname=ifname)
    assert host.namespaces[0].link(ifname) is not None
    host.delete(network(), ifname=ifname)


def test_an_interface_name_in_use_is_an_error(host: Host) -> None:
    container = host.container("c1")
    container.run("ip", "link", "add", "eth0", "type", "veth", "peer", "name", "eth9")
    answer = host.refused("ADD", network())
    assert answer.code == 103 and "eth0" in answer.words
    assert container.link("eth0") is not None


def test_tracing_variables_and_the_rest_of_the_environment_do_no_harm(host: Host) -> None:
    noise = {"TRACEPARENT": "00-0-0-01", "BAGGAGE": "x", "PYTHONPATH": "/nonexistent", "PYTHONHOME": "/nonexistent"}
    host.container("c1")
    assert host.cni("ADD", network(), env={**noise, "LANG": "C", "PYTHONSTARTUP": "/x"}).status == 0


# 1.2 The document on stdin


def test_unknown_keys_and_capabilities_are_tolerated(host: Host) -> None:
    config = network(capabilities={"portMappings": True}, somebodys={"key": 1}, nerdctlID="x")
    config["runtimeConfig"] = {"portMappings": None, "io.kubernetes.cri.pod-annotations": {"a": "b"}, "cgroupPath": "x"}
    host.add(config)


def test_keys_match_without_regard_to_case(host: Host) -> None:
    """Go's decoder does, and go-cni sends `HostPort` (containerd/go-cni types.go)."""
    config = {
        **{"CNIVersion": "1.0.0", "NAME": "net0", "Type": "nftcni", "BRIDGE": "br-case", "IPMASQ": False},
        "IPAM": {"Type": "host-local", "RANGES": [[{"Subnet": "10.88.0.0/24", "RangeStart": "10.88.0.50"}]]},
        "RuntimeConfig": {"PortMappings": [{"HOSTPORT": 8080, "containerport": 80, "Protocol": "tcp"}]},
    }
    result = host.add(config)
    assert result["ips"][0]["address"] == "10.88.0.50/24"
    assert "masq4" not in host.elements() and len(host.elements()["dnat4"]) == 1


def test_a_missing_version_means_0_1_0(host: Host) -> None:
    result = host.add(network(version=None))  # type: ignore[arg-type]
    assert result["cniVersion"] == "0.1.0" and "ip4" in result


@pytest.mark.parametrize("version", ["0.3", "1.0", "2.0.0", "v1.0.0", "1.1.0 "])
def test_versions_are_matched_exactly(host: Host, version: str) -> None:
    answer = host.refused("ADD", network(version=version))
    assert answer.code == 1 and version in answer.words and "1.1.0" in answer.words


# 1.3 ADD


@pytest.mark.parametrize("version", VERSIONS)
def test_add_and_del_in_every_version(host: Host, version: str) -> None:
    config = network("net0", "10.88.0.0/24", "fd00:88::/64", version=version, ports=[port(8080, 80)])
    host.container("c1")
    before = host.snapshot()
    result = host.add(config)
    assert result["cniVersion"] == version
    host.delete({**config, "prevResult": result})
    assert host.snapshot() == before


def test_an_earlier_plugins_result_stays_in_the_result(host: Host) -> None:
    before = {
        "cniVersion": "1.1.0",
        "interfaces": [{"name": "net9", "sandbox": "/run/netns/c1", "mac": "02:00:00:00:00:01"}],
        "ips": [{"address": "192.0.2.5/24", "interface": 0}],
        "dns": {"nameservers": ["192.0.2.53"]},
    }
    result = host.add(network(prevResult=before))
    assert [item["name"] for item in result["interfaces"]][::3] == ["net9", "eth0"]
    assert [(item["address"], item["interface"]) for item in result["ips"]] == [
        ("192.0.2.5/24", 0),
        ("10.88.0.2/24", 3),
    ]
    assert result["dns"] == before["dns"]


def test_the_hosts_own_namespace_is_refused_unless_overridden(host: Host) -> None:
    answer = host.refused("ADD", network(), netns="/proc/self/ns/net")
    assert answer.code == 8 and "/proc/self/ns/net" in answer.words
    assert host.cni("ADD", network(), netns="/proc/self/ns/net", env={"CNI_NETNS_OVERRIDE": "TRUE"}).status == 0
    host.delete(network(), netns="/proc/self/ns/net")


# 1.5 CHECK, 1.6 GC and STATUS


@pytest.mark.parametrize(("verb", "since"), [("CHECK", "0.4.0"), ("GC", "1.1.0"), ("STATUS", "1.1.0")])
@pytest.mark.parametrize("version", VERSIONS)
def test_verbs_need_the_version_that_brought_them(host: Host, verb: str, since: str, version: str) -> None:
    host.container("c1")
    answer = host.cni(verb, config_for(verb, version))
    if VERSIONS.index(version) < VERSIONS.index(since):
        assert answer.code == 1 and since in answer.words and verb in answer.words
    else:
        assert answer.code in (0, 104)


def test_success_without_a_result_prints_nothing(host: Host) -> None:
    config = network()
    result = host.add(config)
    for verb in ("CHECK", "STATUS", "DEL"):
        answer = host.cni(verb, {**config, "prevResult": result})
        assert (answer.status, answer.stdout, answer.stderr) == (0, "", "")


# 1.7 VERSION


@pytest.mark.parametrize("stdin", ["", "{}", '{"cniVersion":"1.0.0"}', "garbage", '{"cniVersion":"9.9.9"}'])
def test_version_needs_nothing_and_lists_all(host: Host, stdin: str) -> None:
    dummy = {"CNI_NETNS": "dummy", "CNI_IFNAME": "dummy", "CNI_PATH": "dummy", "CNI_CONTAINERID": ""}
    answer = host.cni("VERSION", stdin, env=dummy)
    assert answer.status == 0
    assert answer.document["supportedVersions"] == list(VERSIONS)
    assert answer.document["cniVersion"] == ("1.0.0" if "1.0.0" in stdin else "1.1.0")


def test_without_a_command_it_says_what_it_is_on_stderr(host: Host) -> None:
    done = host.call(PLUGIN)
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr.startswith("CNI nftcni plugin v") and all(version in done.stderr for version in VERSIONS)


# 1.9 Errors


def test_an_error_is_one_document_on_stdout_in_the_callers_version(host: Host) -> None:
    answer = host.refused("ADD", network(version="0.4.0", mtu="big"), netns=host.container("c1").path)
    assert set(answer.document) <= {"cniVersion", "code", "msg", "details"}
    assert answer.document["cniVersion"] == "0.4.0" and answer.stderr == ""
    assert answer.stdout.count("\n") == 1


# 1.10 CNI_ARGS


def test_unknown_args_need_ignore_unknown(host: Host) -> None:
    host.container("c1")
    assert host.cni("ADD", network(), args="K8S_POD_NAME=x").code == 4
    for value in ("1", "true", "TRUE"):
        assert host.cni("ADD", network(), args=f"K8S_POD_NAME=x;IgnoreUnknown={value};K8S_POD_UID=").status == 0


@pytest.mark.parametrize("args", ["IP", "IP=1=2", "=x;", "IgnoreUnknown"])
def test_args_must_be_pairs(host: Host, args: str) -> None:
    host.container("c1")
    answer = host.refused("ADD", network(), args=args)
    assert answer.code in (4, 7)


def test_args_cni_silences_the_same_key_of_cni_args(host: Host) -> None:
    config = network(args={"cni": {"ips": ["10.88.0.40"]}})
    result = host.add(config, args="IP=10.88.0.50;IgnoreUnknown=1")
    assert [item["address"] for item in result["ips"]] == ["10.88.0.40/24"]
