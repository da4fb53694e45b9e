"""GGUF files for the engine: load, describe, quantise; each refusal is one line."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

from cogit.backends.llama_library import LlamaLibrary
from cogit.errors import ArtefactError

_MAGIC = b"GGUF"
_GGML_TYPE_F16 = 1
_FILE_TYPES = {"f32": 0, "f16": 1, "q8_0": 7, "q4_k_m": 15}  # llama_ftype


def require_gguf(path: Path) -> None:
    """Raise FileNotFoundError or ArtefactError before llama.cpp prints a page about it."""
    if not path.is_file():
        message = f"[LlamaEngine] expected a GGUF file, got no file at {path}"
        raise FileNotFoundError(message)
    with path.open("rb") as file:
        magic = file.read(len(_MAGIC))
    if magic != _MAGIC:
        message = f"[LlamaEngine] expected a GGUF file, {path} begins with {magic!r}"
        raise ArtefactError(message)


def load_model(library: LlamaLibrary, path: Path, *, use_mmap: bool) -> Any:
    """A llama_model pointer, owned by the caller."""
    require_gguf(path)
    parameters = library.api.llama_model_default_params()
    parameters.load_mode = (
        library.api.LLAMA_LOAD_MODE_MMAP if use_mmap else library.api.LLAMA_LOAD_MODE_NONE
    )
    library.take_log_error()
    model = library.api.llama_model_load_from_file(str(path).encode(), parameters)
    if not model:
        message = f"[LlamaEngine] cannot load {path}: {library.take_log_error()}"
        raise ArtefactError(message)
    return model


def describe(library: LlamaLibrary, model: Any) -> tuple[dict[str, str], str]:
    """The GGUF metadata (arrays shortened by llama.cpp) and llama.cpp's one-line description."""
    api = library.api
    metadata = {
        _string(api.llama_model_meta_key_by_index, model, i): _string(
            api.llama_model_meta_val_str_by_index, model, i
        )
        for i in range(api.llama_model_meta_count(model))
    }
    return metadata, _string(api.llama_model_desc, model)


def quantize_file(
    library: LlamaLibrary, src: Path, dst: Path, kind: str, *, half_embedding: bool = False
) -> None:
    """Write src as another file type: f32, f16, q8_0 or q4_k_m.

    half_embedding keeps the token embedding, and the output matrix tied to it, in float16.
    """
    if kind not in _FILE_TYPES:
        message = f"[quantize] expected one of {', '.join(_FILE_TYPES)}, got {kind!r}"
        raise ValueError(message)
    require_gguf(src)
    if src.resolve() == dst.resolve():
        message = f"[quantize] expected two different files, got {src} twice"
        raise ValueError(message)
    parameters = library.api.llama_model_quantize_default_params()
    parameters.ftype = _FILE_TYPES[kind]
    parameters.allow_requantize = True
    if half_embedding:
        parameters.token_embedding_type = parameters.output_tensor_type = _GGML_TYPE_F16
    library.take_log_error()
    code = library.api.llama_model_quantize(
        str(src).encode(), str(dst).encode(), ctypes.byref(parameters)
    )
    if code != 0:
        message = f"[quantize] cannot write {dst}: {library.take_log_error() or f'code {code}'}"
        raise ArtefactError(message)


def _string(function: Any, model: Any, *arguments: int) -> str:
    """Call a llama.cpp function that fills a buffer and returns the length it wanted."""
    size = 256
    while True:
        buffer = ctypes.create_string_buffer(size)
        n = function(model, *arguments, buffer, size)
        if n < size:
            return buffer.value.decode(errors="replace")
        size = n + 1
