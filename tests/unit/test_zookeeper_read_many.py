"""Reading many znodes at once: what is sent, and what a server's reply means."""

from __future__ import annotations

from kazoo.exceptions import NoNodeError
from kazoo.protocol.serialization import int_struct, multiheader_struct, stat_struct

from pvc.zookeeper.read_many import ReadMany

STAT = (1, 2, 3, 4, 5, 6, 7, 0, 4, 0, 8)
END = multiheader_struct.pack(-1, True, -1)


def test_each_path_is_asked_for_without_a_watch() -> None:
    one = multiheader_struct.pack(4, False, -1) + int_struct.pack(2) + b"/a" + b"\0"
    assert ReadMany(["/a"]).serialize() == one + END


def test_each_reply_is_the_data_and_stat_or_the_error_of_its_path() -> None:
    there = multiheader_struct.pack(4, False, 0) + int_struct.pack(4) + b"data" + stat_struct.pack(*STAT)
    empty = multiheader_struct.pack(4, False, 0) + int_struct.pack(-1) + stat_struct.pack(*STAT)
    absent = multiheader_struct.pack(-1, False, -101) + int_struct.pack(-101)
    first, error, last = ReadMany.deserialize(b"head" + there + absent + empty + END, 4)
    assert first[0] == b"data" and first[1].version == 5
    assert isinstance(error, NoNodeError)
    assert last[0] is None
