"""Contrast pairs from a user's own files: JSONL, CSV, two texts, data sets."""

from __future__ import annotations

import csv
import importlib
import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from cogit import data_rows, disk
from cogit.errors import BackendMissingError
from cogit.pair_datasets import DatasetSpec
from cogit.pairs import ContrastPair, load_pairs

PAIRS = [
    ContrastPair("yes, sir", "no", "Well?\n"),
    ContrastPair('ja "é"', "нет", ""),
    ContrastPair(" a", " b", "c"),
]


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def fails(source: Any, match: str) -> None:
    with pytest.raises(ValueError, match=match) as caught:
        load_pairs(source)
    assert "\n" not in str(caught.value)


# ---- pairs ----


def test_a_pair_continues_its_prompt() -> None:
    assert PAIRS[2].texts == ("c a", "c b")
    assert ContrastPair("a", "b").prompt == ""
    with pytest.raises(TypeError, match=r"^\[pairs\] expected a text as prompt, got None$"):
        ContrastPair("a", "b", None)  # type: ignore[arg-type]


# ---- JSONL ----


@pytest.mark.parametrize("names", [("positive", "negative"), ("chosen", "rejected")])
def test_json_lines(tmp_path: Path, names: tuple[str, str]) -> None:
    rows = [{names[0]: p.positive, names[1]: p.negative, "prompt": p.prompt} for p in PAIRS]
    del rows[1]["prompt"]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    assert load_pairs(write(tmp_path / "p.jsonl", text)) == PAIRS
    assert load_pairs(str(write(tmp_path / "bom.jsonl", "\ufeff" + text))) == PAIRS


@pytest.mark.parametrize(
    "line",
    [
        '{"chosen": "a", "negative": "b"}',
        '{"positive": "a", "negative": "b", "prompt": 3}',
        '{"positive": "a", "negative": "b", "prompt": ["x"]}',
        '{"chosen": [{"role": "user", "content": "a"}], "rejected": "b"}',
        "[" * 100_000,
        '{"positive": "a", "negative": "b"',
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, line: str) -> None:
    good = '{"positive": "a", "negative": "b"}\n'
    path = write(tmp_path / "p.jsonl", good * 2 + "\n" + line + "\n")
    fails(path, r"^\[pairs\] expected .*p\.jsonl:4, got ")


def test_limits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good = '{"positive": "a", "negative": "b"}\n'
    monkeypatch.setattr(data_rows, "MAX_LINE", 100)
    path = write(tmp_path / "p.jsonl", good + " " * 101 + "\n")
    fails(path, r"^\[pairs\] expected at most 100 characters in .*p\.jsonl:2, got more$")
    monkeypatch.setattr(data_rows, "MAX_ROWS", 3)
    fails(write(tmp_path / "q.jsonl", good * 4), r"^\[pairs\] expected at most 3 pairs in .*q\.js")
    assert len(load_pairs(write(tmp_path / "r.jsonl", good * 3))) == 3


# ---- CSV ----


def test_csv(tmp_path: Path) -> None:
    """Quotes, commas, line breaks within a field, columns in any order, others beside them."""
    path = tmp_path / "p.csv"
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["id", "negative", "positive", "prompt"])
        writer.writerows([i, p.negative, p.positive, p.prompt] for i, p in enumerate(PAIRS))
    assert load_pairs(path) == PAIRS
    two = write(tmp_path / "q.csv", "positive,negative\na,b\n\nc,d\n")
    assert load_pairs(two) == [ContrastPair("a", "b"), ContrastPair("c", "d")]


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("", r"at least 2 contrast pairs in .*p\.csv, got 0"),
        ("a,b\nc,d\n", r"a header with the columns positive, negative .*p\.csv:1, got 'a,b'"),
        ("positive,negative,positive\n", r"a header .*p\.csv:1, got"),
        ("positive,negative\na,b\nc\n", r"2 fields \(positive, negative\) in .*p\.csv:3, got 1"),
        ("positive,negative\na,b\nc,d,e\n", r"2 fields .*p\.csv:3, got 3"),
        ("positive,negative\na,b\nc,\n", r".*p\.csv:3, got .*an empty one"),
        ('positive,negative\na,b\n"c,d\n', r"CSV in .*p\.csv:\d, got unexpected end of data"),
        ('positive,negative\na,b\n"c"x,d\n', r"CSV in .*p\.csv:3, got "),
        ("positive,negative\na," + "b" * 200_000 + "\n", r"CSV in .*p\.csv:2, got field larger"),
    ],
)
def test_bad_csv_is_named(tmp_path: Path, text: str, match: str) -> None:
    fails(write(tmp_path / "p.csv", text), rf"^\[pairs\] expected {match}")


# ---- two texts ----


def test_two_text_files(tmp_path: Path) -> None:
    first = write(tmp_path / "pos.txt", "yes\r\n\n ja, é\nlast")
    second = write(tmp_path / "neg.txt", "no\n  \n nein\nend\n")
    assert load_pairs(f"{first},{second}") == [
        ContrastPair("yes", "no"),
        ContrastPair(" ja, é", " nein"),
        ContrastPair("last", "end"),
    ]
    assert len(load_pairs(f"{first}, {second}")) == 3


def test_two_text_files_that_do_not_match(tmp_path: Path) -> None:
    first = write(tmp_path / "pos.txt", "yes\nja\noui\n")
    second = write(tmp_path / "neg.txt", "no\nnein\n")
    fails(
        f"{first},{second}",
        r"^\[pairs\] expected as many lines in \S+neg\.txt as in \S+pos\.txt, .*pos\.txt:3$",
    )
    write(second, "no\n\nnon\n")
    fails(f"{first},{second}", r"^\[pairs\] expected .*pos\.txt:2 and .*neg\.txt:2, got 'ja \| '")
    with pytest.raises(FileNotFoundError, match=r"other\.txt"):
        load_pairs(f"{first},{tmp_path / 'other.txt'}")


def test_other_sources_are_refused(tmp_path: Path) -> None:
    fails(tmp_path, r"^\[pairs\] expected a file, got the folder \S+; write dataset:")
    path = tmp_path / "p.csv"
    path.write_bytes(b"positive,negative\n\xff\xfe,b\n")
    fails(path, r"^\[pairs\] expected UTF-8 text in ")
    with pytest.raises(FileNotFoundError):
        load_pairs(tmp_path / "none.csv")


# ---- data sets ----


def test_specs_as_text_and_as_mapping() -> None:
    spec = DatasetSpec.parse(
        "some/name?config=en&split=train[10:100]&positive=chosen&negative=rejected&streaming=true"
    )
    assert spec == DatasetSpec(
        "some/name", "en", "train[10:100]", "chosen", "rejected", streaming=True
    )
    assert spec.rows == ("train", 10, 100)
    assert DatasetSpec.of(spec.to_mapping()) == spec
    assert DatasetSpec.parse("./folder").rows == ("train", 0, None)
    assert DatasetSpec("x", split="test[:7]").rows == ("test", 0, 7)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a?split",
        "a?splits=train",
        "a?split=train&split=test",
        "a?split=train[:10%]",
        "a?=b",
        "a?streaming=maybe",
        "a?split=train[1]",
        "a?split=",
    ],
)
def test_other_specs_are_refused(text: str) -> None:
    fails(f"dataset:{text}", r"^\[pairs\] expected ")


@pytest.mark.parametrize("data", [{}, {"dataset": 3}, {"dataset": "x", "rows": 4}, {"split": "a"}])
def test_other_mappings_are_refused(data: dict[str, object]) -> None:
    fails(data, r"^\[pairs\] expected dataset and perhaps config, split")


def test_without_the_package_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(BackendMissingError, match=r"pip install 'cogit\[datasets\]'$"):
        load_pairs("dataset:some/name")


@pytest.mark.skipif(
    importlib.util.find_spec("datasets") is None,
    reason="the optional package datasets is not installed",
)
# What the package and those beneath it warn about is theirs.
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("kind", ["json", "csv", "parquet"])
def test_a_local_data_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, streaming: bool
) -> None:
    import datasets

    datasets.disable_progress_bars()
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    folder = tmp_path / "data"
    folder.mkdir()
    rows = [{"good": f"g{i}", "bad": f"b{i}", "ask": f"q{i}"} for i in range(9)]
    if kind == "json":
        write(folder / "train.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    elif kind == "csv":
        lines = [",".join(row) for row in (rows[0], *(row.values() for row in rows))]
        write(folder / "train.csv", "\n".join(lines) + "\n")
    else:
        pyarrow = importlib.import_module("pyarrow")
        table = pyarrow.Table.from_pylist(rows)
        importlib.import_module("pyarrow.parquet").write_table(table, folder / "train.parquet")
    spec = {"dataset": str(folder), "split": "train[2:5]", "positive": "good", "negative": "bad"}
    found = load_pairs({**spec, "prompt": "ask", "streaming": streaming})
    assert found == [ContrastPair(f"g{i}", f"b{i}", f"q{i}") for i in (2, 3, 4)]
    fails({**spec, "positive": "best"}, r"^\[pairs\] expected the columns best, bad in .*\[2\]")
    fails({**spec, "split": "other"}, r"^\[pairs\] expected .* with a split other, got: ")


def test_a_data_set_is_read_through_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is asked of the package, and what becomes of its rows and errors."""
    import types

    asked: list[Any] = []

    class DatasetsError(Exception):
        pass

    def load_dataset(name: str, config: str | None, **options: Any) -> list[dict[str, Any]]:
        asked.append((name, config, options))
        if config == "none":
            message = "no such\nconfig"
            raise DatasetsError(message)
        return [{"chosen": f"g{i}", "rejected": f"b{i}" if i < 8 else None} for i in range(9)]

    fake = types.ModuleType("datasets")
    fake.load_dataset = load_dataset  # type: ignore[attr-defined]
    fake.get_dataset_config_names = lambda _: ["none"]  # type: ignore[attr-defined]
    fake.exceptions = types.SimpleNamespace(DatasetsError=DatasetsError)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "datasets", fake)
    monkeypatch.setattr(disk, "require_disk_for_dataset", lambda *_: None)
    columns = "positive=chosen&negative=rejected"
    found = load_pairs(f"dataset:some/name?config=en&split=test[3:5]&{columns}")
    assert found == [ContrastPair("g3", "b3"), ContrastPair("g4", "b4")]
    assert asked == [("some/name", "en", {"split": "test", "streaming": False})]
    fails(f"dataset:some/name?{columns}", r"^\[pairs\] expected .* in some/name train\[8\], got ")
    fails("dataset:some/name?config=none", r"^\[pairs\] expected some/name with .*: no such config")
    with pytest.raises(FileNotFoundError, match=r"^\[pairs\] expected a folder with a data set"):
        load_pairs("dataset:./nowhere")
