"""Rows of data sets: configurations, slices, streams, and what is refused."""

from __future__ import annotations

import importlib.util
import json
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cogit import data_rows, dataset_rows, dataset_spec, disk
from cogit.pairs import load_pairs
from cogit.prompt_sources import PromptSpec
from cogit.prompts import load_prompts

needs_datasets = pytest.mark.skipif(
    importlib.util.find_spec("datasets") is None,
    reason="the optional package datasets is not installed",
)
N_ROWS = 700
CARD = """---
configs:
- config_name: plain
  data_files:
  - split: train
    path: plain/train.jsonl
  - split: test
    path: plain/test.jsonl
- config_name: upper
  data_files:
  - split: train
    path: upper/train.jsonl
---
"""


def fails(source: Any, match: str, load: Any = load_prompts) -> None:
    with pytest.raises(ValueError, match=match) as caught:
        load(source)
    assert "\n" not in str(caught.value)


# ---- the real package, local folders ----


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A data set with two configurations."""
    import datasets

    datasets.disable_progress_bars()
    base = tmp_path_factory.mktemp("sets")
    place = base / "two"
    for config, split, n in (
        ("plain", "train", N_ROWS),
        ("plain", "test", 9),
        ("upper", "train", 5),
    ):
        (place / config).mkdir(parents=True, exist_ok=True)
        letter = "T" if config == "upper" else "t"
        rows = [{"text": f"{letter}{i}", "other": f"o{i}", "empty": ""} for i in range(n)]
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (place / config / f"{split}.jsonl").write_text(lines, encoding="utf-8")
    (place / "README.md").write_text(CARD, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", base / "cache")
        yield place


@needs_datasets
# What the package and those beneath it warn about is theirs.
@pytest.mark.filterwarnings("ignore")
class TestLocalFolder:
    @pytest.mark.parametrize("streaming", [False, True])
    def test_a_slice_with_an_offset(self, folder: Path, streaming: bool) -> None:
        """P13: train[400:600] is rows 400 to 599, streamed or not."""
        spec = {"dataset": str(folder), "config": "plain", "split": "train[400:600]"}
        found = load_prompts({**spec, "column": "text", "streaming": streaming})
        assert found == [f"t{i}" for i in range(400, 600)]
        flag = str(streaming).lower()
        text = f"dataset:{folder}?config=plain&split=train[400:600]&column=text&streaming={flag}"
        assert load_prompts(text) == found
        pairs = load_pairs(
            {**spec, "positive": "text", "negative": "other", "streaming": streaming}
        )
        assert [pair.texts for pair in pairs] == [(f"t{i}", f"o{i}") for i in range(400, 600)]

    @pytest.mark.parametrize("streaming", [False, True])
    def test_open_ends(self, folder: Path, streaming: bool) -> None:
        spec = {"dataset": str(folder), "config": "plain", "column": "text", "streaming": streaming}
        assert load_prompts({**spec, "split": "train[698:]"}) == ["t698", "t699"]
        assert load_prompts({**spec, "split": "test[:3]"}) == ["t0", "t1", "t2"]
        assert len(load_prompts(spec)) == N_ROWS

    @pytest.mark.parametrize("streaming", [False, True])
    def test_ends_beyond_the_split(
        self, folder: Path, streaming: bool, caplog: pytest.LogCaptureFixture
    ) -> None:
        spec = {"dataset": str(folder), "config": "upper", "column": "text", "streaming": streaming}
        assert load_prompts({**spec, "split": "train[3:9]"}) == ["T3", "T4"]
        assert "train[3:9]" in caplog.text
        assert "2 rows instead of 6" in caplog.text
        fails({**spec, "split": "train[5:9]"}, r"^\[prompts\] expected rows in train\[5:9\] of ")

    @pytest.mark.parametrize("streaming", [False, True])
    def test_a_config_that_must_be_named(self, folder: Path, streaming: bool) -> None:
        """P12: a missing or unknown configuration gives an error with the choices."""
        spec = {"dataset": str(folder), "column": "text", "streaming": streaming}
        choices = "choose one of plain, upper$"
        fails(spec, rf"^\[prompts\] expected a config of {folder}, got none; {choices}")
        fails({**spec, "config": "lower"}, rf"a config of {folder}, got lower; {choices}")
        fails(f"dataset:{folder}", rf"^\[pairs\] expected a config of .*; {choices}", load_pairs)
        assert load_prompts({**spec, "config": "upper"}) == [f"T{i}" for i in range(5)]

    def test_other_splits_and_columns(self, folder: Path) -> None:
        spec = {"dataset": str(folder), "config": "upper", "column": "text"}
        fails({**spec, "split": "test"}, r"^\[prompts\] expected .* with a split test, got: ")
        fails({**spec, "column": "words"}, r"expected the columns words in .* train\[0\], got text")
        fails({**spec, "column": "empty"}, r"^\[prompts\] expected a text or .* in .* train\[0\]")

    def test_local_folders_need_no_room(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(disk.shutil, "disk_usage", None)
        assert load_prompts({"dataset": str(folder), "config": "upper", "column": "text"})


# ---- specs ----


@pytest.mark.parametrize(
    ("split", "match"),
    [
        ("train[-100:]", "negative row numbers are not taken"),
        ("train[:-1]", "negative row numbers are not taken"),
        ("train[:10%]", "shares in percent are not taken"),
        ("train[10%:20%]", "shares in percent"),
        ("train+test", "one split at a time"),
        ("train[1:2:3]", "expected a data set and a split"),
        ("train[7]", "expected a data set and a split"),
        ("train[600:400]", "a slice of 1 to 1000000 rows, got train"),
        ("train[5:5]", "a slice of 1 to 1000000 rows"),
        ("train[:1000001]", "a slice of 1 to 1000000 rows"),
        ("train[:" + "9" * 400 + "]", "expected a data set and a split"),
    ],
)
def test_slices_are_refused_by_name(split: str, match: str) -> None:
    fails({"dataset": "x", "split": split}, rf"^\[prompts\] .*{match}")


def test_specs() -> None:
    spec = PromptSpec.parse("a/b?config=en&split=train[400:600]&column=text&streaming=true")
    assert spec == PromptSpec("a/b", "en", "train[400:600]", column="text", streaming=True)
    assert spec.rows == ("train", 400, 600)
    assert PromptSpec.of(spec.to_mapping()) == spec
    assert PromptSpec("x").columns == {"prompt": "prompt"}


# ---- any package of that interface ----


class Stream:
    """An endless split, as ``datasets`` streams one; counts what was read."""

    def __init__(self, declared: int | None) -> None:
        splits = {} if declared is None else {"train": types.SimpleNamespace(num_examples=declared)}
        self.info = types.SimpleNamespace(splits=splits or None)
        self.read = 0

    def __iter__(self) -> Iterator[dict[str, str]]:
        while True:
            self.read += 1
            yield {"prompt": f"p{self.read - 1}"}


def pretend(monkeypatch: pytest.MonkeyPatch, table: Any) -> None:
    fake: Any = types.ModuleType("datasets")
    fake.load_dataset = lambda *_, **__: table
    fake.exceptions = types.SimpleNamespace(DatasetsError=KeyError)
    monkeypatch.setitem(sys.modules, "datasets", fake)
    monkeypatch.setattr(disk, "require_disk_for_dataset", lambda *_: None)


def limit(monkeypatch: pytest.MonkeyPatch, rows: int) -> None:
    for module in (data_rows, dataset_rows, dataset_spec):
        monkeypatch.setattr(module, "MAX_ROWS", rows)


def test_a_stream_reads_no_further_than_its_slice(monkeypatch: pytest.MonkeyPatch) -> None:
    """P13: as many rows as asked for, after as many as the offset."""
    stream = Stream(None)
    pretend(monkeypatch, stream)
    found = load_prompts("dataset:a/b?split=train[400:600]&streaming=true")
    assert found == [f"p{i}" for i in range(400, 600)]
    assert stream.read == 600


def test_a_stream_without_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Refused at once where it is known to be too long, at the limit where its length is not."""
    limit(monkeypatch, 50)
    declared, unknown = Stream(1000), Stream(None)
    pretend(monkeypatch, declared)
    fails(
        "dataset:a/b?split=train[400:]&streaming=true",
        r"at most 50 rows of a/b, got 600; name an end, such as split=train\[400:1400\]$",
    )
    assert declared.read == 0
    pretend(monkeypatch, unknown)
    fails("dataset:a/b?streaming=true", r"^\[prompts\] expected at most 50 prompts in ")
    assert unknown.read == 51


def test_a_table_that_is_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    limit(monkeypatch, 50)
    pretend(monkeypatch, [{"prompt": "p"}] * 51)
    fails("dataset:a/b", r"^\[prompts\] expected at most 50 rows of a/b, got 51; name an end")
    assert len(load_prompts("dataset:a/b?split=train[:50]")) == 50
