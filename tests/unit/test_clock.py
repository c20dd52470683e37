"""Ids made of time and randomness."""

from __future__ import annotations

from pvc.clock import new_ulid


class Given:
    """A clock and a source of randomness that say what they are told to."""

    def __init__(self, milliseconds: int, noise: bytes) -> None:
        self.milliseconds = milliseconds
        self.noise = noise

    def monotonic(self) -> float:
        return 0.0

    def wall_us(self) -> int:
        return self.milliseconds * 1_000

    def random(self) -> float:
        return 0.0

    def randbytes(self, n: int) -> bytes:
        assert len(self.noise) == n
        return self.noise


def ulid(milliseconds: int, noise: bytes = bytes(10)) -> str:
    given = Given(milliseconds, noise)
    return new_ulid(given, given)


def test_a_ulid_is_time_and_noise_in_26_letters_of_crockfords_base_32() -> None:
    assert ulid(0) == "0" * 26
    assert ulid((1 << 48) - 1, b"\xff" * 10) == "7" + "Z" * 25
    assert ulid(1469918176385)[:10] == "01ARYZ6S41"  # the example of the specification
    assert ulid(0, b"\x00" * 9 + b"\x2b")[-2:] == "1B"


def test_a_later_ulid_sorts_after_an_earlier_one_whatever_its_noise() -> None:
    assert ulid(1_780_000_000_000, b"\xff" * 10) < ulid(1_780_000_000_001, bytes(10))
