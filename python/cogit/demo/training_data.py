"""Packs the grammar's documents into rows of equal length for training."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cogit.demo.tokenizer import CONTEXT, EOS

if TYPE_CHECKING:
    import torch

_CHUNK = 1000


@dataclass(frozen=True)
class PackedRows:
    """Documents side by side, each seeing only itself.

    ids, positions (within the document), documents (which one, counted from 0 in each row):
    int64 (row, CONTEXT).
    """

    ids: torch.Tensor
    positions: torch.Tensor
    documents: torch.Tensor

    def __len__(self) -> int:
        return len(self.ids)

    def mask(self, rows: slice) -> torch.Tensor:
        """Which position may look at which: bool (row, 1, CONTEXT, CONTEXT)."""
        import torch

        documents = self.documents[rows]
        same = documents[:, None, :, None] == documents[:, None, None, :]
        return torch.tril(same)

    def targets(self, rows: slice) -> torch.Tensor:
        """The next token of each position but the last, -100 at a document's end."""
        documents = self.documents[rows]
        ends = documents[:, 1:] != documents[:, :-1]
        return self.ids[rows, 1:].masked_fill(ends, -100)


def pack(texts: Iterable[str], tokenizer: Any, n_rows: int) -> PackedRows:
    """``n_rows`` rows of documents with BOS and EOS; a row's last document is cut at its end.

    Raises ValueError if the texts do not fill the rows.
    """
    import torch

    ids = torch.zeros((n_rows, CONTEXT), dtype=torch.int64)
    positions, documents = torch.zeros_like(ids), torch.zeros_like(ids)
    encoded = _encode(texts, tokenizer)
    for row in range(n_rows):
        start = document = 0
        while start < CONTEXT:
            tokens = next(encoded, None)
            if tokens is None:
                message = f"[demo] expected texts for {n_rows} rows, got enough for {row}"
                raise ValueError(message)
            stop = min(start + len(tokens), CONTEXT)
            ids[row, start:stop] = torch.tensor(tokens[: stop - start])
            positions[row, start:stop] = torch.arange(stop - start)
            documents[row, start:stop] = document
            start, document = stop, document + 1
    return PackedRows(ids, positions, documents)


def _encode(texts: Iterable[str], tokenizer: Any) -> Iterator[list[int]]:
    chunk: list[str] = []
    for text in texts:
        chunk.append(text)
        if len(chunk) == _CHUNK:
            yield from ([*ids, EOS] for ids in tokenizer(chunk)["input_ids"])
            chunk = []
    if chunk:
        yield from ([*ids, EOS] for ids in tokenizer(chunk)["input_ids"])
