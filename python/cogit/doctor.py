"""What this installation can do: one check a part, each with a remedy where it falls short."""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from cogit import __version__
from cogit.errors import BackendMissingError

Status = Literal["ok", "warn", "fail"]
_LITTLE_SPACE = 2**30
_REINSTALL = "reinstall cogit: pip install --force-reinstall cogit"


@dataclass(frozen=True)
class Check:
    """One finding. remedy is empty where the status is ok."""

    name: str
    status: Status
    detail: str
    remedy: str = ""


def examine() -> list[Check]:
    """Run every check. None of them raises: a part that breaks is a finding."""
    checks: list[tuple[str, Callable[[], Check]]] = [
        ("cogit", _cogit),
        ("python", _python),
        ("platform", _platform),
        ("kernels", _kernels),
        ("cuda kernels", _cuda_kernels),
        ("torch", _torch),
        ("transformers", _transformers),
        ("llama.cpp", _llama),
        ("gguf", lambda: _library("gguf")),
        ("safetensors", lambda: _library("safetensors")),
        ("demo model", _demo_model),
        ("temporary folder", lambda: _folder("temporary folder", Path(tempfile.gettempdir()))),
        ("working folder", lambda: _folder("working folder", Path.cwd())),
    ]
    return [_guarded(name, check) for name, check in checks]


def _guarded(name: str, check: Callable[[], Check]) -> Check:
    try:
        return check()
    except (BackendMissingError, OSError, ValueError) as error:
        # cogit's own messages end with what to do.
        detail, _, remedy = " ".join(str(error).split()).partition("; ")
        return Check(name, "fail", detail, remedy or _REINSTALL)
    except (ImportError, RuntimeError, AttributeError) as error:
        return Check(name, "fail", f"{type(error).__name__}: {error}", _REINSTALL)


def _cogit() -> Check:
    return Check("cogit", "ok", f"{__version__} in {Path(__file__).resolve().parent}")


def _python() -> Check:
    return Check("python", "ok", f"{platform.python_version()} ({sys.executable})")


def _platform() -> Check:
    return Check(
        "platform",
        "ok",
        f"{platform.system()} {platform.machine()}, {os.cpu_count()} CPUs, {_cpu_model()}",
    )


def _kernels() -> Check:
    from cogit import kernels

    info = kernels.info()
    others = ", ".join(info["variants"])
    return Check("kernels", "ok", f"{info['cpu_variant']} of {others}; {info['compiler']}")


def _cuda_kernels() -> Check:
    import torch

    from cogit import kernels

    cuda = kernels.info()["cuda"]
    if cuda["built"]:
        names = ", ".join(device["name"] for device in cuda["devices"]) or "no CUDA device here"
        version = f"CUDA {cuda['runtime'] // 1000}.{cuda['runtime'] % 1000 // 10}"
        return Check("cuda kernels", "ok", f"built with {version}; {names}")
    detail = cuda["reason"]
    if torch.cuda.is_available():
        remedy = "steering runs in plain torch on the GPU; build with COGIT_CUDA=ON if supported"
        return Check("cuda kernels", "warn", detail, remedy)
    return Check("cuda kernels", "ok", f"{detail}; no CUDA device here")


def _torch() -> Check:
    import torch

    if torch.cuda.is_available():
        return Check("torch", "ok", f"{torch.__version__}, CUDA: {torch.cuda.get_device_name(0)}")
    return Check("torch", "ok", f"{torch.__version__}, CUDA not available")


def _transformers() -> Check:
    module = importlib.import_module("transformers")
    return Check("transformers", "ok", str(module.__version__))


def _llama() -> Check:
    """Library present, its ABI version and the sizes of the structs shared with the bindings."""
    from cogit.backends.llama_library import ABI_VERSION, load_library

    library = load_library()
    bindings = importlib.metadata.version("llama-cpp-python")
    return Check(
        "llama.cpp",
        "ok",
        f"llama-cpp-python {bindings}, {library.path}, ABI {ABI_VERSION}, struct sizes agree",
    )


def _library(name: str) -> Check:
    importlib.import_module(name)
    return Check(name, "ok", importlib.metadata.version(name))


def _demo_model() -> Check:
    from cogit.demo.assets import GGUF_TYPES, demo_model

    demo_model("transformers")
    for gguf_type in GGUF_TYPES:
        demo_model("llamacpp", gguf_type)
    return Check("demo model", "ok", f"safetensors and GGUF {', '.join(GGUF_TYPES)}")


def _folder(name: str, folder: Path) -> Check:
    free = shutil.disk_usage(folder).free
    detail = f"{folder}, {free / 2**30:.1f} GiB free"
    try:
        with tempfile.TemporaryFile(dir=folder) as stream:
            stream.write(b"cogit")
    except OSError as error:
        detail = f"{folder} is not writable: {error.strerror}"
        return Check(name, "fail", detail, "use another folder or change its permissions")
    if free < _LITTLE_SPACE:
        return Check(name, "warn", detail, "free some space: models and runs need gigabytes")
    return Check(name, "ok", detail)


def _cpu_model() -> str:
    source = Path("/proc/cpuinfo")
    if source.is_file():
        for line in source.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or "unknown CPU"
