"""Reading trained unitaries from torch files of the earlier system, without running them.

A torch file is a zip archive around a pickle, and a pickle can call any function. Here nothing is
loaded before the archive's sizes have been added up and every name in the pickle has been read:
only the few that plain tensors need pass. Then `torch.load(weights_only=True)` reads it, mapped
from disk, so that a tensor which claims to be larger than the file is an error.
"""

from __future__ import annotations

import pickletools
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cogit.errors import ArtefactError
from cogit.presets import PRESETS
from cogit.training.operator_file import MAX_BYTES, OperatorFile, from_document, require_size

_MAX_PICKLE = 16 * 2**20
_MAX_ENTRIES = 1024
_NAMES = {
    "collections OrderedDict",
    "torch._utils _rebuild_tensor_v2",
    "torch._utils _rebuild_parameter",
    "torch FloatStorage",
    "torch DoubleStorage",
}
# Other ways in which a pickle names or makes objects; torch writes none of them.
_REFUSED = {"STACK_GLOBAL", "INST", "OBJ", "NEWOBJ", "NEWOBJ_EX", "EXT1", "EXT2", "EXT4"}
_KEYS = ("model_state_dict", "config", "training_history", "timestamp")
_CONFIG_TEXT = ("model_name", "model_identifier")
_PREFIX = "unitary_layer."
_REAL_PART, _IMAGINARY_PART = "A_upper", "B_upper"


def import_torch(
    path: str | Path,
    *,
    layer: int | None = None,
    direction: str = "",
    max_bytes: int = MAX_BYTES,
) -> OperatorFile:
    """Read a torch file of the earlier system: dense H = A + iB from the upper triangles of two
    squares.

    layer, direction: what such a file does not say. A preset that has no name here is "unknown".

    Raises FileNotFoundError, or ArtefactError for a file that is too large, damaged, of the form
    before torch 1.6, that would run code, or whose entries do not fit each other.
    """
    size = require_size(path, max_bytes)
    _check_archive(Path(path), size)
    try:
        document = torch.load(str(path), map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:
        raise _refusal(path, "a whole torch file of plain tensors", error) from error
    if not isinstance(document, dict) or any(key not in document for key in _KEYS):
        got = sorted(map(str, document))[:8] if isinstance(document, dict) else type(document)
        raise _refusal(path, f"a dictionary of {', '.join(_KEYS)}", got)
    config = document["config"]
    if not isinstance(config, dict):
        raise _refusal(path, "a dictionary as config", type(config).__name__)
    q = config.get("quantum_dim")
    if type(q) is not int or q < 1:
        raise _refusal(path, "a whole number of 1 or more as quantum_dim", q)
    preset = config.get("preset")
    ours = {name: config.get(name) for name in (*_CONFIG_TEXT, "input_dim")}
    ours |= {
        "quantum_dim": q,
        "preset": preset if isinstance(preset, str) and preset in PRESETS else "unknown",
        "layer": layer,
        "direction": direction,
    }
    free = _free_parameters(path, document["model_state_dict"], q, size)
    return from_document({**document, "model_state_dict": {"free": free}, "config": ours}, path)


def _free_parameters(
    path: str | Path, state: object, q: int, size: int
) -> np.ndarray[Any, np.dtype[np.floating[Any]]]:
    """The free parameters of `DenseCayley`, (q, q), of the two squares' upper triangles."""
    if not isinstance(state, Mapping):
        raise _refusal(path, "a dictionary of tensors as model_state_dict", type(state).__name__)
    plain = {str(name).removeprefix(_PREFIX): value for name, value in state.items()}
    if plain.keys() != {_REAL_PART, _IMAGINARY_PART}:
        expected = f"{_PREFIX}{_REAL_PART} and {_PREFIX}{_IMAGINARY_PART}"
        raise _refusal(path, expected, sorted(map(str, state))[:8])
    for name, value in plain.items():
        if not isinstance(value, Tensor) or value.layout != torch.strided:
            raise _refusal(path, f"a plain tensor as {name}", type(value).__name__)
        if tuple(value.shape) != (q, q):
            raise _refusal(path, f"{name} of shape ({q}, {q})", tuple(value.shape))
        # A tensor may repeat its storage: what it takes when copied is known only here.
        if value.dtype not in (torch.float32, torch.float64) or value.nbytes > size:
            raise _refusal(path, f"{name} in float32 or float64, stored in full", value.dtype)
    real, imaginary = (plain[name].detach().numpy() for name in (_REAL_PART, _IMAGINARY_PART))
    if real.dtype != imaginary.dtype:
        raise _refusal(path, "both squares of one dtype", f"{real.dtype} and {imaginary.dtype}")
    return np.asarray(np.triu(real).T + np.triu(imaginary, 1))


def _check_archive(path: Path, size: int) -> None:
    """ArtefactError unless this is a plain archive that holds no more than it is large."""
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            if len(entries) > _MAX_ENTRIES:
                raise _refusal(path, f"at most {_MAX_ENTRIES} parts", len(entries))
            # torch stores uncompressed; parts that overlap add up to more than the file.
            stored = all(part.compress_type == zipfile.ZIP_STORED for part in entries)
            if not stored or sum(part.file_size for part in entries) > size:
                raise _refusal(path, "an uncompressed archive", "one that unpacks to more")
            names = [part.filename for part in entries]
            pickles = [name for name in names if name.endswith(".pkl")]
            if len(set(names)) != len(names) or [n.split("/")[-1] for n in pickles] != ["data.pkl"]:
                raise _refusal(path, "one data.pkl", pickles[:4])
            if archive.getinfo(pickles[0]).file_size > _MAX_PICKLE:
                raise _refusal(path, f"a data.pkl of at most {_MAX_PICKLE} bytes", "a larger one")
            _check_pickle(path, archive.read(pickles[0]))
    except ArtefactError:
        raise
    except Exception as error:
        raise _refusal(path, "a whole torch file (a zip archive)", error) from error


def _check_pickle(path: Path, data: bytes) -> None:
    """ArtefactError where the pickle names anything that plain tensors do not need."""
    for operation, argument, _ in pickletools.genops(data):
        if operation.name in _REFUSED or (operation.name == "GLOBAL" and argument not in _NAMES):
            named = str(argument).replace(" ", ".") if argument else operation.name
            raise _refusal(path, "tensors alone", f"a reference to {named}, which could run code")


def _refusal(path: str | Path, expected: str, got: object) -> ArtefactError:
    reason = " ".join(str(got).split())[:200] or type(got).__name__
    return ArtefactError(f"[import] expected {expected} in {path}, got {reason}")
