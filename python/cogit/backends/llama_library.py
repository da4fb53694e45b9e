"""Loads the packaged libllama: once, checked, and before llama_cpp can load another one.

llama-cpp-python opens the library that ``LLAMA_CPP_LIB_PATH`` names at its first import. The
variable is set here unless the caller has set it; either way the library must carry cogit's hook
and the same struct layouts as the bindings, or nothing is loaded.
"""

from __future__ import annotations

import ctypes
import functools
import importlib
import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from cogit.errors import BackendMissingError

ABI_VERSION = 1
BINDINGS_VERSION = "0.3.36"
PATH_VARIABLE = "LLAMA_CPP_LIB_PATH"
LOG_VARIABLE = "COGIT_LLAMA_LOG"
_CPUINFO = Path("/proc/cpuinfo")


class CStats(ctypes.Structure):
    """Mirror of ``struct cogit_stats`` in csrc/llama/cogit_llama.h."""

    _fields_ = (
        ("n_sites", ctypes.c_int32),
        ("n_capture_sites", ctypes.c_int32),
        ("n_skipped", ctypes.c_int32),
        ("n_nodes", ctypes.c_int32),
        ("n_builds", ctypes.c_int64),
        ("n_ubatches", ctypes.c_int64),
        ("n_conflicts", ctypes.c_int64),
    )


@dataclass(frozen=True)
class LlamaLibrary:
    """The loaded library.

    ``api`` is the module ``llama_cpp.llama_cpp`` (llama.cpp's C interface, untyped); ``cogit`` is
    the same library as a ctypes handle with the ``cogit_*`` prototypes declared.
    """

    api: Any
    cogit: ctypes.CDLL
    path: Path

    def check(self, code: int) -> int:
        """Pass a non-negative result on; raise the library's own message for a negative one."""
        if code >= 0:
            return code
        message = self.cogit.cogit_last_error().decode()
        raise MemoryError(message) if code == -2 else ValueError(message)

    def take_log_error(self) -> str:
        """What llama.cpp logged as its first error since the last call; empty if nothing."""
        return str(self.cogit.cogit_log_take_error().decode(errors="replace"))


def library_path() -> Path:
    """The file that is, or would be, loaded. It need not exist."""
    directory = os.environ.get(PATH_VARIABLE)
    if directory is None:
        return Path(__file__).resolve().parent.parent / "_llama" / "libllama.so"
    return Path(directory) / "libllama.so"


def converter_path() -> Path:
    """The directory of the converter that belongs to the packaged library."""
    return Path(__file__).resolve().parent.parent / "_llama" / "converter"


@functools.cache
def load_library() -> LlamaLibrary:
    """Load the library, or raise BackendMissingError with one line that says what to do."""
    path = library_path()
    module = sys.modules.get("llama_cpp.llama_cpp")
    if module is None:
        if not path.is_file():
            _refuse(f"expected libllama at {path}, got no file; install cogit again")
        _check_cpu(path)
        os.environ[PATH_VARIABLE] = str(path.parent)
        module = _import_bindings()
    library: ctypes.CDLL = module._lib
    _check_version(library)
    _declare(library)
    _check_layout(module, library)
    library.cogit_log_quiet(0 if os.environ.get(LOG_VARIABLE) == "1" else 1)
    module.llama_backend_init()
    return LlamaLibrary(module, library, Path(library._name))


def _refuse(what: str, cause: Exception | None = None) -> NoReturn:
    message = f"[llama.cpp] {what}"
    raise BackendMissingError(message) from cause


def _import_bindings() -> Any:
    try:
        return importlib.import_module("llama_cpp.llama_cpp")
    except ModuleNotFoundError as error:
        _refuse(
            f"expected the package llama-cpp-python {BINDINGS_VERSION}, got: {error}; install it",
            error,
        )
    except (OSError, RuntimeError, AttributeError) as error:
        _refuse(f"the bindings could not load {library_path()}: {error}", error)


def _check_cpu(path: Path) -> None:
    """Refuse before the library is opened: its first vector instruction would kill the process."""
    record = path.parent / "build.json"
    if not record.is_file() or not _CPUINFO.is_file():
        return
    needed = set(json.loads(record.read_text(encoding="utf-8"))["cpu_flags"])
    lines = _CPUINFO.read_text(encoding="utf-8").splitlines()
    present = next((line.split() for line in lines if line.startswith("flags")), None)
    if present is None:
        return
    absent = sorted(needed - set(present))
    if absent:
        _refuse(
            f"this libllama was compiled for a CPU with {' '.join(sorted(needed))}, this one "
            f"lacks {' '.join(absent)}; build cogit on this machine with COGIT_NATIVE=ON"
        )


def _check_version(library: ctypes.CDLL) -> None:
    loaded = library._name
    if not hasattr(library, "cogit_abi_version"):
        _refuse(
            f"llama_cpp has loaded {loaded}, which lacks cogit's hook; import cogit's backend "
            f"before llama_cpp and leave {PATH_VARIABLE} unset"
        )
    abi = library.cogit_abi_version()
    if abi != ABI_VERSION:
        _refuse(
            f"expected a libllama of cogit ABI {ABI_VERSION}, got {abi} from {loaded}; "
            "install cogit again"
        )


def _check_layout(module: Any, library: ctypes.CDLL) -> None:
    mirrors = {
        "model_params": module.llama_model_params,
        "context_params": module.llama_context_params,
        "batch": module.llama_batch,
        "quantize_params": module.llama_model_quantize_params,
        "stats": CStats,
    }
    for name, mirror in mirrors.items():
        got, expected = ctypes.sizeof(mirror), library.cogit_struct_size(name.encode())
        if got != expected:
            _refuse(
                f"struct {name} has {expected} bytes in the library and {got} in the bindings; "
                f"install llama-cpp-python {BINDINGS_VERSION}"
            )


def _declare(library: ctypes.CDLL) -> None:
    """Declare the prototypes of csrc/llama/cogit_llama.h."""
    context, text = ctypes.c_void_p, ctypes.c_char_p
    i32, u32, f32 = ctypes.c_int32, ctypes.c_uint32, ctypes.c_float
    # Arrays are passed as addresses: the engine checks dtype and layout.
    array = ctypes.c_void_p
    prototypes: dict[str, tuple[Any, list[Any]]] = {
        "cogit_abi_version": (i32, []),
        "cogit_struct_size": (ctypes.c_size_t, [text]),
        "cogit_last_error": (text, []),
        "cogit_set_op": (i32, [context, i32, i32, i32, array, array, array, array, u32]),
        "cogit_clear_op": (i32, [context, i32]),
        "cogit_set_strength": (i32, [context, i32, f32, i32, i32]),
        "cogit_reset_strengths": (i32, [context]),
        "cogit_capture_begin": (i32, [context, array, i32, i32, u32]),
        "cogit_capture_rewind": (i32, [context]),
        "cogit_capture_end": (i32, [context]),
        "cogit_capture_rows": (i32, [context]),
        "cogit_capture_index": (i32, [context, array, array, i32]),
        "cogit_capture_read": (i32, [context, i32, u32, i32, i32, array]),
        "cogit_prepare": (i32, [context]),
        "cogit_get_stats": (i32, [context, ctypes.POINTER(CStats), ctypes.c_size_t]),
        "cogit_sites": (i32, [context, i32, array, i32]),
        "cogit_skip_reason": (text, [context]),
        "cogit_detach": (i32, [context]),
        "cogit_log_quiet": (None, [i32]),
        "cogit_log_take_error": (text, []),
        "cogit_threads_attach": (ctypes.c_void_p, [context, i32]),
        "cogit_threads_free": (None, [ctypes.c_void_p]),
    }
    for name, (result, arguments) in prototypes.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
