"""ZooKeeper's request to read many znodes at once (since 3.6), which kazoo does not know.

Asked one by one, each znode costs a request, a wake-up of kazoo's thread and a reply: some hundred microseconds of
processor, on every node for every record of the log. Asked together they cost little more than their bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kazoo.client import KazooClient
from kazoo.exceptions import EXCEPTIONS
from kazoo.protocol.serialization import (
    GetData,
    MultiHeader,
    int_struct,
    multiheader_struct,
    read_buffer,
    stat_struct,
)
from kazoo.protocol.states import ZnodeStat

_ERROR = -1


class ReadMany:
    """In the shape of kazoo's own requests."""

    type = 22

    def __init__(self, paths: Sequence[str]) -> None:
        self.paths = paths

    def serialize(self) -> bytearray:
        """As a transaction of reads."""
        data = bytearray()
        for path in self.paths:
            data += MultiHeader(GetData.type, False, -1).serialize() + GetData(path, None).serialize()
        data += multiheader_struct.pack(-1, True, -1)
        return data

    @staticmethod
    def deserialize(data: bytes, offset: int) -> list[Any]:
        """For each path in turn its data and stat, or the error that kazoo would raise."""
        found: list[Any] = []
        header, offset = MultiHeader.deserialize(data, offset)
        while not header.done:
            if header.type == _ERROR:
                found.append(EXCEPTIONS[int_struct.unpack_from(data, offset)[0]]())
                offset += int_struct.size
            else:
                content, offset = read_buffer(data, offset)
                found.append((content, ZnodeStat._make(stat_struct.unpack_from(data, offset))))
                offset += stat_struct.size
            header, offset = MultiHeader.deserialize(data, offset)
        return found


def read_many(client: KazooClient, paths: Sequence[str]) -> Any:
    """Begin to read them all; the result is a list as `ReadMany` makes it."""
    result = client.handler.async_result()
    client._call(ReadMany([client.chroot + path for path in paths]), result)
    return result
