"""The environment and stdin as one value: what each verb needs, names, CNI_ARGS, the data folder.

The rules are those of SPEC.md ("Parameters") and of libcni's pkg/skel and types.LoadArgs. stdin is a pipe that the
test fills; nothing else is replaced.
"""

from __future__ import annotations

import json
import os
import posix
from collections.abc import Iterator
from typing import Any, Callable

import pytest

from cni.protocol.errors import DECODING_FAILURE, INCOMPATIBLE_VERSION, INVALID_CONFIG, INVALID_ENVIRONMENT, CniError
from cni.protocol.request import Request, read_request
from cni.protocol.roles import role_of

FULL = {
    "CNI_CONTAINERID": "c1",
    "CNI_NETNS": "/run/netns/c1",
    "CNI_IFNAME": "eth0",
    "CNI_PATH": "/opt/a:/opt/b",
}
GOOD = {"cniVersion": "1.1.0", "name": "net0", "type": "nftcni"}
Ask = Callable[..., Request]


@pytest.fixture
def ask(monkeypatch: pytest.MonkeyPatch) -> Iterator[Ask]:
    """read_request of one verb with this stdin and environment; None takes a variable away."""
    stdin = os.dup(0)

    def read(verb: str = "ADD", document: Any = GOOD, **variables: str | None) -> Request:
        for name in [name for name in posix.environ if name.startswith((b"CNI_", b"NFTCNI_"))]:
            monkeypatch.delitem(posix.environ, name)
        for name, value in {**FULL, **variables}.items():
            if value is not None:
                monkeypatch.setitem(posix.environ, name.encode(), value.encode())
        data = document if isinstance(document, bytes) else json.dumps(document).encode()
        reader, writer = os.pipe()
        os.write(writer, data)
        os.close(writer)
        os.dup2(reader, 0)
        os.close(reader)
        return read_request(verb)

    yield read
    os.dup2(stdin, 0)
    os.close(stdin)


def refusal(ask: Ask, *words: Any, **variables: str | None) -> CniError:
    with pytest.raises(CniError) as caught:
        ask(*words, **variables)
    return caught.value


def test_everything_arrives(ask: Ask) -> None:
    found = ask(CNI_ARGS="IgnoreUnknown=1;IP=10.88.0.9;MAC=02:00:00:00:00:01;K8S_POD_NAME=x")
    assert (found.verb, found.container, found.netns, found.ifname) == ("ADD", "c1", "/run/netns/c1", "eth0")
    assert (found.version, found.network, found.path) == ("1.1.0", "net0", ("/opt/a", "/opt/b"))
    assert found.args == {"IP": "10.88.0.9", "MAC": "02:00:00:00:00:01"} and found.document == GOOD
    assert found.data_dir == "/run/nftcni"


NEEDS = {
    "ADD": {"CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_PATH"},
    "CHECK": {"CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_PATH"},
    "DEL": {"CNI_CONTAINERID", "CNI_IFNAME", "CNI_PATH"},
    "GC": {"CNI_PATH"},
    "STATUS": set(),
}


@pytest.mark.parametrize("name", FULL)
@pytest.mark.parametrize("value", [None, ""])
@pytest.mark.parametrize("verb", NEEDS)
def test_what_each_verb_needs(ask: Ask, verb: str, value: str | None, name: str) -> None:
    if name not in NEEDS[verb]:
        assert ask(verb, **{name: value}).verb == verb
        return
    error = refusal(ask, verb, **{name: value})
    assert error.code == INVALID_ENVIRONMENT and name in error.msg and verb in error.msg


@pytest.mark.parametrize("verb", ["", "add", "PING", "VERSION ", "x" * 300])
def test_other_verbs(ask: Ask, verb: str) -> None:
    error = refusal(ask, verb)
    assert error.code == INVALID_ENVIRONMENT and verb[:40] in error.msg and len(error.msg) < 120


@pytest.mark.parametrize("name", ["c" * 200, "c" * 5000, "default-" + "0" * 64, "0", "A_b.c-d"])
def test_names_that_runtimes_use(ask: Ask, name: str) -> None:
    assert ask(CNI_CONTAINERID=name).container == name


@pytest.mark.parametrize("name", ["../x", "a/b", "-x", ".x", "_x", "a b", 'a"', "a\n", "ü"])
@pytest.mark.parametrize("verb", ["ADD", "DEL", "CHECK"])
def test_container_ids_that_are_none(ask: Ask, verb: str, name: str) -> None:
    error = refusal(ask, verb, CNI_CONTAINERID=name)
    assert error.code == INVALID_ENVIRONMENT and "CNI_CONTAINERID" in error.msg and "\n" not in error.msg


@pytest.mark.parametrize("name", ["x" * 16, ".", "..", "a/b", "a:b", "a b", "a\t", "e%d", 'a"', "a'", "a\\", "ü"])
def test_interface_names_that_are_none(ask: Ask, name: str) -> None:
    error = refusal(ask, CNI_IFNAME=name)
    assert error.code == INVALID_ENVIRONMENT and "CNI_IFNAME" in error.msg


def test_case_of_the_documents_keys(ask: Ask) -> None:
    found = ask("ADD", {"CNIVERSION": "0.4.0", "Name": "net9", "DATADIR": "/x"})
    assert (found.version, found.network, found.data_dir) == ("0.4.0", "net9", "/x")


@pytest.mark.parametrize("version", [None, ...])
def test_no_version_is_the_first(ask: Ask, version: Any) -> None:
    """libcni's pkg/version/conf.go takes an absent one for 0.1.0."""
    document = {"name": "net0"} if version is ... else {"name": "net0", "cniVersion": None}
    assert ask("ADD", document).version == "0.1.0"


@pytest.mark.parametrize(
    ("document", "code", "words"),
    [
        (b"", DECODING_FAILURE, "JSON"),
        (b"{", DECODING_FAILURE, "JSON"),
        (b'{"name": "\xff"}', DECODING_FAILURE, "JSON"),
        (b"[]", DECODING_FAILURE, "object"),
        (b"null", DECODING_FAILURE, "object"),
        ({**GOOD, "cniVersion": "9.9"}, INCOMPATIBLE_VERSION, "9.9"),
        ({**GOOD, "cniVersion": 1}, INVALID_CONFIG, "cniVersion: 1"),
        ({**GOOD, "name": ""}, INVALID_CONFIG, "name"),
        ({**GOOD, "name": "a/b"}, INVALID_CONFIG, 'name: "a/b"'),
        ({**GOOD, "name": "x" * 81}, INVALID_CONFIG, "name"),
        ({**GOOD, "name": 5}, INVALID_CONFIG, "name: 5"),
        ({"cniVersion": "1.1.0"}, INVALID_CONFIG, "name"),
    ],
    ids=str,
)
@pytest.mark.parametrize("verb", ["ADD", "DEL"])
def test_documents_that_are_none(ask: Ask, verb: str, document: Any, code: int, words: str) -> None:
    error = refusal(ask, verb, document)
    assert error.code == code and words in error.msg, error.msg


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("IP", "IP"),
        ("IP=10.0.0.1=x", "IP"),
        ("=x", "unknown"),
        ("FOO=bar", "FOO"),
        ("ip=10.0.0.1", "ip"),
        ("FOO=bar;IgnoreUnknown=0", "FOO"),
        ("FOO=bar;ignoreunknown=1", "FOO"),
    ],
)
def test_arguments_that_libcni_refuses(ask: Ask, text: str, words: str) -> None:
    """types.LoadArgs: exactly one `=`, keys by case, unknown ones only with IgnoreUnknown."""
    error = refusal(ask, CNI_ARGS=text)
    assert error.code == INVALID_ENVIRONMENT and "CNI_ARGS" in error.msg and words in error.msg, error.msg


@pytest.mark.parametrize("word", ["1", "true", "True", "TRUE"])
def test_unknown_arguments_may_be_ignored(ask: Ask, word: str) -> None:
    assert ask(CNI_ARGS=f"FOO=bar;IgnoreUnknown={word};").args == {}


def test_a_delete_does_not_care_for_arguments(ask: Ask) -> None:
    assert ask("DEL", CNI_ARGS="nonsense").args == {}


def test_where_the_data_folder_comes_from(ask: Ask) -> None:
    assert ask("ADD", {**GOOD, "dataDir": "/a"}, NFTCNI_DATA_DIR="/b").data_dir == "/a"
    assert ask("ADD", GOOD, NFTCNI_DATA_DIR="/b").data_dir == "/b"


@pytest.mark.parametrize("folder", ["a", "./a", "/a\0b", 5, ["/a"], "/run/\ud800"])
def test_wrong_data_folders(ask: Ask, folder: Any) -> None:
    """Also a lone surrogate, which JSON can write and no file name can hold."""
    error = refusal(ask, "DEL", {**GOOD, "dataDir": folder})
    assert error.code == INVALID_CONFIG and error.msg.startswith("dataDir"), error.msg


@pytest.mark.parametrize("name", ["bridge", "portmap", "firewall", "tuning", "host-local", "loopback"])
def test_roles_by_the_executables_name(name: str) -> None:
    assert role_of(f"/opt/cni/bin/{name}") == name and role_of(f"/opt/{name}/nftcni") == ""
