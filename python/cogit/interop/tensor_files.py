"""Reads vectors from safetensors, .npy, .npz and .pt files that nobody vouches for."""

from __future__ import annotations

import json
import math
import pickle
import re
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from cogit.errors import ArtefactError

if TYPE_CHECKING:
    from numpy.typing import NDArray

METADATA = "cogit_vectors"
_MAX_FILE = 2**28  # bytes, also unpacked; 128 vectors of width 65536 in float64 take a quarter
_MAX_ELEMENTS = 2**25
_NUMBER = re.compile(r"\d+", re.ASCII)
# MemoryError: a pickle of tensors may still ask for a buffer of any size.
_FROM_BAD_FILES = (
    *(ValueError, TypeError, LookupError, AttributeError, RuntimeError, OSError, EOFError),
    *(MemoryError, SyntaxError, pickle.UnpicklingError, zipfile.BadZipFile),
)


@dataclass(frozen=True)
class LoadedVectors:
    """Vectors by the file's numbers, or one ``single`` vector without a number.

    stacked: the numbers are rows of one array. convention: what the numbers mean, where the file
    says so.
    """

    vectors: Mapping[int, NDArray[np.float64]] = field(default_factory=dict)
    single: NDArray[np.float64] | None = None
    stacked: bool = False
    convention: str | None = None


def read_vectors(source: Path) -> LoadedVectors:
    """Read a file by its suffix; FileNotFoundError, or ArtefactError naming what is wrong."""
    if not source.is_file():
        message = f"[import] expected a file of vectors, got {source}, which is no file"
        raise FileNotFoundError(message)
    reader = _READERS.get(source.suffix.lower())
    if reader is None:
        _refuse(source, f"a suffix among {', '.join(_READERS)}, got {source.suffix or 'none'}")
    if source.stat().st_size > _MAX_FILE:
        _refuse(source, f"at most {_MAX_FILE // 2**20} MiB, got {source.stat().st_size} bytes")
    return reader(source)


def _safetensors(source: Path) -> LoadedVectors:
    from safetensors import SafetensorError, safe_open

    try:
        # By torch, because NumPy has no bfloat16. Its header is checked against the file's size.
        with safe_open(source, framework="pt") as stream:
            header = stream.metadata() or {}
            named = {name: stream.get_tensor(name) for name in stream.keys()}  # noqa: SIM118
    except (SafetensorError, RuntimeError, OSError) as error:
        _refuse(source, f"a whole safetensors file, got: {_one_line(error)}")
    if header.get("format") == "cogit":
        kind = header.get("kind")
        _refuse(source, f"vectors of another tool, got cogit's own {kind}; use it as it is")
    found = _by_number(source, {name: _from_torch(source, name, t) for name, t in named.items()})
    return LoadedVectors(found.vectors, found.single, found.stacked, _convention(source, header))


def _npy(source: Path) -> LoadedVectors:
    with source.open("rb") as stream:
        _check_npy(source, source.name, stream, source.stat().st_size)
    return _one_array(source, _from_numpy(source, source.name, np.load(source, allow_pickle=False)))


def _npz(source: Path) -> LoadedVectors:
    arrays = {}
    with _open_zip(source) as archive:
        for member in archive.infolist():
            if not member.filename.endswith(".npy"):
                _refuse(source, f"arrays only, got {member.filename[:60]!r}")
            with archive.open(member) as stream:
                _check_npy(source, member.filename, stream, member.file_size)
    with _reading(source, "a whole .npz file"), np.load(source, allow_pickle=False) as loaded:
        if len(loaded.files) != len(set(loaded.files)):
            _refuse(source, "each array once, got one twice")
        for name in loaded.files:
            arrays[name] = _from_numpy(source, name, loaded[name])
    return _by_number(source, arrays)


def _torch_file(source: Path) -> LoadedVectors:
    import torch

    # Only zip files: torch's older format claims sizes that nothing can be compared with.
    _open_zip(source).close()
    with _reading(source, "tensors alone (torch.save of a dictionary of tensors)"):
        loaded = torch.load(source, map_location="cpu", weights_only=True)
    if isinstance(loaded, torch.Tensor):
        return _one_array(source, _from_torch(source, "the tensor", loaded))
    if not isinstance(loaded, dict) or not all(isinstance(key, int | str) for key in loaded):
        _refuse(source, f"a tensor, or tensors by number or name, got {type(loaded).__name__}")
    return _by_number(
        source, {str(key): _from_torch(source, str(key), t) for key, t in loaded.items()}
    )


_READERS: dict[str, Callable[[Path], LoadedVectors]] = {
    ".safetensors": _safetensors,
    ".npy": _npy,
    ".npz": _npz,
    ".pt": _torch_file,
    ".pth": _torch_file,
}


def _check_npy(source: Path, name: str, stream: Any, size: int) -> None:
    """The header's claim must be what the file holds: ``np.load`` allocates by the claim."""
    with _reading(source, "a NumPy array"):
        version = np.lib.format.read_magic(stream)
        if version not in ((1, 0), (2, 0)):
            message = f"format version {version}"
            raise ValueError(message)
        read = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }[version]
        shape, _, dtype = read(stream)
    claimed = math.prod(shape) * dtype.itemsize
    if dtype.hasobject or dtype.kind != "f":
        _refuse(source, f"floats in {name}, got {dtype}")
    if min(shape, default=0) < 0 or claimed != size - stream.tell():
        _refuse(source, f"{claimed} bytes of data in {name}, got {size - stream.tell()}")


def _by_number(source: Path, named: Mapping[str, NDArray[np.float64]]) -> LoadedVectors:
    """Each name's one number; a lone array without one is a single vector or a stack."""
    if len(named) == 1:
        name, array = next(iter(named.items()))
        if not _NUMBER.search(name):
            return _one_array(source, array)
    found: dict[int, NDArray[np.float64]] = {}
    for name, array in named.items():
        numbers = _NUMBER.findall(name)
        if len(numbers) != 1 or len(numbers[0]) > 5 or f"-{numbers[0]}" in name:
            _refuse(source, f"one layer number from 0 on in each name, got {name[:60]!r}")
        number = int(numbers[0])
        if number in found:
            _refuse(source, f"each layer number once, got {number} twice")
        found[number] = _flat(source, name, array)
    if not found:
        _refuse(source, "at least one vector, got none")
    return LoadedVectors(dict(sorted(found.items())))


def _one_array(source: Path, array: NDArray[np.float64]) -> LoadedVectors:
    if array.ndim == 2 and array.shape[0] > 1:
        return LoadedVectors(dict(enumerate(array)), stacked=True)
    return LoadedVectors(single=_flat(source, "the array", array))


def _flat(source: Path, name: str, array: NDArray[np.float64]) -> NDArray[np.float64]:
    if array.size == 0 or array.shape[-1:] != (array.size,):
        _refuse(source, f"a vector (d_model,) at {name[:60]!r}, got shape {array.shape}")
    return array.reshape(-1)


def _from_torch(source: Path, name: str, value: Any) -> NDArray[np.float64]:
    import torch

    if not isinstance(value, torch.Tensor):
        _refuse(source, f"a tensor at {name[:60]!r}, got {type(value).__name__}")
    if value.layout != torch.strided or value.device.type != "cpu":
        _refuse(source, f"a dense tensor at {name[:60]!r}, got {value.layout} on {value.device}")
    if not value.is_floating_point() or value.is_quantized:
        _refuse(source, f"floats at {name[:60]!r}, got {value.dtype}")
    if value.numel() > _MAX_ELEMENTS:  # a view may claim more than its storage
        _refuse(source, f"at most {_MAX_ELEMENTS} values at {name[:60]!r}, got {value.numel()}")
    return _finite(source, name, value.detach().double().numpy())


def _from_numpy(source: Path, name: str, value: NDArray[Any]) -> NDArray[np.float64]:
    return _finite(source, name, value.astype(np.float64))


def _finite(source: Path, name: str, value: NDArray[np.float64]) -> NDArray[np.float64]:
    if not np.isfinite(value).all():
        _refuse(source, f"finite values at {name[:60]!r}, got NaN or infinity")
    return value


def _convention(source: Path, header: Mapping[str, str]) -> str | None:
    if METADATA not in header:
        return None
    try:
        return str(json.loads(header[METADATA])["convention"])
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        _refuse(source, f"JSON with a convention as {METADATA}, got: {_one_line(error)}")


def _open_zip(source: Path) -> zipfile.ZipFile:
    """A zip file whose members, unpacked, stay within the limit."""
    if not zipfile.is_zipfile(source):
        _refuse(source, f"a whole {source.suffix} file (a zip file), got another format")
    with _reading(source, "a whole zip file"):
        archive = zipfile.ZipFile(source)
    unpacked = sum(member.file_size for member in archive.infolist())
    names = [member.filename for member in archive.infolist()]
    if unpacked > _MAX_FILE or len(names) != len(set(names)):
        archive.close()
        _refuse(source, f"at most {_MAX_FILE // 2**20} MiB, each name once, got {unpacked} bytes")
    return archive


@contextmanager
def _reading(source: Path, what: str) -> Iterator[None]:
    """Turn whatever a library raises over a bad file into one line."""
    try:
        yield
    except ArtefactError:
        raise
    except _FROM_BAD_FILES as error:
        _refuse(source, f"{what}, got: {_one_line(error)}")


def _refuse(source: Path, what: str) -> NoReturn:
    message = f"[import] expected {what} in {source}"
    raise ArtefactError(message)


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:160]
