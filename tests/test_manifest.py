"""The manifest: versions, hashes of what lies there, and nothing that JSON cannot hold."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

import cogit
from cogit import manifest

EMPTY_SHA256 = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


def build(folder: Path, **changes: Any) -> dict[str, Any]:
    options: dict[str, Any] = {
        "settings": {"seed": 3, "backends": ["transformers"], "threads": None},
        "seconds": {"load": 1.23456, "evaluate": 20.0},
        "models": {"transformers": {"name": "demo", "n_layers": 6}},
    }
    return manifest.build_manifest("demo", folder, **(options | changes))


def test_outputs_are_hashed(tmp_path: Path) -> None:
    contents = {"report.json": b"{}", "empty.txt": b"", "plot.png": bytes(range(256)) * 5000}
    for name, data in contents.items():
        (tmp_path / name).write_bytes(data)
    outputs = build(tmp_path)["outputs"]
    assert outputs == {name: hashlib.sha256(data).hexdigest() for name, data in contents.items()}
    assert list(outputs) == sorted(outputs)
    assert outputs["empty.txt"] == EMPTY_SHA256


def test_a_changed_output_changes_its_hash_alone(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).write_bytes(b"before")
    before = build(tmp_path)["outputs"]
    (tmp_path / "a").write_bytes(b"after")
    after = build(tmp_path)["outputs"]
    assert before["a"] != after["a"]
    assert before["b"] == after["b"]


def test_outputs_are_all_files_below_but_records_of_runs(tmp_path: Path) -> None:
    record = json.dumps({"format": "cogit run"})
    for name in ("manifest.json", "deeper/manifest.json", "deeper/a.run.json"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(record, encoding="utf-8")
    # Recorded states have a manifest of their own.
    for name in ("kept", "deeper/kept", "store/manifest.json", "log.txt", ".lock"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x", encoding="utf-8")
    (tmp_path / "link").symlink_to(tmp_path / "kept")
    built = build(tmp_path, unhashed=["log.txt"])
    assert set(built["outputs"]) == {"kept", "deeper/kept", "store/manifest.json"}
    assert built["unhashed"] == ["log.txt"]


def test_it_survives_json(tmp_path: Path) -> None:
    built = build(tmp_path)
    assert json.loads(json.dumps(built, allow_nan=False)) == built
    assert built["format_version"] == 2
    assert built["command"] == "demo"
    assert built["settings"] == {"seed": 3, "backends": ["transformers"], "threads": None}
    assert built["models"]["transformers"]["n_layers"] == 6
    assert built["seconds"] == {"load": 1.235, "evaluate": 20.0}


def test_settings_are_copied(tmp_path: Path) -> None:
    settings = {"seed": 3}
    built = build(tmp_path, settings=settings)
    settings["seed"] = 4
    assert built["settings"] == {"seed": 3}


def test_versions_are_the_installed_ones() -> None:
    found = manifest.versions()
    assert found["cogit"] == cogit.__version__
    for name in ("torch", "transformers", "numpy", "scipy", "safetensors"):
        assert found[name] == importlib.metadata.version(name)


def test_what_is_not_installed_is_said_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifest, "_PACKAGES", ("numpy", "no-such-package-at-all"))
    found = manifest.versions()
    assert found["no-such-package-at-all"] == "absent"
    assert found["numpy"] == importlib.metadata.version("numpy")


def test_created_has_a_time_zone_and_platform_is_named(tmp_path: Path) -> None:
    built = build(tmp_path)
    assert datetime.fromisoformat(built["created"]).tzinfo is not None
    assert all(built["platform"][name] for name in ("python", "machine", "system"))


def test_peak_memory_is_in_mib(tmp_path: Path) -> None:
    # An interpreter with NumPy takes tens of MiB; a wrong unit would be off by 1024.
    assert 10 < build(tmp_path)["peak_memory_mib"] < 100_000


def test_a_folder_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        build(tmp_path / "absent")
