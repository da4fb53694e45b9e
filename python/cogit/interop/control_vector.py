"""Control-vector GGUF files, as llama.cpp reads and repeng writes them.

The file: ``general.architecture`` is ``controlvector``, ``controlvector.model_hint`` names an
architecture, ``controlvector.layer_count`` counts something (repeng: the directions; others: the
model's blocks), and each tensor ``direction.i`` is a float32 vector (d_model,).

Numbers: ``direction.i`` is added after block i, counted from 0, in both tools. llama.cpp's loader
puts direction.i at offset (i − 1)·d_model and its graph reads block i from there, so that block 0
is impossible; repeng takes it from ``hidden_states[i + 1]`` and adds it to the output of block i,
where block 0 is possible. Both act on every token, the first included, and both multiply by a
scale given at run time (``--control-vector-scaled``, ``coeff``). repeng's ``normalize`` and
``operator`` are arguments of its calls, not parts of the file.
"""

from __future__ import annotations

import hashlib
import logging
import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from cogit import __version__
from cogit.artefact import write_bytes
from cogit.errors import ArtefactError, InterventionError
from cogit.identity import ModelIdentity
from cogit.interop.gguf_header import check_gguf
from cogit.interop.vectors import StrengthMode, additive_vectors
from cogit.intervention import Intervention
from cogit.layers import describe_blocks
from cogit.operators import Additive
from cogit.positions import Positions

if TYPE_CHECKING:
    from numpy.typing import NDArray

_LOG = logging.getLogger(__name__)
ARCHITECTURE = "controlvector"
_NAME = re.compile(r"direction\.(0|[1-9]\d{0,4})", re.ASCII)
_MAX_FILE = 2**28  # 256 MiB; 128 blocks of width 32768 take 16
_MAX_ELEMENTS = 2**16  # of metadata arrays, of which the format has none


@dataclass(frozen=True)
class ControlVector:
    """What a control-vector GGUF holds.

    directions: (d_model,) float32 by block. model_hint, layer_count: as the file says, None where
    it does not. sha256: of the file.
    """

    directions: Mapping[int, NDArray[np.float32]]
    model_hint: str | None
    layer_count: int | None
    sha256: str

    @property
    def d_model(self) -> int:
        return next(iter(self.directions.values())).size


def export_control_vector(
    intervention: Intervention,
    path: str | Path,
    *,
    strength: StrengthMode = "folded",
    every_token: bool = False,
) -> Path:
    """Write an additive intervention on blocks ≥ 1 for llama.cpp's ``--control-vector``.

    strength: ``folded`` into the vectors, or ``kept`` out of them, for
    ``--control-vector-scaled FILE:λ``. every_token: accept that llama.cpp steers the first token of
    a sequence too. Raises InterventionError for block 0 and for all that ``additive_vectors``
    refuses.
    """
    target = "a control-vector GGUF"
    vectors = additive_vectors(intervention, target, strength=strength, every_token=every_token)
    if 0 in vectors:
        message = (
            "[export] expected blocks from 1 on, as llama.cpp has no control vector at block 0, "
            "got an intervention there; export it as safetensors or leave that block out"
        )
        raise InterventionError(message)
    write_bytes(Path(path), _encode(vectors, intervention, strength))
    return Path(path)


def import_control_vector(
    path: str | Path,
    identity: ModelIdentity,
    *,
    layers: Sequence[int] | None = None,
    strength: float = 1.0,
    positions: Positions | None = None,
) -> Intervention:
    """The additive intervention that llama.cpp and repeng make of a control-vector GGUF.

    identity: of the model that it will steer. layers: a choice among the file's directions, by
    default all. positions: by default every token, the first
    included, as those tools do. A ``direction.0``, which repeng applies and llama.cpp refuses, acts
    on block 0. Another architecture than the file's hint is logged, as the tools ignore the hint.

    Raises FileNotFoundError, or ArtefactError for a file that is not a whole control vector, or is
    one for a model of another width or depth.
    """
    found = read_control_vector(path)
    source = Path(path)
    if found.d_model != identity.d_model:
        message = (
            f"[import] expected directions of width {identity.d_model} for {identity.name}, got "
            f"{found.d_model} in {source}"
        )
        raise ArtefactError(message)
    missing = sorted(set(layers or ()) - set(found.directions))
    if missing:
        message = (
            f"[import] expected directions of {describe_blocks(found.directions)}, as {source} "
            f"has, got {describe_blocks(missing)}"
        )
        raise ArtefactError(message)
    chosen = {layer: found.directions[layer] for layer in layers or found.directions}
    deepest = max(chosen)
    if deepest >= identity.n_layers:
        message = (
            f"[import] expected directions of blocks 0..{identity.n_layers - 1} of "
            f"{identity.name}, got direction.{deepest} in {source}"
        )
        raise ArtefactError(message)
    if found.model_hint not in (None, identity.architecture):
        _LOG.warning(
            "control vector made for architecture %s, used on %s (%s)",
            found.model_hint,
            identity.name,
            identity.architecture,
        )
    return Intervention(
        {layer: Additive(vector.astype(np.float64)) for layer, vector in chosen.items()},
        identity,
        strength=strength,
        positions=positions or Positions(first_token=True),
        lineage={
            "imported_from": "control-vector GGUF",
            "file": source.name,
            "sha256": found.sha256,
            "model_hint": found.model_hint,
            "layer_count": found.layer_count,
            "directions": sorted(chosen),
        },
    )


def read_control_vector(path: str | Path) -> ControlVector:
    """Read and check a control-vector GGUF; FileNotFoundError or ArtefactError otherwise."""
    source = Path(path)
    if not source.is_file():
        message = f"[import] expected a control-vector GGUF, got {source}, which is no file"
        raise FileNotFoundError(message)
    if source.stat().st_size > _MAX_FILE:
        message = (
            f"[import] expected a control vector of at most {_MAX_FILE // 2**20} MiB, got {source} "
            f"of {source.stat().st_size // 2**20} MiB"
        )
        raise ArtefactError(message)
    check_gguf(source, "import", max_elements=_MAX_ELEMENTS)
    reader = open_reader(source, "import")
    architecture = _text(reader, "general.architecture")
    if architecture != ARCHITECTURE:
        _refuse(source, f"a GGUF of architecture {ARCHITECTURE}, got {architecture}")
    directions = _directions(reader, source)
    return ControlVector(
        directions=directions,
        model_hint=_text(reader, f"{ARCHITECTURE}.model_hint"),
        layer_count=_whole(reader, f"{ARCHITECTURE}.layer_count"),
        sha256=hashlib.sha256(source.read_bytes()).hexdigest(),
    )


def open_reader(source: Path, where: str) -> Any:
    """A GGUFReader on a file whose header has been checked; ArtefactError if it still objects."""
    from gguf import GGUFReader

    try:
        return GGUFReader(source)
    except (ValueError, KeyError, IndexError, OSError, OverflowError) as error:
        detail = " ".join(str(error).split())[:200]
        message = f"[{where}] expected a whole GGUF file, got {source}: {detail}"
        raise ArtefactError(message) from error


def _directions(reader: Any, source: Path) -> dict[int, NDArray[np.float32]]:
    found: dict[int, NDArray[np.float32]] = {}
    for tensor in reader.tensors:
        match = _NAME.fullmatch(tensor.name)
        shape = tuple(int(n) for n in tensor.shape)
        kind = tensor.tensor_type.name
        if match is None:
            _refuse(source, f"tensors named direction.i, got {tensor.name[:60]!r}")
        if kind != "F32" or len(shape) != 1 or shape[0] < 1:
            _refuse(source, f"{tensor.name} of type F32 and shape (d_model,), got {kind} {shape}")
        vector = np.array(tensor.data, dtype=np.float32)
        if not np.isfinite(vector).all():
            _refuse(source, f"finite values in {tensor.name}, got NaN or infinity")
        found[int(match[1])] = vector
    if not any(vector.any() for vector in found.values()):
        _refuse(source, f"directions other than zero, got {len(found)} directions without any")
    widths = sorted({vector.size for vector in found.values()})
    if len(widths) > 1:
        _refuse(source, f"directions of one width, got {', '.join(map(str, widths))}")
    return dict(sorted(found.items()))


def _refuse(source: Path, what: str) -> NoReturn:
    message = f"[import] expected {what} in {source}"
    raise ArtefactError(message)


def _text(reader: Any, name: str) -> str | None:
    value = _contents(reader, name)
    return value if isinstance(value, str) else None


def _whole(reader: Any, name: str) -> int | None:
    value = _contents(reader, name)
    return value if isinstance(value, int) else None


def _contents(reader: Any, name: str) -> Any:
    field = reader.get_field(name)
    try:
        return None if field is None else field.contents()
    except UnicodeDecodeError:
        return None


def _encode(
    vectors: Mapping[int, NDArray[np.float32]], intervention: Intervention, strength: StrengthMode
) -> bytes:
    """The file's bytes; its writer wants a path, and a reader must never see half a file."""
    from gguf import GGUFWriter

    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "vector.gguf"
        writer = GGUFWriter(target, ARCHITECTURE)
        writer.add_string(f"{ARCHITECTURE}.model_hint", intervention.identity.architecture)
        writer.add_uint32(f"{ARCHITECTURE}.layer_count", len(vectors))
        # Readers look at the names above only; these say where the vectors came from.
        writer.add_string("cogit.version", __version__)
        writer.add_string("cogit.content_hash", intervention.content_hash)
        writer.add_float64("cogit.strength", intervention.strength)
        writer.add_bool("cogit.strength_folded", strength == "folded")
        for layer, vector in vectors.items():
            writer.add_tensor(f"direction.{layer}", vector)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return target.read_bytes()
