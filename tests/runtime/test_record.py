"""A record's bytes say what was encoded, or that they are none."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exchange.runtime.journal import record as records
from exchange.runtime.journal.record import (
    HEADER_BYTES,
    PAYLOAD_BYTES_MAX,
    Fault,
    RecordInvalid,
    crc32c,
    decode,
    decode_header,
    encode,
    encode_header,
    machine_identity,
)

MACHINE = machine_identity("shard-0")
U64 = st.integers(0, 2**64 - 1)
U32 = st.integers(0, 2**32 - 1)


@settings(deadline=None, derandomize=True)
@given(epoch=U64, sequence=U64, previous=U32, payload=st.binary(max_size=300), before=st.binary())
def test_a_record_decodes_to_what_was_encoded_at_any_offset(
    epoch: int, sequence: int, previous: int, payload: bytes, before: bytes
) -> None:
    data = encode(MACHINE, epoch, sequence, previous, payload)
    record = decode(before + data + b"more", len(before))
    header = decode_header(data)
    assert (record.epoch, record.sequence, record.payload) == (epoch, sequence, payload)
    assert record.previous_checksum == previous
    assert header.machine == MACHINE
    assert header.record_bytes == len(data) == HEADER_BYTES + len(payload)
    assert encode_header(MACHINE, epoch, sequence, previous, payload) == (
        data[:HEADER_BYTES],
        record.checksum,
    )


def test_every_flipped_bit_is_found() -> None:
    data = encode(MACHINE, 3, 7, 11, b"buy 1 BTC")
    for bit in range(len(data) * 8):
        damaged = bytearray(data)
        damaged[bit // 8] ^= 1 << bit % 8
        with pytest.raises(RecordInvalid):
            decode(bytes(damaged))


def test_every_cut_is_found_and_named_by_where_it_is() -> None:
    data = encode(MACHINE, 3, 7, 11, b"buy 1 BTC")
    for size in range(len(data)):
        with pytest.raises(RecordInvalid) as caught:
            decode(data[:size])
        short = Fault.SHORT_HEADER if size < HEADER_BYTES else Fault.SHORT_PAYLOAD
        assert caught.value.fault is short


def test_the_length_is_trusted_only_under_the_checksum_of_the_header() -> None:
    data = bytearray(encode(MACHINE, 3, 7, 11, b"buy 1 BTC"))
    data[36] ^= 1
    with pytest.raises(RecordInvalid) as caught:
        decode(bytes(data))
    assert caught.value.fault is Fault.BAD_HEADER
    assert caught.value.header is None


def test_a_damaged_payload_still_tells_what_the_header_says() -> None:
    data = encode(MACHINE, 3, 7, 11, b"buy 1 BTC")[:-1] + b"X"
    with pytest.raises(RecordInvalid) as caught:
        decode(data)
    assert caught.value.fault is Fault.BAD_PAYLOAD
    assert caught.value.header
    assert caught.value.header.sequence == 7


def test_a_payload_over_the_limit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    assert PAYLOAD_BYTES_MAX == 64 * 1024 * 1024
    monkeypatch.setattr(records, "PAYLOAD_BYTES_MAX", 8)
    encode_header(MACHINE, 1, 1, 0, bytes(8))
    with pytest.raises(ValueError, match="expected at most 8 bytes, was 9"):
        encode_header(MACHINE, 1, 1, 0, bytes(9))


def test_the_checksum_is_crc32c_as_rfc_3720_has_it() -> None:
    assert crc32c(bytes(32)) == 0x8A9136AA
    assert crc32c(b"\xff" * 32) == 0x62A8AB43
    assert crc32c(bytes(range(32))) == 0x46DD794E


def test_the_layout_does_not_change_by_accident() -> None:
    data = encode(MACHINE, 3, 7, 11, b"buy 1 BTC")
    assert data.hex() == (
        "454b4a52010000009b9060673c36eca9030000000000000007000000000000000b00000009000000"
        "2ae5f7c0f245e2c6627579203120425443"
    )
