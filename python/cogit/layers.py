"""Layer ranges: which blocks of a model an intervention acts on.

Block i is the i-th decoder block, counted from 0; its residual stream after the block is Hugging
Face's ``hidden_states[i + 1]``, llama.cpp's ``l_out-i`` and ``direction.i`` in a control-vector
GGUF. A range is half-open: ``24-32`` means blocks 24..31, the last eight of a 32-block model.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

_PART = re.compile(r"(\d{1,5})(?:-(\d{1,5}))?", re.ASCII)


@dataclass(frozen=True)
class LayerRange:
    """A set of blocks, or every block of whichever model it meets (``blocks`` is None)."""

    blocks: tuple[int, ...] | None

    @classmethod
    def parse(cls, text: str) -> LayerRange:
        """Read ``24-32`` (half-open), ``7``, ``0,4,8-12`` or ``all``. ValueError otherwise."""
        cleaned = text.replace(" ", "")
        if cleaned == "all":
            return cls(None)
        blocks: set[int] = set()
        for part in cleaned.split(","):
            match = _PART.fullmatch(part)
            if match is None:
                message = (
                    f"[layers] expected a block such as 7, a half-open range such as 24-32, "
                    f"a list of them or all, got {text!r}"
                )
                raise ValueError(message)
            start = int(match[1])
            stop = start + 1 if match[2] is None else int(match[2])
            if stop <= start:
                message = (
                    f"[layers] expected a half-open range with start below end, got {part!r}; "
                    f"blocks {stop}..{start} are written {stop}-{start + 1}"
                )
                raise ValueError(message)
            blocks.update(range(start, stop))
        return cls(tuple(sorted(blocks)))

    @classmethod
    def of(cls, blocks: Iterable[int]) -> LayerRange:
        """The range of the given block numbers."""
        return cls(tuple(sorted(set(blocks))))

    def resolve(self, n_layers: int) -> tuple[int, ...]:
        """The block numbers in a model of ``n_layers`` blocks; ValueError if one is not there."""
        if self.blocks is None:
            return tuple(range(n_layers))
        missing = [block for block in self.blocks if not 0 <= block < n_layers]
        if missing:
            message = (
                f"[layers] expected blocks of this model, 0..{n_layers - 1} "
                f"({n_layers} blocks, all of them: 0-{n_layers}), got {self}; "
                f"{describe_blocks(missing)} {'is' if len(missing) == 1 else 'are'} not there"
            )
            raise ValueError(message)
        return self.blocks

    def __str__(self) -> str:
        return "all" if self.blocks is None else _ranges(self.blocks)


def describe_blocks(blocks: Iterable[int]) -> str:
    """Block numbers as people read them, ends included: ``blocks 24..31`` or ``block 3``."""
    spans = _spans(sorted(set(blocks)))
    text = ", ".join(str(a) if b == a + 1 else f"{a}..{b - 1}" for a, b in spans)
    single = len(spans) == 1 and spans[0][1] == spans[0][0] + 1
    return f"block {text}" if single else f"blocks {text}"


def _ranges(blocks: Iterable[int]) -> str:
    return ",".join(str(a) if b == a + 1 else f"{a}-{b}" for a, b in _spans(sorted(set(blocks))))


def _spans(blocks: list[int]) -> list[tuple[int, int]]:
    spans: list[tuple[int, int]] = []
    for block in blocks:
        if spans and spans[-1][1] == block:
            spans[-1] = (spans[-1][0], block + 1)
        else:
            spans.append((block, block + 1))
    return spans
