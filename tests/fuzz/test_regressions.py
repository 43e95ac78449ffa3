"""What fuzzing found, each as the smallest scene on a real kernel, with the cause in its name."""

from __future__ import annotations

from support.scratch import Host, network, port

CONFIG = network("net0", "10.88.0.0/24", ports=[port(8080, 80)])


def lose_state_with(host: Host, change: str) -> None:
    host.add(CONFIG)
    host.nft(change)
    host.run("rm", "-rf", "/run/nftcni")


def recovers(host: Host) -> None:
    host.container("c2")
    answer = host.cni("ADD", network("net0", "10.88.0.0/24"), "c2")
    assert answer.status == 0, answer.stdout
    host.delete(CONFIG, "c2")
    host.delete(CONFIG)
    assert "net0/c1/eth0" not in str(host.elements().get("attachments"))


def test_element_of_an_unknown_protocol_under_an_attachments_comment(host: Host) -> None:
    """Reading it back looked the protocol's name up without a default (KeyError)."""
    lose_state_with(host, 'add element inet nftcni dnat4 { dccp . 9 comment "net0/c1/eth0" : 10.88.0.2 . 80 }')
    recovers(host)


def test_published_port_whose_address_element_is_gone(host: Host) -> None:
    """Only one set was asked for addresses, so one that masq4 still holds was tried again (102)."""
    lose_state_with(host, "flush set inet nftcni containers4")
    recovers(host)
