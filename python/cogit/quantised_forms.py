"""Forms of one model to compare: full precision, GGUF files, and bitsandbytes where it is there."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any, Literal

from cogit.backends import Backend
from cogit.errors import BackendMissingError
from cogit.inspection import gguf_type
from cogit.quantise import TYPES, Quantised, quantise
from cogit.quantised import Form

Bits = Literal["8bit", "4bit"]


def gguf_source(given: str, model: str) -> Path | None:
    """The GGUF file of that name, or None for a type to make from the model's folder.

    Raises FileNotFoundError where it is neither, ValueError for a type without a model folder.
    """
    if Path(given).is_file():
        return Path(given)
    if given not in TYPES:
        message = f"[gguf] expected a GGUF file or one of {', '.join(TYPES)}; got {given}"
        raise FileNotFoundError(message)
    if not Path(model).is_dir():
        message = (
            f"[gguf] expected a model folder, of which {given} is made, got {model}; give a GGUF "
            f"file instead"
        )
        raise ValueError(message)
    return None


def make_gguf(model: str, kind: str, folder: Path) -> Quantised:
    """The model's folder as a GGUF of this type, in ``folder``; see ``quantise``."""
    return quantise(model, folder / f"{kind}.gguf", kind)


def gguf_form(path: Path, backend: Backend) -> Form:
    """A loaded GGUF file, named by its type."""
    from gguf import GGUFReader

    weights = sum(int(tensor.n_bytes) for tensor in GGUFReader(path).tensors)
    return Form(gguf_type(path), backend, path.stat().st_size, weights)


def full_form(model: str, backend: Any, dtype: str) -> Form:
    """The model in transformers as it was loaded, in full precision."""
    return Form(f"transformers {dtype}", backend, _folder_bytes(model), _weight_bytes(backend))


def require_bitsandbytes() -> None:
    """BackendMissingError where bitsandbytes or what loads it into transformers is not installed.

    bitsandbytes 0.45 and earlier runs on CUDA alone; a device that it refuses is an error of it.
    """
    for name in ("bitsandbytes", "accelerate"):
        if importlib.util.find_spec(name) is None:
            message = f"[bnb] expected the package {name}, which is not installed; install it"
            raise BackendMissingError(message)


def bitsandbytes_form(model: str, bits: Bits, device: str) -> Form:
    """The model with weights in 8 or 4 bits by bitsandbytes, activations in bfloat16.

    Raises BackendMissingError where it is not installed or refuses the device.
    """
    require_bitsandbytes()
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig

    from cogit.backends.transformers import TransformersBackend
    from cogit.devices import resolve_device

    config = BitsAndBytesConfig(
        load_in_8bit=bits == "8bit",
        load_in_4bit=bits == "4bit",
        bnb_4bit_compute_dtype=torch.bfloat16,
        bnb_4bit_quant_type="nf4",
    )
    try:
        loaded = AutoModelForCausalLM.from_pretrained(
            model,
            quantization_config=config,
            dtype=torch.bfloat16,
            device_map={"": resolve_device(device)},
            trust_remote_code=False,
            use_safetensors=True,
        )
    except (RuntimeError, ImportError, NotImplementedError) as error:
        words = " ".join(str(error).split())[:160]
        message = f"[bnb] expected bitsandbytes to load {model} in {bits} on {device}, got: {words}"
        raise BackendMissingError(message) from error
    tokenizer = AutoTokenizer.from_pretrained(model, trust_remote_code=False)
    backend = TransformersBackend(loaded, tokenizer, name=Path(model).name)
    return Form(f"bitsandbytes {bits}", backend, _folder_bytes(model), _weight_bytes(backend))


def _folder_bytes(model: str) -> int:
    """Of the weights on disk; 0 for a hub id, whose files lie in a cache of its own."""
    return sum(path.stat().st_size for path in Path(model).glob("*.safetensors"))


def _weight_bytes(backend: Any) -> int:
    return int(backend.model.get_memory_footprint())
