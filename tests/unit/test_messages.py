"""Our nf_tables and conntrack bytes against pyroute2's classes, and our reader against bytes that the kernel sent.

pyroute2 has no encoder for every attribute used here; where it lacks one, what it decodes from our bytes is compared.
"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyroute2.netlink.nfnetlink import nfgen_msg
from pyroute2.netlink.nfnetlink.nfctsocket import nfct_msg
from pyroute2.netlink.nfnetlink.nftsocket import nft_set_elem_list_msg, nft_table_msg

from nft import conntrack, expressions, messages
from nft.elements import Element, pack, unpack
from nft.framing import NLMSG, last_message, message
from nft.schema import ADDR4, ADDR6, IFNAME, PORT, PROTO

KEY = pack((PROTO, PORT), (6, 8080))
DATA = pack((ADDR4, PORT), (bytes([10, 88, 0, 2]), 80))
ELEMENT = Element("dnat4", KEY, DATA, "net0/c1/eth0")


def decoded(kind: type[nfgen_msg], payload: bytes) -> nfgen_msg:
    found = kind(message(0, 0, 1, payload))
    found.decode()
    return found


def test_a_new_element_as_pyroute2_reads_it() -> None:
    ((_kind, _flags, payload),) = messages.adding([ELEMENT], exclusive=True)
    found = decoded(nft_set_elem_list_msg, payload)
    assert found["nfgen_family"] == 1
    assert (found.get_attr("NFTA_SET_ELEM_LIST_TABLE"), found.get_attr("NFTA_SET_ELEM_LIST_SET")) == ("nftcni", "dnat4")
    (element,) = found.get_attr("NFTA_SET_ELEM_LIST_ELEMENTS")
    assert element.get_attr("NFTA_SET_ELEM_KEY").get_attr("NFTA_DATA_VALUE") == KEY
    assert element.get_attr("NFTA_SET_ELEM_DATA").get_attr("NFTA_DATA_VALUE") == DATA


def test_names_are_encoded_as_pyroute2_encodes_them() -> None:
    theirs = nft_table_msg()
    theirs["nfgen_family"] = 1
    theirs["attrs"] = [("NFTA_TABLE_NAME", "nftcni")]
    theirs.encode()
    assert messages.get_table() == bytes(theirs.data)[NLMSG.size :]


def test_our_own_reading_of_a_new_element() -> None:
    ((_kind, _flags, payload),) = messages.adding([ELEMENT], exclusive=True)
    assert messages.read_elements(payload) == [ELEMENT]


@pytest.mark.parametrize(("exclusive", "flags"), [(True, 0x600), (False, 0x400)])
def test_exclusive_is_the_kernels_excl(exclusive: bool, flags: int) -> None:
    assert messages.adding([ELEMENT], exclusive)[0][1] == flags


def test_deletions_carry_the_key_alone() -> None:
    """The kernel ignores data there; whose an element is has to be known before."""
    ((_kind, _flags, payload),) = messages.deleting([ELEMENT])
    assert messages.read_elements(payload) == [Element("dnat4", KEY)]


def test_many_elements_are_split_for_the_16_bits_of_a_length() -> None:
    many = [Element("dnat4", pack((PROTO, PORT), (6, number)), DATA, "x" * 100) for number in range(1, 1001)]
    changes = messages.adding(many, exclusive=True)
    assert len(changes) == 4
    assert [element for _, _, payload in changes for element in messages.read_elements(payload)] == many
    assert all(len(payload) < 1 << 16 for _, _, payload in changes)


def test_a_batch_asks_for_one_answer_at_its_last_change() -> None:
    parts, sequences = messages.batch(messages.adding([ELEMENT], True) + messages.deleting([ELEMENT]), 5)
    heads = [NLMSG.unpack_from(part) for part in parts]
    assert [head[1] for head in heads] == [0x10, messages.NEWSETELEM, messages.DELSETELEM, 0x11]
    assert [head[3] for head in heads] == [5, 6, 7, 8] and sequences == range(5, 8)
    assert [bool(head[2] & 4) for head in heads] == [False, False, True, False]


def test_the_conntrack_query_as_pyroute2_reads_it() -> None:
    class Catcher:
        query = b""

        def dump(self, _kind: int, payload: bytes, _containing: object) -> list[bytes]:
            self.query = payload
            return []

    catcher = Catcher()
    assert list(conntrack._flows(catcher, 4, conntrack.IPPROTO_UDP, ())) == []  # type: ignore[arg-type]
    found = decoded(nfct_msg, catcher.query)
    assert found["nfgen_family"] == 2
    assert found.get_attr("CTA_TUPLE_ORIG").get_attr("CTA_TUPLE_PROTO").get_attr("CTA_PROTO_NUM") == 17


VALUES = st.one_of(
    st.tuples(st.just((PROTO, PORT)), st.tuples(st.integers(0, 255), st.integers(0, 65535))),
    st.tuples(st.just((ADDR4, PORT)), st.tuples(st.binary(min_size=4, max_size=4), st.integers(0, 65535))),
    st.tuples(st.just((ADDR6, PROTO, PORT)), st.tuples(st.binary(min_size=16, max_size=16), st.just(6), st.just(80))),
    st.tuples(st.just((IFNAME, IFNAME)), st.tuples(st.just("br0"), st.sampled_from(["eth0", "x" * 15]))),
)


@given(VALUES)
def test_packed_fields_come_back(case: tuple[tuple[str, ...], tuple[int | bytes | str, ...]]) -> None:
    kinds, values = case
    packed = pack(kinds, values)
    assert len(packed) % 4 == 0 and unpack(kinds, packed) == values


def test_the_port_is_in_network_order() -> None:
    assert bytes([6, 0, 0, 0, 0x1F, 0x90, 0, 0]) == KEY


@given(st.binary(max_size=20))
def test_unpack_refuses_other_lengths(packed: bytes) -> None:
    if len(packed) != 8:
        with pytest.raises(ValueError, match="bytes are not"):
            unpack((PROTO, PORT), packed)


@given(st.binary(max_size=300))
def test_readers_bear_any_bytes(payload: bytes) -> None:
    messages.read_elements(payload)
    messages.read_table_comment(payload)
    messages.read_comment(payload)
    messages.read_rule(payload)
    messages.read_table(b"\1\0\0\0" + payload)
    messages.read_generation_process(payload)
    expressions.read_chain(b"\1\0\0\0" + payload)


def test_the_last_message_of_a_datagram() -> None:
    parts = [message(kind, flags, 7, b"x" * size) for kind, flags, size in ((1, 0x10, 0), (2, 2, 1), (3, 0, 6))]
    padded = [part + bytes(-len(part) % 4) for part in parts]
    found = [last_message(b"".join(padded[:count])) for count in (1, 2, 3)]
    assert found == [(1, 0x10, 7, b""), (2, 0x12, 7, b"x"), (3, 0x12, 7, b"xxxxxx")]
    assert last_message(b"") == last_message(bytes(40)) == (0, 0, 0, b"")  # lengths of 0 do not hold it up
