"""Signed notes: the format of C2SP, with the example of Go's implementation as an independent judge."""

from __future__ import annotations

import pytest

from pvc.proof.findings import Unproven
from pvc.proof.merkle import EMPTY_ROOT
from pvc.proof.note import check_signature, parse_checkpoint, parse_key
from pvc.proof.verify import parse_checkpoints
from tests.support.keys import ORIGIN, TestKey

GO_KEY = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
KEY, OTHER = TestKey("one"), TestKey("other")
NOTE = KEY.sign(5, EMPTY_ROOT)


def test_a_key_of_another_implementation_is_read_and_its_id_is_the_same() -> None:
    key = parse_key(GO_KEY)
    assert (key.name, key.id, str(key)) == ("PeterNeumann", "c74f20a3", GO_KEY)


def test_a_checkpoint_reads_as_the_format_says() -> None:
    lines = NOTE.split("\n")
    assert lines[:4] == [ORIGIN, "5", "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=", ""]
    assert lines[4].startswith(f"— {ORIGIN} ")
    assert lines[5:] == [""]
    signed = parse_checkpoint(NOTE)
    assert (signed.checkpoint.size, signed.checkpoint.root) == (5, EMPTY_ROOT)
    assert check_signature(signed, [OTHER.public, KEY.public]) == KEY.public


def test_signatures_of_witnesses_are_passed_over() -> None:
    witness = "— witness.example/w1 " + "A" * 92 + "\n"
    assert check_signature(parse_checkpoint(NOTE + witness), [KEY.public]) == KEY.public


def test_every_flipped_bit_is_noticed() -> None:
    data = NOTE.encode()
    for at in range(len(data)):
        flipped = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
        with pytest.raises((Unproven, UnicodeDecodeError)):
            check_signature(parse_checkpoint(flipped.decode()), [KEY.public])


def test_a_signature_of_a_key_that_was_not_given_counts_for_nothing() -> None:
    with pytest.raises(Unproven) as refused:
        check_signature(parse_checkpoint(NOTE), [OTHER.public])
    assert refused.value.code == "proof.unknown_key"


@pytest.mark.parametrize(
    "note",
    [
        "",
        "\n\n",
        NOTE[:-1],
        NOTE.replace("\n5\n", "\n05\n"),
        NOTE.replace("\n5\n", "\n-5\n"),
        NOTE.replace("\n5\n", "\n5" + "0" * 30 + "\n"),
        NOTE.replace("\n\n", "\n"),
        NOTE.replace("— ", "- "),
        NOTE + "x" * 5_000,
        ORIGIN + "\n5\n\n— a b\n",
    ],
)
def test_what_is_no_checkpoint_is_refused(note: str) -> None:
    with pytest.raises(Unproven) as refused:
        parse_checkpoint(note)
    assert refused.value.code == "proof.bad_note"


@pytest.mark.parametrize("key", ["", "a+b", GO_KEY[:-1], GO_KEY.replace("c74", "c75"), GO_KEY.replace("+AR", "+AQ")])
def test_what_is_no_key_is_refused(key: str) -> None:
    with pytest.raises(Unproven) as refused:
        parse_key(key)
    assert refused.value.code == "proof.bad_key"


def test_a_file_may_hold_many_checkpoints_with_or_without_lines_between() -> None:
    other = KEY.sign(9, EMPTY_ROOT)
    assert [each.checkpoint.size for each in parse_checkpoints(NOTE + "\n" + other)] == [5, 9]
    assert [each.checkpoint.size for each in parse_checkpoints(NOTE + other)] == [5, 9]
    assert parse_checkpoints("") == []
    with pytest.raises(Unproven):
        parse_checkpoints(NOTE + other.split("\n\n")[0])
