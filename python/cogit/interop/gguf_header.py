"""Walks a GGUF header before a reader believes it: every claimed size must fit into the file.

Readers make one object per claimed entry and per claimed array element. A few bytes that claim
2^60 of them would keep a reader busy for ever; here each claim is compared with what is left of the
file first. Layout: github.com/ggml-org/ggml/blob/master/docs/gguf.md.
"""

from __future__ import annotations

import math
import mmap
import struct
from collections.abc import Callable
from pathlib import Path

from cogit.errors import ArtefactError

# Bytes of each scalar value type, by its number; 8 is a string and 9 an array.
_SCALARS = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
_STRING, _ARRAY = 8, 9
_MAX_DIMENSIONS = 4  # of a ggml tensor
_FIXED = struct.calcsize("<4sIQQ")


def check_gguf(
    path: Path,
    where: str,
    *,
    max_elements: int = 2**23,
    walk: Callable[[mmap.mmap, int], HeaderWalk] | None = None,
) -> None:
    """Raise ArtefactError unless the header's claims fit into the file.

    where: the name in front of the message. max_elements: of all metadata arrays together; the
    default leaves room for the largest vocabularies. walk: makes what walks, from the file and
    max_elements.
    """
    make = walk or HeaderWalk
    size = path.stat().st_size
    try:
        if size < _FIXED:
            message = f"{size} bytes, too few for a header"
            raise ValueError(message)
        with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as m:
            make(m, max_elements).check()
    except ValueError as error:
        message = f"[{where}] expected a whole GGUF file, got {path}: {error}"
        raise ArtefactError(message) from error


class HeaderWalk:
    """A cursor over the header; ValueError where it would leave the file."""

    def __init__(self, data: mmap.mmap, max_elements: int) -> None:
        self.data, self.size, self.at = data, len(data), 0
        self.max_elements, self.elements = max_elements, 0
        # The version is a small number: its low half is zero in the other byte order.
        self.order = ">" if data[4:6] == b"\0\0" else "<"

    def check(self) -> None:
        if self.data[:4] != b"GGUF":
            message = f"it begins with {self.data[:4]!r}"
            raise ValueError(message)
        self.skip(4)
        version = self.number("I")
        if version not in (2, 3):
            message = f"version {version}, where 2 and 3 are known"
            raise ValueError(message)
        n_tensors, n_values = self.number("Q"), self.number("Q")
        alignment = 32
        for _ in range(n_values):
            name, kind = self.string(), self.number("I")
            if name == b"general.alignment" and kind == 4:
                alignment = self.number("I")
            else:
                self.entry(name, kind)
        if alignment < 1 or alignment & (alignment - 1):
            message = f"an alignment of {alignment}, not a power of two"
            raise ValueError(message)
        ends = [self.tensor_end() for _ in range(n_tensors)]
        start = -(-self.at // alignment) * alignment
        if ends and start + max(ends) > self.size:
            message = f"tensors end at byte {start + max(ends)} of {self.size}; it is cut off"
            raise ValueError(message)

    def skip(self, n: int) -> int:
        """Move over n bytes that must be there; returns where they begin."""
        start = self.at
        if n > self.size - start:
            message = f"{n} bytes claimed at byte {start} of {self.size}"
            raise ValueError(message)
        self.at += n
        return start

    def number(self, code: str) -> int:
        layout = self.order + code
        start = self.skip(struct.calcsize(layout))
        return int(struct.unpack_from(layout, self.data, start)[0])

    def string(self) -> bytes:
        length = self.number("Q")
        start = self.skip(length)
        return self.data[start : start + length]

    def entry(self, name: bytes, kind: int) -> None:
        """The value of one name; those who want to know it override this."""
        self.value(kind)

    def value(self, kind: int) -> None:
        if kind in _SCALARS:
            self.skip(_SCALARS[kind])
        elif kind == _STRING:
            self.skip(self.number("Q"))
        elif kind == _ARRAY:
            self.array()
        else:
            message = f"a value of the unknown type {kind} at byte {self.at}"
            raise ValueError(message)

    def array(self) -> None:
        kind, length = self.number("I"), self.number("Q")
        self.elements += length
        if self.elements > self.max_elements:
            message = f"metadata arrays of more than {self.max_elements} elements"
            raise ValueError(message)
        if kind in _SCALARS:
            self.skip(length * _SCALARS[kind])
        elif kind == _STRING:
            for _ in range(length):
                self.skip(self.number("Q"))
        else:
            message = f"an array of type {kind}, where numbers and strings are known"
            raise ValueError(message)

    def tensor_end(self) -> int:
        """Where a tensor's data ends, counted from the start of the data."""
        from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

        name, n_dims = self.string(), self.number("I")
        if n_dims > _MAX_DIMENSIONS:
            message = f"a tensor of {n_dims} dimensions, where {_MAX_DIMENSIONS} are the most"
            raise ValueError(message)
        elements = math.prod(self.number("Q") for _ in range(n_dims))
        kind, offset = self.number("I"), self.number("Q")
        try:
            per_block, block_bytes = GGML_QUANT_SIZES[GGMLQuantizationType(kind)]
        except (ValueError, KeyError) as error:
            message = f"tensor {name[:60]!r} of the unknown type {kind}"
            raise ValueError(message) from error
        return offset + elements * int(block_bytes) // int(per_block)
