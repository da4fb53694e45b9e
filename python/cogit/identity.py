"""Which model something was made on or is applied to."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cogit.entries import entry
from cogit.errors import InterventionError

_SAMPLE = 2**20


@dataclass(frozen=True)
class ModelIdentity:
    """A model's name and measures.

    fingerprint: a hub revision, or a digest of the files (see ``file_fingerprint``).
    """

    name: str
    architecture: str
    n_layers: int
    d_model: int
    vocab_size: int
    fingerprint: str = ""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> ModelIdentity:
        try:
            return cls(
                name=entry(data, "name", str),
                architecture=entry(data, "architecture", str),
                n_layers=entry(data, "n_layers", int),
                d_model=entry(data, "d_model", int),
                vocab_size=entry(data, "vocab_size", int),
                fingerprint=entry(data, "fingerprint", str),
            )
        except (KeyError, TypeError, ValueError) as error:
            message = f"[model] expected a model's name and measures, got {data!r}"
            raise ValueError(message) from error

    def require_same_shape(self, other: ModelIdentity) -> None:
        """InterventionError unless ``other`` has the same number of blocks and width.

        Weights are not compared: the same model in another format or quantisation is welcome.
        """
        if (self.n_layers, self.d_model) != (other.n_layers, other.d_model):
            message = (
                f"[intervention] expected a model with {self.n_layers} blocks of width "
                f"{self.d_model} like {self.name}, on which it was made, got {other.name} with "
                f"{other.n_layers} blocks of width {other.d_model}"
            )
            raise InterventionError(message)


def file_fingerprint(paths: list[Path]) -> str:
    """A digest of files by name, size and their first and last MiB: quick at any model size."""
    digest = hashlib.sha256()
    for path in sorted(paths):
        size = path.stat().st_size
        digest.update(f"{path.name}:{size}".encode())
        with path.open("rb") as stream:
            digest.update(stream.read(_SAMPLE))
            if size > _SAMPLE:
                stream.seek(max(_SAMPLE, size - _SAMPLE))
                digest.update(stream.read(_SAMPLE))
    return digest.hexdigest()[:32]
