"""GGUF files of fewer bits: made, opened, and honest about what did not get the type."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from gguf import GGUFReader, dequantize

import tiny_llama
from cogit import quantise as module
from cogit.demo.assets import demo_model
from cogit.errors import ArtefactError
from cogit.inspection import gguf_type
from cogit.quantise import quantise

pytestmark = pytest.mark.llamacpp
FULL = demo_model("llamacpp")


def test_eight_bits_are_eight_bits(tmp_path: Path) -> None:
    """Row Q43: every matrix has the type, and lies within half a step of a block of 32."""
    made = quantise(FULL, tmp_path / "q8.gguf", "q8_0")
    assert gguf_type(made.path) == "Q8_0"
    assert set(made.tensors) == {"Q8_0"}
    assert not made.fallbacks
    assert made.n_bytes == made.path.stat().st_size < 0.4 * FULL.stat().st_size
    one, other = (
        {tensor.name: tensor for tensor in GGUFReader(path).tensors} for path in (FULL, made.path)
    )
    for name, tensor in one.items():
        if other[name].tensor_type.name != "Q8_0":
            continue
        blocks = tensor.data.reshape(-1, 32)
        found = dequantize(other[name].data, other[name].tensor_type).reshape(-1, 32)
        # Half a step of 127 to the largest, and the scale is a float16.
        bound = np.abs(blocks).max(axis=1, keepdims=True) * (0.5 / 127 + 2**-11)
        assert (np.abs(found - blocks) <= bound * 1.0001 + 1e-7).all()


def test_what_falls_back_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Row Q43: rows of 128 numbers make no blocks of 256, those of 256 do."""
    made = quantise(FULL, tmp_path / "q4.gguf", "q4_k_m")
    assert sum(made.tensors.values()) == len(made.fallbacks) == 43
    assert "Q4_K" not in made.tensors
    assert "; 43 not of this type (" in made.describe()
    for name, value in {"D_MODEL": 256, "D_HEAD": 64, "D_FF": 512}.items():
        monkeypatch.setattr(tiny_llama, name, value)
    wide = tiny_llama.TinyLlama().write(tmp_path / "wide.gguf")
    made = quantise(wide, tmp_path / "wide-q4.gguf", "q4_k_m")
    assert set(made.tensors) == {"Q4_K", "Q6_K"}
    assert not made.fallbacks
    assert "not of this type" not in made.describe()


def test_nothing_is_replaced_and_nothing_left_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = tmp_path / "there.gguf"
    there.write_bytes(b"an hour's work")
    with pytest.raises(FileExistsError, match="expected a new file"):
        quantise(FULL, there, "q8_0")
    with pytest.raises(FileNotFoundError, match="expected an existing folder"):
        quantise(FULL, tmp_path / "absent" / "a.gguf", "q8_0")
    with pytest.raises(ValueError, match="expected one of f32, f16, q8_0, q4_k_m, got 'q9'"):
        quantise(FULL, tmp_path / "a.gguf", "q9")
    with pytest.raises(ValueError, match="Q8_0; quantise from full precision"):
        quantise(demo_model("llamacpp", "q8_0"), tmp_path / "a.gguf", "q4_k_m")
    with pytest.raises(FileNotFoundError, match="expected a file or a folder"):
        quantise(tmp_path / "none.gguf", tmp_path / "a.gguf", "q8_0")
    half = tmp_path / "half.gguf"
    half.write_bytes(FULL.read_bytes()[: FULL.stat().st_size // 2])
    with pytest.raises(ArtefactError):
        quantise(half, tmp_path / "a.gguf", "q8_0")
    # A result that does not open is none.
    monkeypatch.setattr(module, "quantize_file", lambda _, __, out, ___: out.write_bytes(b"GGUF"))
    with pytest.raises(ArtefactError, match="cannot load"):
        quantise(FULL, tmp_path / "a.gguf", "q8_0")
    assert {path.name for path in tmp_path.iterdir()} == {"there.gguf", "half.gguf"}
    assert there.read_bytes() == b"an hour's work"
