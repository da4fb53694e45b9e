"""What a file is, read from its header: cogit's artefacts, GGUF files, vectors, model folders."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from cogit.artefact_facts import Facts, Header, artefact_facts, one_line, other_facts
from cogit.errors import ArtefactError
from cogit.folder_facts import folder_facts, json_facts
from cogit.identity import ModelIdentity, file_fingerprint
from cogit.interop.control_vector import ARCHITECTURE as CONTROL_VECTOR
from cogit.interop.control_vector import open_reader, read_control_vector
from cogit.interop.gguf_header import check_gguf
from cogit.interop.tensor_files import METADATA as VECTORS
from cogit.layers import describe_blocks

_GGUF_MAGIC = b"GGUF"


def inspect_path(path: str | Path) -> Facts:
    """The facts of a file or folder, JSON-ready; ``kind`` says what it is.

    Raises FileNotFoundError, or ArtefactError for a file that is none of the known kinds.
    """
    source = Path(path).expanduser()
    if source.is_dir():
        return folder_facts(source)
    if not source.is_file():
        message = f"[inspect] expected a file or a folder, got {source}, which does not exist"
        raise FileNotFoundError(message)
    with source.open("rb") as stream:
        magic = stream.read(4)
    if magic == _GGUF_MAGIC:
        return inspect_gguf(source)
    if source.suffix == ".json":
        return json_facts(source)
    header = Header.read(source)
    if header.metadata.get("format") == "cogit" and header.metadata.get("kind"):
        return artefact_facts(source, header)
    if VECTORS in header.metadata:
        return other_facts(source, "steering vectors", header, VECTORS)
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
        message = f"[inspect] expected a whole GGUF file, got {source}: {one_line(error)}"
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
