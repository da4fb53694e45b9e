"""What a file is, read from its header: cogit's artefacts, GGUF files, vectors, model folders."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from cogit.errors import ArtefactError
from cogit.identity import ModelIdentity, file_fingerprint
from cogit.interop.control_vector import ARCHITECTURE as CONTROL_VECTOR
from cogit.interop.control_vector import open_reader, read_control_vector
from cogit.interop.gguf_header import check_gguf
from cogit.interop.tensor_files import METADATA as VECTORS
from cogit.layers import describe_blocks

Facts = dict[str, Any]
_GGUF_MAGIC = b"GGUF"
_WIDTHS = ("hidden_size", "n_embd", "d_model")
_DEPTHS = ("num_hidden_layers", "n_layer", "num_layers")
_CONTEXTS = ("max_position_embeddings", "n_positions")


def inspect_path(path: str | Path) -> Facts:
    """The facts of a file or folder, JSON-ready; ``kind`` says what it is.

    Raises FileNotFoundError, or ArtefactError for a file that is none of the known kinds.
    """
    source = Path(path).expanduser()
    if source.is_dir():
        kept = (source / "manifest.json").is_file() and not (source / "config.json").is_file()
        return _folder_with_manifest(source) if kept else _model_folder(source)
    if not source.is_file():
        message = f"[inspect] expected a file or a model folder, got {source}, which does not exist"
        raise FileNotFoundError(message)
    with source.open("rb") as stream:
        magic = stream.read(4)
    if magic == _GGUF_MAGIC:
        return inspect_gguf(source)
    header, tensors = _safetensors_header(source)
    if header.get("format") == "cogit" and header.get("kind"):
        known = {"intervention": _intervention, "activations": _activations}.get(header["kind"])
        return known(source) if known else _other(source, header["kind"], header, "json", tensors)
    if VECTORS in header:
        return _other(source, "steering vectors", header, VECTORS, tensors)
    message = (
        f"[inspect] expected an artefact of cogit, a GGUF file or a model folder, got {source}, "
        f"safetensors of another origin"
    )
    raise ArtefactError(message)


def inspect_gguf(source: Path) -> Facts:
    """Architecture, measures and quantisation of a GGUF file; weights are not read."""
    check_gguf(source, "inspect")
    reader = open_reader(source, "inspect")
    try:
        fields = {name: reader.get_field(name) for name in reader.fields}
        values = {
            name: field.contents()
            for name, field in fields.items()
            if field is not None and not name.startswith("tokenizer.ggml.")
        }
        tokens = reader.get_field("tokenizer.ggml.tokens")
        quantisation = Counter(tensor.tensor_type.name for tensor in reader.tensors)
    except (ValueError, KeyError, IndexError) as error:
        message = f"[inspect] expected a whole GGUF file, got {source}: {_one_line(error)}"
        raise ArtefactError(message) from error
    architecture = str(values.get("general.architecture", "unknown"))
    if architecture == CONTROL_VECTOR:
        return _control_vector(source, values)
    file_type = values.get("general.file_type")
    return {
        "kind": "gguf",
        "file": str(source),
        "bytes": source.stat().st_size,
        "name": values.get("general.name"),
        "architecture": architecture,
        "blocks": _gguf_blocks(values, architecture),
        "width": values.get(f"{architecture}.embedding_length"),
        "vocabulary": values.get(f"{architecture}.vocab_size")
        if tokens is None
        else len(tokens.data),
        "context": values.get(f"{architecture}.context_length"),
        "tokenizer": _tokenizer_name(reader),
        "file_type": None if file_type is None else file_type_name(int(file_type)),
        "tensor_types": dict(quantisation.most_common()),
    }


def gguf_type(path: str | Path) -> str:
    """The file type that a GGUF declares, such as F32 or Q4_K_M; ArtefactError if it does not."""
    facts = inspect_path(path)
    if facts["kind"] != "gguf" or facts["file_type"] is None:
        message = f"[inspect] expected a GGUF file that names its type, got {path}, {facts['kind']}"
        raise ArtefactError(message)
    return str(facts["file_type"])


def file_type_name(number: int) -> str:
    """llama.cpp's name of a ``general.file_type``, such as F32, Q8_0 or Q4_K_M."""
    from gguf import LlamaFileType

    try:
        return str(LlamaFileType(number).name).removeprefix("MOSTLY_").removeprefix("ALL_")
    except ValueError:
        return f"unknown type {number}"


def _gguf_blocks(values: Facts, architecture: str) -> int | None:
    """Decoder blocks; those for multi-token prediction come after them and are not run."""
    blocks = values.get(f"{architecture}.block_count")
    extra = values.get(f"{architecture}.nextn_predict_layers", 0)
    return blocks - extra if type(blocks) is int and type(extra) is int else None


def _tokenizer_name(reader: Any) -> str | None:
    field = reader.get_field("tokenizer.ggml.model")
    return None if field is None else str(field.contents())


def model_identity(path: str | Path) -> ModelIdentity:
    """The identity that a backend gives a model folder or GGUF file, from headers alone.

    FileNotFoundError or ArtefactError if it is neither, or does not name its measures.
    """
    source = Path(path).expanduser()
    if not source.exists():
        message = f"[model] expected a model folder or a GGUF file, got {path}, which is not there"
        raise FileNotFoundError(message)
    facts = inspect_path(source)
    measures = [facts.get(name) for name in ("blocks", "width", "vocabulary")]
    if facts["kind"] not in ("gguf", "model folder") or not all(type(m) is int for m in measures):
        message = (
            f"[model] expected a model with blocks, width and vocabulary, got {source}, "
            f"{facts['kind']}"
        )
        raise ArtefactError(message)
    folder = source.is_dir()
    files = sorted(source.glob("*.safetensors")) if folder else [source]
    return ModelIdentity(
        name=source.resolve().name if folder else source.stem,
        architecture=str(facts["architecture"]),
        n_layers=facts["blocks"],
        d_model=facts["width"],
        vocab_size=facts["vocabulary"],
        fingerprint=file_fingerprint(files),
    )


def _safetensors_header(source: Path) -> tuple[dict[str, str], Facts]:
    """The header's metadata, and each tensor's type and shape."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(source, framework="np") as stream:
            parts = {name: stream.get_slice(name) for name in stream.keys()}  # noqa: SIM118
            tensors = {n: f"{part.get_dtype()} {part.get_shape()}" for n, part in parts.items()}
            return stream.metadata() or {}, tensors
    except SafetensorError as error:
        message = f"[inspect] expected a whole safetensors or GGUF file, got {source}: {error}"
        raise ArtefactError(message) from error


def _other(source: Path, kind: str, header: dict[str, str], name: str, tensors: Facts) -> Facts:
    """A kind without a description of its own: its tensors, and its metadata as they are."""
    try:
        metadata = json.loads(header.get(name, ""))
    except (ValueError, RecursionError) as error:
        message = f"[inspect] expected JSON metadata in {source}, got {_one_line(error)}"
        raise ArtefactError(message) from error
    return {
        "kind": kind,
        "file": str(source),
        "bytes": source.stat().st_size,
        "tensors": dict(sorted(tensors.items())),
        "metadata": metadata,
    }


def _control_vector(source: Path, values: Facts) -> Facts:
    found = read_control_vector(source)
    return {
        "kind": "control vector",
        "file": str(source),
        "bytes": source.stat().st_size,
        "steers": describe_blocks(found.directions),
        "width": found.d_model,
        "model_hint": found.model_hint,
        "layer_count": found.layer_count,
        "norms": {
            str(layer): float(np.linalg.norm(vector.astype(np.float64)))
            for layer, vector in found.directions.items()
        },
        "made_by": {n: v for n, v in values.items() if n.startswith("cogit.")} or None,
        "sha256": found.sha256,
    }


def _intervention(source: Path) -> Facts:
    from cogit.intervention import Intervention

    loaded = Intervention.load(source)
    operators = []
    for layer, fold in loaded.folds().items():
        operator = loaded.operators[layer]
        operators.append(
            {
                "block": layer,
                "kind": operator.kind,
                "formula": operator.formula,
                "parameters": operator.parameters(),
                "rank": fold.rank,
                "constant_norm": float(np.linalg.norm(fold.c.astype(np.float64))),
                "restores_norm": fold.restore,
                "gate": loaded.gates[layer].parameters() if layer in loaded.gates else None,
            }
        )
    return {
        "kind": "intervention",
        "file": str(source),
        "bytes": source.stat().st_size,
        "steers": describe_blocks(loaded.layers),
        "strength": loaded.strength,
        "positions": str(loaded.positions),
        "changes_nothing": loaded.changes_nothing(),
        "operators": operators,
        "model": loaded.identity.to_json(),
        "lineage": dict(loaded.lineage),
        "content_hash": loaded.content_hash,
    }


def _activations(source: Path) -> Facts:
    from cogit.activations import Activations

    loaded = Activations.load(source)
    return {
        "kind": "activations",
        "file": str(source),
        "bytes": source.stat().st_size,
        "recorded": describe_blocks(loaded.layers),
        "pairs": int(loaded.positive.shape[1]),
        "width": int(loaded.positive.shape[2]),
        "tail": loaded.tail,
        "class_distance": {
            str(layer): float(np.linalg.norm((positive - negative).mean(axis=0)))
            for layer, positive, negative in zip(
                loaded.layers, loaded.positive, loaded.negative, strict=True
            )
        },
        "model": loaded.identity.to_json(),
    }


def _folder_with_manifest(source: Path) -> Facts:
    """A folder that cogit wrote, such as a run, by its manifest and the sizes of its files."""
    path = source / "manifest.json"
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        message = f"[inspect] expected JSON in {path}, got {_one_line(error)}"
        raise ArtefactError(message) from error
    if not isinstance(manifest, dict):
        message = f"[inspect] expected a JSON object in {path}, got {type(manifest).__name__}"
        raise ArtefactError(message)
    files = {file.name: file.stat().st_size for file in sorted(source.iterdir()) if file.is_file()}
    return {
        "kind": str(manifest.get("kind", "run folder")),
        "file": str(source),
        "bytes": sum(files.values()),
        "files": files,
        "metadata": manifest,
    }


def _model_folder(source: Path) -> Facts:
    """A transformers model folder, by its config.json alone."""
    path = source / "config.json"
    if not path.is_file():
        message = f"[inspect] expected a model folder with config.json, got {source}"
        raise FileNotFoundError(message)
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        text = config.get("text_config") or config
        measures = {
            "blocks": _first(text, _DEPTHS),
            "width": _first(text, _WIDTHS),
            "context": _first(text, _CONTEXTS),
        }
    except (ValueError, AttributeError) as error:
        message = f"[inspect] expected a JSON object in {path}, got {_one_line(error)}"
        raise ArtefactError(message) from error
    weights = sorted(source.glob("*.safetensors"))
    return {
        "kind": "model folder",
        "file": str(source),
        "architecture": text.get("model_type"),
        "classes": config.get("architectures"),
        **measures,
        "vocabulary": text.get("vocab_size"),
        "dtype": config.get("dtype") or config.get("torch_dtype"),
        "weight_files": [weight.name for weight in weights],
        "weight_bytes": sum(weight.stat().st_size for weight in weights),
    }


def _first(config: Facts, names: tuple[str, ...]) -> Any:
    return next((config[name] for name in names if config.get(name) is not None), None)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
