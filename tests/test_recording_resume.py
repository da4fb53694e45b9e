"""A recording that stops goes on bit for bit, and refuses what is not its own."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from _models import steering, tiny_backend
from _recording import PAIRS, bits, counted, failing, fingerprinted, store_of
from cogit import artefact
from cogit.activations import Activations
from cogit.backends.transformers import TransformersBackend
from cogit.errors import ArtefactError
from cogit.layers import LayerRange
from cogit.pairs import ContrastPair


@pytest.fixture(scope="module")
def backend() -> TransformersBackend:
    return fingerprinted()


@pytest.mark.parametrize("select", ["tail-4", "all"])
def test_resuming_gives_the_same_bits(
    backend: TransformersBackend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, select: str
) -> None:
    """An interruption loses at most one shard."""
    options: dict[str, Any] = {"select": select, "rows_per_shard": 2}
    store_of(backend, tmp_path / "whole", **options)
    with monkeypatch.context() as patch:
        failing(backend, patch, after=3)
        with pytest.raises(KeyboardInterrupt):
            store_of(backend, tmp_path / "part", **options)
    assert len(list((tmp_path / "part").glob("shard-*"))) == 3
    (tmp_path / "part" / ".shard-00003.safetensors.x1").write_bytes(b"half a shard")
    with pytest.raises(ArtefactError, match=r"^\[load\] expected a finished store, .* 3 of 6 shar"):
        Activations.load(tmp_path / "part")
    with pytest.raises(ArtefactError, match=r"^\[record\] expected a new folder, .* \(--resume\) "):
        store_of(backend, tmp_path / "part", **options)
    calls = counted(backend, monkeypatch)
    store_of(backend, tmp_path / "part", **options, resume=True)
    assert sum(calls) == 6  # two texts for each of the three shards that were missing
    assert bits(tmp_path / "part") == bits(tmp_path / "whole")
    assert not list((tmp_path / "part").glob(".shard-*"))


def test_killing_the_process_loses_one_shard_at_most(tmp_path: Path) -> None:
    """SIGKILL in the middle, resumed in another process."""
    code = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from test_recording import PAIRS, store_of\n"
        "from _models import tiny_backend\n"
        "backend = tiny_backend()\n"
        "if sys.argv[2] == 'slow':\n"
        "    run = backend.states\n"
        "    backend.states = lambda *a, **o: (time.sleep(0.3), run(*a, **o))[1]\n"
        "store_of(backend, Path(sys.argv[1]), pairs=PAIRS * 4, rows_per_shard=2, resume=True)\n"
    )
    path = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    environment = {**os.environ, "PYTHONPATH": path}

    def start(folder: str, how: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-c", code, str(tmp_path / folder), how]
        return subprocess.Popen(command, env=environment)

    killed = start("part", "slow")
    until = time.monotonic() + 120
    while len(list((tmp_path / "part").glob("shard-*"))) < 2 and time.monotonic() < until:
        time.sleep(0.02)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    done = {name: p for name, p in bits(tmp_path / "part").items() if name.startswith("shard")}
    assert 2 <= len(done) < 24
    assert start("part", "fast").wait(timeout=120) == 0
    store_of(tiny_backend(), tmp_path / "whole", pairs=PAIRS * 4, rows_per_shard=2)
    again = bits(tmp_path / "part")
    assert again == bits(tmp_path / "whole")
    assert done.items() <= again.items()


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"layers": LayerRange.of([0])}, "layers"),
        ({"hook_point": "attn_out"}, "hook_point"),
        ({"select": "last"}, "select"),
        ({"dtype": "f16"}, "dtype"),
        ({"rows_per_shard": 2}, "shards"),
        ({"pairs": PAIRS[:5]}, "pairs, shards"),
        ({"pairs": [*PAIRS[:5], ContrastPair("w3 w3", "w4 w4")]}, "texts or arithmetic"),
    ],
)
def test_another_recording_is_refused(
    backend: TransformersBackend, tmp_path: Path, change: dict[str, Any], named: str
) -> None:
    store_of(backend, tmp_path / "s")
    before = bits(tmp_path / "s")
    with pytest.raises(ArtefactError, match=rf"got one with other {named}; choose another folder$"):
        store_of(backend, tmp_path / "s", **change, resume=True)
    assert bits(tmp_path / "s") == before


def test_another_model_is_refused(backend: TransformersBackend, tmp_path: Path) -> None:
    store_of(backend, tmp_path / "s")
    other = tiny_backend(seed=1)
    with pytest.raises(ArtefactError, match=r"got one with other model; choose another folder$"):
        store_of(other, tmp_path / "s", resume=True)
    with (
        backend.steer(steering(backend, [1])),
        pytest.raises(ArtefactError, match="other texts or arithmetic"),
    ):
        store_of(backend, tmp_path / "s", resume=True)


def test_a_folder_of_other_things_is_left_alone(
    backend: TransformersBackend, tmp_path: Path
) -> None:
    (tmp_path / "notes.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(ArtefactError, match=r"^\[record\] expected an empty folder .* notes\.txt$"):
        store_of(backend, tmp_path, resume=True)
    assert (tmp_path / "notes.txt").read_text(encoding="utf-8") == "mine"


# ---- damaged and hostile stores ----


def test_a_damaged_shard_is_refused_and_recorded_anew(
    backend: TransformersBackend, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = store_of(backend, tmp_path / "s", rows_per_shard=4)
    whole = bits(tmp_path / "s")
    for damage in (
        lambda data: data[:-100],
        lambda data: data[:-3] + bytes([data[-3] ^ 1]) + data[-2:],
        lambda data: b"",
        lambda data: (tmp_path / "s" / "shard-00000.safetensors").read_bytes(),
    ):
        path = store.path(1)
        path.write_bytes(damage(path.read_bytes()))
        with pytest.raises(ArtefactError, match=r"^\[load\] expected [^\n]+$"):
            Activations.load(tmp_path / "s")
        with caplog.at_level(logging.WARNING):
            store_of(backend, tmp_path / "s", rows_per_shard=4, resume=True)
        assert "it is recorded anew" in caplog.text
        caplog.clear()
        assert bits(tmp_path / "s") == whole


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "intervention"},
        {"format_version": 99},
        {"layers": []},
        {"layers": ["a"]},
        {"layers": None},
        {"shards": [[0, 3], [4, 6]]},
        {"shards": [[0, 6, 7]]},
        {"shards": [[0, 0], [0, 6]]},
        {"shards": 3},
        {"pairs": 10**12},
        {"dtype": "f8"},
        {"select": "everything"},
        {"hook_point": "nowhere"},
        {"model": {}},
        {"key": 7},
    ],
)
def test_a_manifest_with_nonsense_is_refused(
    backend: TransformersBackend, tmp_path: Path, change: dict[str, Any]
) -> None:
    store_of(backend, tmp_path / "s")
    path = tmp_path / "s" / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | change), "utf-8")
    with pytest.raises(ArtefactError, match=r"^\[load\] expected the manifest of a store [^\n]+$"):
        Activations.load(tmp_path / "s")


@pytest.mark.parametrize("text", ["", "[]", "[" * 100_000, "{", "\x00"])
def test_a_manifest_that_is_none_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "manifest.json").write_text(text, encoding="utf-8")
    with pytest.raises(ArtefactError, match=r"^\[load\] expected the manifest of a store [^\n]+$"):
        Activations.load(tmp_path)
    (tmp_path / "manifest.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"^\[load\] expected a store with manifest\.json"):
        Activations.load(tmp_path)


def test_a_shard_of_other_shape_is_refused(backend: TransformersBackend, tmp_path: Path) -> None:
    """Digest and key in order, tensors not."""
    store = store_of(backend, tmp_path / "s")
    tensors, data = artefact.read(store.path(0), "activations shard")
    facts = {name: value for name, value in data.items() if name != "content_hash"}
    for change in (
        {"positive": tensors["positive"][0]},
        {"positive": tensors["positive"][:, :-1]},
        {"negative_pair": tensors["negative_pair"][:-1]},
        {"positive_pair": tensors["positive_pair"][::-1].copy()},
    ):
        made = tensors | change
        metadata = {**facts, "content_hash": artefact.content_hash(made, facts)}
        artefact.write(store.path(0), "activations shard", made, metadata)
        with pytest.raises(ArtefactError, match=r"^\[load\] expected [^\n]+$"):
            Activations.load(tmp_path / "s")
