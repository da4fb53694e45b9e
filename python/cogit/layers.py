"""Layer ranges: which blocks of a model an intervention acts on.

Block i is the i-th decoder block, counted from 0; its residual stream after the block is Hugging
Face's ``hidden_states[i + 1]``, llama.cpp's ``l_out-i`` and ``direction.i`` in a control-vector
GGUF. A range is half-open: ``24-32`` means blocks 24..31, the last eight of a 32-block model.

A range may also be given as a share of the depth, so that one profile serves models of any size:
block i of n lies in ``50%-75%`` where its middle does, 50 % <= (i + 1/2)/n < 75 %. In a 32-block
model these are blocks 16..23. Ends thus round to the nearest block, halves down; shares that meet
neither overlap nor leave a block out, and one that holds no block of a model is an error there.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from math import ceil

_PART = re.compile(r"(\d{1,5})(?:-(\d{1,5}))?", re.ASCII)
_SHARE = re.compile(r"(\d{1,3}(?:\.\d{1,6})?)%-(\d{1,3}(?:\.\d{1,6})?)%", re.ASCII)
PROFILES = {"early": "0%-40%", "middle": "40%-70%", "late": "70%-100%"}
"""Named shares of the depth; together they are every block once."""


@dataclass(frozen=True)
class LayerRange:
    """A set of blocks, or every block of whichever model it meets (``blocks`` is None).

    shares: half-open parts of the depth, (start, stop) with 0 <= start < stop <= 1, which
    ``resolve`` turns into blocks of a model; they add to ``blocks``.
    """

    blocks: tuple[int, ...] | None
    shares: tuple[tuple[Fraction, Fraction], ...] = ()

    @classmethod
    def parse(cls, text: str) -> LayerRange:
        """Read ``24-32`` (half-open), ``7``, ``0,4,8-12``, ``50%-75%``, ``early``, ``middle``,
        ``late`` or ``all``. ValueError otherwise.
        """
        cleaned = text.replace(" ", "")
        if cleaned == "all":
            return cls(None)
        blocks: set[int] = set()
        shares: set[tuple[Fraction, Fraction]] = set()
        for part in cleaned.split(","):
            if share := _SHARE.fullmatch(PROFILES.get(part, part)):
                shares.add(_share(part, *share.groups()))
                continue
            match = _PART.fullmatch(part)
            if match is None:
                message = (
                    f"[layers] expected a block such as 7, a half-open range such as 24-32, a "
                    f"share of the depth such as 50%-75%, {', '.join(PROFILES)}, a list of them or "
                    f"all, got {text!r}"
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
        return cls(tuple(sorted(blocks)), tuple(sorted(shares)))

    @classmethod
    def of(cls, blocks: Iterable[int]) -> LayerRange:
        """The range of the given block numbers."""
        return cls(tuple(sorted(set(blocks))))

    def resolve(self, n_layers: int) -> tuple[int, ...]:
        """The block numbers in a model of ``n_layers`` blocks.

        ValueError if a block is not there, or if a share of the depth holds none.
        """
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
        found = set(self.blocks)
        for start, stop in self.shares:
            held = range(*(ceil(end * n_layers - Fraction(1, 2)) for end in (start, stop)))
            if not held:
                message = (
                    f"[layers] expected a share of the depth that holds a block of this model, "
                    f"got {_percent(start)}-{_percent(stop)} of {n_layers} blocks, which holds "
                    f"none; widen it or name blocks"
                )
                raise ValueError(message)
            found.update(held)
        return tuple(sorted(found))

    def __str__(self) -> str:
        if self.blocks is None:
            return "all"
        shares = [f"{_percent(start)}-{_percent(stop)}" for start, stop in self.shares]
        return ",".join(filter(None, [_ranges(self.blocks), *shares]))


def _share(part: str, *ends: str) -> tuple[Fraction, Fraction]:
    start, stop = (Fraction(end) / 100 for end in ends)
    if not 0 <= start < stop <= 1:
        message = (
            f"[layers] expected a half-open share of the depth with start below end, within "
            f"0%-100%, got {part!r}"
        )
        raise ValueError(message)
    return start, stop


def _percent(share: Fraction) -> str:
    # Six decimals are what is read: no share has more.
    return f"{float(share * 100):.6f}".rstrip("0").rstrip(".") + "%"


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
