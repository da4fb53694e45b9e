"""A GGUF model before it is loaded: its shape and the sizes of its tensors, from the header."""

from __future__ import annotations

import mmap
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cogit.errors import ArtefactError
from cogit.interop.gguf_header import HeaderWalk, check_gguf
from cogit.memory_model import ModelShape

# Numbers by their type in the file, as struct codes; strings are 8 and arrays 9.
_NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 10: "Q", 11: "q"}
_STRING, _ARRAY = 8, 9
_FEW = 4096  # entries of an array with a number for each block


@dataclass(frozen=True)
class GgufModel:
    """weights: bytes of all tensors as they are stored; the file stays mapped and is not copied."""

    shape: ModelShape
    weights: int


def describe_gguf(path: Path) -> GgufModel:
    """FileNotFoundError without a file, ArtefactError for one that is damaged or no model."""
    if not path.is_file():
        message = f"[memory] expected a GGUF file, got no file at {path}"
        raise FileNotFoundError(message)
    walks: list[_Walk] = []

    def make(data: mmap.mmap, max_elements: int) -> HeaderWalk:
        walks.append(_Walk(data, max_elements))
        return walks[0]

    check_gguf(path, "memory", walk=make)
    found = walks[0]
    try:
        shape = _shape(found.values, found.n_tokens)
    except ValueError as error:
        message = f"[memory] expected a model's measures in {path}, got {error}"
        raise ArtefactError(message) from error
    return GgufModel(shape, path.stat().st_size - found.at)


class _Walk(HeaderWalk):
    """Keeps whole numbers, short arrays of them, the architecture and the vocabulary's size."""

    def __init__(self, data: mmap.mmap, max_elements: int) -> None:
        super().__init__(data, max_elements)
        self.values: dict[str, Any] = {}
        self.n_tokens = 0

    def entry(self, name: bytes, kind: int) -> None:
        key = name.decode(errors="replace")
        if kind in _NUMBERS:
            self.values[key] = self.number(_NUMBERS[kind])
        elif kind == _STRING and key == "general.architecture":
            self.values[key] = self.string().decode(errors="replace")
        elif kind == _ARRAY:
            start = self.at
            inner, length = self.number("I"), self.number("Q")
            if key == "tokenizer.ggml.tokens":
                self.n_tokens = length
            if inner in _NUMBERS and length <= _FEW:
                self.values[key] = [self.number(_NUMBERS[inner]) for _ in range(length)]
            # Walked again, so that the limits hold.
            self.at = start
            self.value(kind)
        else:
            self.value(kind)


def _shape(values: dict[str, Any], n_tokens: int) -> ModelShape:
    kind = values.get("general.architecture")
    if not isinstance(kind, str):
        message = "no general.architecture"
        raise ValueError(message)

    def largest(name: str, default: int | None = None) -> int:
        value = values.get(f"{kind}.{name}", default)
        found = max(value, default=None) if isinstance(value, list) else value
        if type(found) is not int or not 0 < found < 2**40:
            message = f"{kind}.{name} of {found}"
            raise ValueError(message)
        return found

    d_model, heads = largest("embedding_length"), largest("attention.head_count", 1)
    notes = []
    window = values.get(f"{kind}.attention.sliding_window")
    if isinstance(window, int) and window > 0:
        notes.append(f"upper bound: blocks with a window keep {window} tokens")
    if any(name.startswith(f"{kind}.ssm.") for name in values):
        notes.append("upper bound: recurrent blocks keep a state and no cache")
    return ModelShape(
        kind=kind,
        n_layers=largest("block_count"),
        d_model=d_model,
        d_ff=largest("feed_forward_length", 4 * d_model),
        n_heads=heads,
        n_kv_heads=largest("attention.head_count_kv", heads),
        head_dim=largest("attention.key_length", max(1, d_model // heads)),
        vocab_size=n_tokens or largest("vocab_size", 1),
        context=largest("context_length", 2048),
        cache_note="; ".join(notes),
    )
