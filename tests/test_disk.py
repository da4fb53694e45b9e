"""Room on the disk is asked for before a download, never after (P14)."""

from __future__ import annotations

import json
import sys
import types
from pathlib import Path
from typing import Any, NamedTuple

import huggingface_hub
import pytest
from huggingface_hub import constants

from cogit import disk
from cogit.cli import infer
from cogit.cli.main import main
from cogit.disk import bytes_text, require_disk, require_disk_for_dataset, require_disk_for_model
from cogit.hub_sizes import Sizes, dataset_sizes, model_sizes, prepared_folder

GB, MB = 10**9, 10**6


class Usage(NamedTuple):
    total: int
    used: int
    free: int


@pytest.fixture(autouse=True)
def _online(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A cache of the test's own; whether a hub is there is decided by each test."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "copies"))


def free(monkeypatch: pytest.MonkeyPatch, size: float) -> None:
    monkeypatch.setattr(disk.shutil, "disk_usage", lambda _: Usage(10**13, 0, int(size)))


def forbidden(*_: Any, **__: Any) -> Any:
    pytest.fail("a download was begun")


# ---- the check ----


def test_numbers_and_remedies(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    free(monkeypatch, 2.8 * MB)
    place = tmp_path / "not" / "there"
    with pytest.raises(
        OSError, match=r"^\[disk\] expected 1\.1 GB free at \S+there for it"
    ) as caught:
        require_disk("it", [(place, GB)], "buy a disk")
    assert "(1.0 GB to download and unpack, 64.0 MB to spare), got 2.8 MB; buy" in str(caught.value)
    free(monkeypatch, GB + disk.SPARE)
    require_disk("it", [(place, GB)], "")
    with pytest.raises(OSError, match=r"expected 2\.1 GB"):
        require_disk("it", [(place, GB), (tmp_path / "other", GB)], "")  # on one disk, so both


def test_an_unknown_size_is_said(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    free(monkeypatch, 5 * GB)
    require_disk("it", [(tmp_path, None)], "", "no answer")
    assert "unknown size of it (no answer); 5.0 GB free at" in caplog.text
    free(monkeypatch, 2.8 * MB)
    with pytest.raises(OSError, match=r"64\.0 MB free .* \(a size unknown, .*got 2\.8 MB"):
        require_disk("it", [(tmp_path, None)], "")


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0.0 kB"), (2_800_000, "2.8 MB"), (15 * GB, "15.0 GB"), (3 * 10**12, "3.0 TB")],
)
def test_sizes_for_people(size: int, text: str) -> None:
    assert bytes_text(size) == text


# ---- nothing is downloaded to a full disk ----


@pytest.mark.parametrize("sizes", [Sizes(GB, GB), Sizes(None, reason="no answer")])
def test_a_data_set_is_refused_before_its_download(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], sizes: Sizes
) -> None:
    """P14: 2.8 MB free; exit code 2 and no call of load_dataset."""
    fake: Any = types.ModuleType("datasets")
    fake.load_dataset = forbidden
    monkeypatch.setitem(sys.modules, "datasets", fake)
    monkeypatch.setattr(disk, "dataset_sizes", lambda *_: sizes)
    free(monkeypatch, 2.8 * MB)
    for arguments in (["show", "dataset:some/name"], ["show", "--pairs", "dataset:some/name"]):
        assert main(["prompts", *arguments]) == 2
        err = capsys.readouterr().err
        assert err.startswith("error: [disk] expected ")
        assert "got 2.8 MB; free space there, read a slice of it with streaming=true" in err


def test_a_stream_needs_no_room(monkeypatch: pytest.MonkeyPatch) -> None:
    from cogit.prompts import load_prompts

    fake: Any = types.ModuleType("datasets")
    fake.load_dataset = lambda *_, **__: iter([{"prompt": "a"}])
    monkeypatch.setitem(sys.modules, "datasets", fake)
    free(monkeypatch, 0)
    assert load_prompts("dataset:some/name?streaming=true") == ["a"]


@pytest.mark.parametrize("sizes", [Sizes(GB), Sizes(None, reason="no answer")])
def test_a_model_is_refused_before_its_download(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], sizes: Sizes
) -> None:
    """P14: 2.8 MB free; exit code 2 and no call of from_pretrained."""
    import transformers

    monkeypatch.setattr(transformers.AutoModelForCausalLM, "from_pretrained", forbidden)
    monkeypatch.setattr(transformers.AutoTokenizer, "from_pretrained", forbidden)
    monkeypatch.setattr(disk, "model_sizes", lambda _: sizes)
    free(monkeypatch, 2.8 * MB)
    arguments = ["--model", "some/name", "--lambda", "0.1", "--layers", "0-1"]
    assert infer.main(arguments) == 2
    err = capsys.readouterr().err
    assert "error: [disk] expected " in err
    assert "got 2.8 MB; free space there, choose a smaller model, or set HF_HOME" in err


def test_local_models_and_work_offline_need_no_room(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(disk, "model_sizes", forbidden)
    monkeypatch.setattr(disk, "dataset_sizes", forbidden)
    free(monkeypatch, 0)
    for model in (str(tmp_path), "./none", "/no/such", "a/b/c", "x.gguf"):
        require_disk_for_model(model)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    require_disk_for_model("some/name")
    require_disk_for_dataset("some/name")


# ---- what is in the cache ----


def cache(tmp_path: Path, repo: str, revision: str, files: dict[str, str]) -> None:
    """Files in the hub's cache, as its client lays them out."""
    base = tmp_path / "hub" / f"models--{repo.replace('/', '--')}"
    for name, text in files.items():
        path = base / "snapshots" / revision / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    (base / "refs").mkdir(exist_ok=True)
    (base / "refs" / "main").write_text(revision, encoding="utf-8")


def test_a_cached_model_needs_no_room(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(disk, "model_sizes", lambda _: Sizes(GB))
    free(monkeypatch, 2.8 * MB)
    cache(tmp_path, "a/whole", "r1", {"config.json": "{}", "model.safetensors": ""})
    index = json.dumps({"weight_map": {"x": "model-1-of-2.safetensors", "y": "m2.safetensors"}})
    shards = {"config.json": "{}", "model.safetensors.index.json": index}
    cache(tmp_path, "a/shards", "r1", {**shards, "model-1-of-2.safetensors": ""})
    cache(tmp_path, "a/broken", "r1", {**shards, "model.safetensors.index.json": "[1"})
    cache(tmp_path, "a/config", "r1", {"config.json": "{}"})
    require_disk_for_model("a/whole")
    for name in ("a/shards", "a/broken", "a/config", "a/none"):
        with pytest.raises(OSError, match=rf"for the model {name} "):
            require_disk_for_model(name)
    cache(tmp_path, "a/shards", "r1", {"m2.safetensors": ""})
    require_disk_for_model("a/shards")


def test_a_prepared_data_set_needs_no_room(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    hub(monkeypatch, {"dataset_info": {"download_size": GB, "dataset_size": GB}}, {})
    free(monkeypatch, 2.8 * MB)
    with pytest.raises(OSError, match=r"expected 2\.1 GB free .* the data set a/b \("):
        require_disk_for_dataset("a/b")
    copy = tmp_path / "copies" / "a___b" / "default" / "0.0.0" / "sha1"
    copy.mkdir(parents=True)
    with pytest.raises(OSError, match=r"expected 2\.1 GB"):
        require_disk_for_dataset("a/b")  # begun, not done
    (copy / "dataset_info.json").write_text("{}", encoding="utf-8")
    require_disk_for_dataset("a/b")
    monkeypatch.setattr(disk, "dataset_sizes", lambda *_: Sizes(None, reason="no answer"))
    require_disk_for_dataset("a/b")  # read from the copy where no hub answers
    with pytest.raises(OSError, match="a size unknown"):
        require_disk_for_dataset("a/c")


def test_names_of_copies() -> None:
    """By the rule of ``datasets``: snake case, the owner as it is."""
    names = {"Own/MyNLPData2Set": "Own___my_nlp_data2_set", "plain": "plain", "a/b-c": "a___b-c"}
    for name, folder in names.items():
        assert prepared_folder(Path("x"), name) == Path("x") / folder


# ---- the hub's metadata ----


def hub(
    monkeypatch: pytest.MonkeyPatch, card: dict[str, Any] | None, files: dict[str, Any]
) -> None:
    """A hub that says this of every repository."""
    siblings = [types.SimpleNamespace(rfilename=name, size=size) for name, size in files.items()]
    answer = types.SimpleNamespace(sha="sha1", card_data=card, siblings=siblings)

    class Api:
        def model_info(self, _: str, *, files_metadata: bool, timeout: float) -> Any:
            assert files_metadata
            assert 0 < timeout <= 30
            return answer

        dataset_info = model_info

    monkeypatch.setattr(huggingface_hub, "HfApi", Api)


SHARD = "model-0000{}-of-00002.safetensors"


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"model.safetensors": 90, "config.json": 5, "README.md": 7, "pytorch_model.bin": 80}, 95),
        ({SHARD.format(1): 50, SHARD.format(2): 40, "consolidated.safetensors": 90}, 90),
        ({"model.safetensors": 90, SHARD.format(1): 50, "onnx/model.safetensors": 4}, 90),
        ({"pytorch_model.bin": 80, "config.json": 5}, None),
        ({"model.safetensors": None}, None),
        ({}, None),
    ],
)
def test_sizes_of_models(
    monkeypatch: pytest.MonkeyPatch, files: dict[str, Any], expected: int | None
) -> None:
    hub(monkeypatch, None, files)
    found = model_sizes("a/b")
    assert found.download == expected
    assert bool(found.reason) == (expected is None)


def test_cached_files_of_a_model_are_not_counted(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    cache(tmp_path, "a/b", "sha1", {SHARD.format(1): ""})
    hub(monkeypatch, None, {SHARD.format(1): 50, SHARD.format(2): 40})
    assert model_sizes("a/b") == Sizes(40)


TWO = [
    {"config_name": "x", "download_size": 10, "dataset_size": 30},
    {"config_name": "default", "download_size": 1, "dataset_size": 3},
]


@pytest.mark.parametrize(
    ("card", "config", "expected"),
    [
        ({"dataset_info": TWO[0]}, "", (10, 30)),
        ({"dataset_info": TWO}, "x", (10, 30)),
        ({"dataset_info": TWO}, "", (1, 3)),
        ({"dataset_info": TWO}, "y", (None, 0)),
        ({"dataset_info": {"download_size": "10", "dataset_size": 30}}, "", (55, 55)),
        ({"dataset_info": "text"}, "", (55, 55)),
        ({"configs": [{}, {}]}, "x", (None, 0)),
        ({}, "", (55, 55)),
        (None, "", (55, 55)),
    ],
)
def test_sizes_of_data_sets(
    monkeypatch: pytest.MonkeyPatch,
    card: dict[str, Any] | None,
    config: str,
    expected: tuple[int | None, int],
) -> None:
    """From the card; else of the data files, and a copy as large, where there is one config."""
    hub(monkeypatch, card, {"data/a.parquet": 50, "b.csv": 5, "README.md": 7})
    found = dataset_sizes("a/b", config)
    assert (found.download, found.prepared) == expected


def test_a_hub_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    class Api:
        def model_info(self, *_: Any, **__: Any) -> Any:
            message = "no\n route"
            raise ConnectionError(message)

        dataset_info = model_info

    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    expected = Sizes(None, reason="ConnectionError: no route")
    assert model_sizes("a/b") == dataset_sizes("a/b") == expected
