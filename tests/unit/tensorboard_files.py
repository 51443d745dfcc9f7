"""Reads TensorBoard's event files back, frame by frame with their checksums. Owns the framing; checks no run."""

from __future__ import annotations

import struct
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def read_events(path: Path) -> list[Any]:
    """Every event of a file in TFRecord framing: length, its checksum, data, their checksum."""
    from tensorboardX.crc32c import crc32c
    from tensorboardX.proto.event_pb2 import Event

    def masked(data: bytes) -> int:
        crc = crc32c(data)
        return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF

    content, events, at = path.read_bytes(), [], 0
    while at < len(content):
        (length,) = struct.unpack("<Q", content[at : at + 8])
        data = content[at + 12 : at + 12 + length]
        assert struct.unpack("<I", content[at + 8 : at + 12])[0] == masked(content[at : at + 8])
        assert struct.unpack("<I", content[at + 12 + length : at + 16 + length])[0] == masked(data)
        events.append(Event.FromString(data))
        at += 16 + length
    return events


def scalars_of(events: Sequence[Any]) -> dict[str, dict[int, float]]:
    """Tag -> step -> value."""
    found: dict[str, dict[int, float]] = defaultdict(dict)
    for event in events:
        for value in event.summary.value:
            if value.HasField("simple_value"):
                found[value.tag][event.step] = value.simple_value
    return found
