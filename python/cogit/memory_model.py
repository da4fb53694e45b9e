"""A transformers model before its load: shape from config.json, weights from headers."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cogit.errors import ArtefactError
from cogit.text_files import open_text

_LOG = logging.getLogger("cogit.memory")
BYTES = {"f32": 4, "bf16": 2, "f16": 2}
_FILE_TYPES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "F8_E4M3": 1, "F8_E5M2": 1}
_SAME = {"f32": "F32", "bf16": "BF16", "f16": "F16"}
_OTHER_TYPES = {"I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1, "U16": 2, "U32": 4}
_INDEX, _SINGLE = "model.safetensors.index.json", "model.safetensors"
_MAX_JSON = 2**27
_TIMEOUT = 5.0


@dataclass(frozen=True)
class ModelShape:
    """The measures that decide memory. head_dim: of a key; n_kv_heads: heads with a cache.

    context: the longest sequence. cache_note: why the KV cache may be smaller than counted.
    kind: the architecture's name. tied: the output matrix is the embedding.
    """

    kind: str
    n_layers: int
    d_model: int
    d_ff: int
    n_heads: int
    n_kv_heads: int
    head_dim: int
    vocab_size: int
    context: int
    tied: bool = False
    cache_note: str = ""

    def cache_bytes(self, tokens: int, itemsize: int) -> int:
        """Keys and values of so many tokens on every block."""
        return 2 * self.n_layers * self.n_kv_heads * self.head_dim * tokens * itemsize


@dataclass(frozen=True)
class Weights:
    """loaded: bytes of the parameters in the dtype asked for. mapped: bytes of source files that
    stay mapped while their numbers are converted; 0 where torch uses the mapped file as it is.
    numbers: how many parameters.
    """

    loaded: int
    mapped: int
    numbers: int


@dataclass(frozen=True)
class Described:
    """A model from its headers; None for what is not known, and why."""

    shape: ModelShape | None
    weights: Weights | None
    unknown: str = ""


def describe_model(source: str, dtype: str) -> Described:
    """A folder or hub id. A hub id in the cache is read there; of another the hub is asked.

    dtype: f32, bf16 or f16. FileNotFoundError or ArtefactError for a folder that is no model.
    """
    folder = Path(source).expanduser()
    if folder.is_dir():
        return Described(read_shape(folder / "config.json"), read_weights(folder, dtype))
    if folder.is_absolute() or source.startswith((".", "~")) or source.count("/") > 1:
        message = f"[memory] expected a model folder or hub id, got {source}, which does not exist"
        raise FileNotFoundError(message)
    cached = _cached_folder(source)
    if cached is not None:
        try:
            return Described(read_shape(cached / "config.json"), read_weights(cached, dtype))
        except (OSError, ArtefactError):
            _LOG.debug("the cached copy of %s has no weights", source)
    return _from_hub(source, dtype)


def read_shape(path: Path) -> ModelShape:
    """The shape in a config.json; ArtefactError for a file without one."""
    config = _read_json(path, "memory")
    inner = config.get("text_config")
    text = {**config, **inner} if isinstance(inner, dict) else config
    try:
        return _shape(text)
    except ValueError as error:
        message = f"[memory] expected a model's measures in {path}, got {error}"
        raise ArtefactError(message) from error


def read_weights(folder: Path, dtype: str) -> Weights:
    """What the safetensors files of a folder take in a dtype, from their headers.

    A matrix that is tied to the embedding counts once, in whichever form the file has it.
    FileNotFoundError for a folder without such files, ArtefactError for damaged ones.
    """
    config = _read_json(folder / "config.json", "memory")
    tied = _tied(config)
    loaded = mapped = numbers = 0
    for file in _files(folder):
        same = True
        for name, (kind, shape) in _header(file).items():
            if tied and name.endswith("lm_head.weight"):
                continue
            count = math.prod(shape)
            numbers += count
            known = kind in _FILE_TYPES
            loaded += count * (BYTES[dtype] if known else _OTHER_TYPES.get(kind, 8))
            same = same and (not known or kind == _SAME[dtype])
        mapped += 0 if same else file.stat().st_size
    return Weights(loaded, mapped, numbers)


def _shape(config: Mapping[str, Any]) -> ModelShape:
    d_model = _count(config, "hidden_size", "n_embd", "d_model")
    layers = _count(config, "num_hidden_layers", "n_layer", "num_layers", "n_layers")
    heads = _count(config, "num_attention_heads", "n_head", "num_heads", default=1)
    # Falcon and GPT-BigCode say that all heads share one key.
    shared = config.get("multi_query") is True and not config.get("new_decoder_architecture")
    kv_heads = _count(config, "num_key_value_heads", "num_kv_heads", default=1 if shared else heads)
    notes = []
    window = config.get("sliding_window")
    if isinstance(window, int) and config.get("use_sliding_window", True):
        notes.append(f"upper bound: blocks with a window keep {window} tokens")
    if any(name in config for name in ("state_size", "mamba_d_state", "linear_num_key_heads")):
        notes.append("upper bound: recurrent blocks keep a state and no cache")
    return ModelShape(
        kind=str(config.get("model_type", "unknown")),
        n_layers=layers,
        d_model=d_model,
        d_ff=_count(config, "intermediate_size", "n_inner", "ffn_dim", default=4 * d_model),
        n_heads=heads,
        n_kv_heads=kv_heads,
        head_dim=_count(config, "head_dim", default=max(1, d_model // heads)),
        vocab_size=_count(config, "vocab_size"),
        context=_count(
            config, "max_position_embeddings", "n_positions", "max_seq_len", default=2048
        ),
        tied=_tied(config),
        cache_note="; ".join(notes),
    )


def _tied(config: Mapping[str, Any]) -> bool:
    inner = config.get("text_config")
    text = inner if isinstance(inner, dict) else {}
    return bool(config.get("tie_word_embeddings", text.get("tie_word_embeddings", True)))


def _count(config: Mapping[str, Any], *names: str, default: int | None = None) -> int:
    """The first whole number above 0 under one of the names; ValueError where there is none."""
    for name in names:
        value = config.get(name)
        if type(value) is int:
            if not 0 < value < 2**40:
                message = f"{name} of {value}"
                raise ValueError(message)
            return value
    if default is not None:
        return default
    message = f"none of {', '.join(names)}"
    raise ValueError(message)


def _files(folder: Path) -> list[Path]:
    """The files that a load would read: those of the index, or the single one, or all there are."""
    if (folder / _INDEX).is_file():
        named = _read_json(folder / _INDEX, "memory").get("weight_map")
        names = set(named.values()) if isinstance(named, dict) else set()
        if not names or not all(isinstance(n, str) and Path(n).name == n for n in names):
            message = f"[memory] expected files in {folder / _INDEX}, got {str(named)[:80]}"
            raise ArtefactError(message)
        files = [folder / name for name in sorted(names)]
    elif (folder / _SINGLE).is_file():
        files = [folder / _SINGLE]
    else:
        files = sorted(folder.glob("*.safetensors"))
    missing = [file.name for file in files if not file.is_file()]
    if missing or not files:
        lack = ", ".join(missing) or "file *.safetensors"
        message = f"[memory] expected safetensors files in {folder}, got no {lack}"
        raise FileNotFoundError(message)
    return files


def _header(file: Path) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Type and shape of every tensor; no weights are read."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="np") as stream:
            parts = {name: stream.get_slice(name) for name in stream.keys()}  # noqa: SIM118
            return {n: (p.get_dtype(), tuple(p.get_shape())) for n, p in parts.items()}
    except SafetensorError as error:
        message = f"[memory] expected a whole safetensors file, got {file}: {error}"
        raise ArtefactError(message) from error


def _read_json(path: Path, where: str) -> dict[str, Any]:
    with open_text(path, where) as stream:
        text = stream.read(_MAX_JSON)
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        message = f"[memory] expected JSON in {path}, got {type(error).__name__}"
        raise ArtefactError(message) from error
    if not isinstance(value, dict):
        message = f"[memory] expected a JSON object in {path}, got {type(value).__name__}"
        raise ArtefactError(message)
    return value


def _cached_folder(model: str) -> Path | None:
    """Where the hub's cache has this model; None where it has not, or the name is none."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = try_to_load_from_cache(model, "config.json")
    except HFValidationError:
        return None
    return Path(found).parent if isinstance(found, str) else None


def _from_hub(model: str, dtype: str) -> Described:
    """From the hub's metadata, in one request that waits a few seconds, then config.json."""
    from huggingface_hub import HfApi, hf_hub_download

    try:
        found = HfApi().model_info(model, timeout=_TIMEOUT).safetensors
        shape = read_shape(Path(hf_hub_download(model, "config.json", etag_timeout=_TIMEOUT)))
    except Exception as error:  # whatever network, hub and proxy may raise: it is said, not hidden
        reason = f"{model} is not in the cache and the hub told nothing ({type(error).__name__})"
        return Described(None, None, reason)
    if found is None:
        return Described(shape, None, f"the hub has no safetensors of {model}")
    counts = {str(kind): int(count) for kind, count in found.parameters.items()}
    floats = {kind: count for kind, count in counts.items() if kind in _FILE_TYPES}
    others = sum(n * _OTHER_TYPES.get(kind, 8) for kind, n in counts.items() if kind not in floats)
    mapped = 0
    if any(kind != _SAME[dtype] for kind in floats):
        mapped = others + sum(count * _FILE_TYPES[kind] for kind, count in floats.items())
    loaded = sum(floats.values()) * BYTES[dtype] + others
    return Described(shape, Weights(loaded, mapped, sum(counts.values())))
