"""Groups of contrast pairs that share a text: pairs in one group are no independent evidence.

Two pairs that share a text share its recorded states, exactly and at every block. Pairs connected
through such texts, directly or by way of others, are one group. Where the classes do not differ the
labels of a whole group can be exchanged, those of one of its pairs alone cannot.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    Rows = NDArray[np.floating[Any]]


def group_pairs(blocks: Iterable[tuple[Rows, Rows]]) -> NDArray[np.int64]:
    """The group (pair,) of each pair, numbered from 0 in the order of their first pairs.

    blocks: positive and negative states (pair, d_model) of every recorded block; one block is held
    at a time. A text counts as shared where its states are equal bit for bit at all of them (by
    SHA-256), in one class or across both. Pairs that share none get numbers of their own: 0, 1, 2 …

    Raises ValueError for no blocks, and for classes or blocks of different numbers of pairs.
    """
    digests: list[Any] = []
    n_pairs = -1
    for positive, negative in blocks:
        n_pairs = len(positive) if n_pairs < 0 else n_pairs
        if len(positive) != n_pairs or len(negative) != n_pairs:
            message = (
                f"[pairs] expected states of {n_pairs} matched pairs at every block, got "
                f"{len(positive)} and {len(negative)}"
            )
            raise ValueError(message)
        digests = digests or [hashlib.sha256() for _ in range(2 * n_pairs)]
        for number, row in enumerate((*positive, *negative)):
            digests[number].update(row.tobytes())
    if not digests:
        message = "[pairs] expected states of at least one pair and block, got none"
        raise ValueError(message)
    texts = [digest.digest() for digest in digests]
    return _connected(texts[:n_pairs], texts[n_pairs:])


def count_groups(groups: NDArray[np.int64]) -> int:
    """How many groups there are among pairs with these numbers."""
    return len(np.unique(groups))


def members(groups: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """The rows of each group, by group number."""
    order = np.argsort(groups, kind="stable")
    ends = np.cumsum(np.bincount(groups))
    return np.split(order, ends[:-1])


def _connected(positive: list[bytes], negative: list[bytes]) -> NDArray[np.int64]:
    """Connected components by union and find; the first pair of a group stands for it."""
    parent = list(range(len(positive)))

    def root(number: int) -> int:
        while parent[number] != number:
            parent[number] = parent[parent[number]]
            number = parent[number]
        return number

    first: dict[bytes, int] = {}
    for number, texts in enumerate(zip(positive, negative, strict=True)):
        for text in texts:
            one, other = root(first.setdefault(text, number)), root(number)
            parent[max(one, other)] = min(one, other)
    roots = [root(number) for number in range(len(parent))]
    return np.unique(roots, return_inverse=True)[1].astype(np.int64)
