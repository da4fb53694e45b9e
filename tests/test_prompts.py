"""Prompts from a user's own files, packaged material, and sets that may share no text."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cogit import data_rows
from cogit.packaged import PROMPTS, packaged_path
from cogit.pairs import load_pairs
from cogit.prompts import load_prompts, packaged, require_disjoint
from cogit.stimuli import PASS, check_stimuli


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def fails(source: Any, match: str) -> None:
    with pytest.raises(ValueError, match=match) as caught:
        load_prompts(source)
    assert "\n" not in str(caught.value)


# ---- files ----


def test_text(tmp_path: Path) -> None:
    """Spaces at either end and repeated lines stay; a line break of any other kind is none."""
    path = write(tmp_path / "p.txt", "\ufeffThe room was\r\n\n  \n the é\u2028x \nThe room was")
    assert load_prompts(path) == ["The room was", " the é\u2028x ", "The room was"]
    assert load_prompts(str(path)) == load_prompts(path)


def test_json_lines(tmp_path: Path) -> None:
    lines = ['"a b"', "", '{"prompt": "c\\nd", "id": 3}']
    assert load_prompts(write(tmp_path / "p.jsonl", "\n".join(lines))) == ["a b", "c\nd"]


def test_csv(tmp_path: Path) -> None:
    path = write(tmp_path / "p.csv", 'id,prompt\n1,"a, b"\n\n2,"c\nd"\n')
    assert load_prompts(path) == ["a, b", "c\nd"]


@pytest.mark.parametrize(
    "line", ["{}", "3", "null", '""', '" "', '["a"]', '{"prompt": 1}', '{"text": "a"}', '{"a', "x"]
)
def test_a_bad_line_is_named(tmp_path: Path, line: str) -> None:
    path = write(tmp_path / "p.jsonl", f'"good"\n\n{line}\n')
    fails(path, r"^\[prompts\] expected .*p\.jsonl:3, got ")


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("text\na\n", r"a header with one column prompt in .*p\.csv:1, got 'text'"),
        ("prompt,prompt\na,b\n", r"a header with one column prompt"),
        ("prompt,id\na,1\nb\n", r"2 fields \(prompt, id\) in .*p\.csv:3, got 1"),
        ("prompt,id\n ,1\n", r"a text .*p\.csv:2, got "),
        ('prompt\n"a', r"CSV in .*p\.csv:2, got "),
        ("", r"at least one prompt in .*p\.csv, got none"),
    ],
)
def test_bad_csv_is_named(tmp_path: Path, text: str, match: str) -> None:
    fails(write(tmp_path / "p.csv", text), rf"^\[prompts\] expected {match}")


def test_other_sources_are_refused(tmp_path: Path) -> None:
    fails(tmp_path, r"^\[prompts\] expected a file, got the folder \S+; write dataset:")
    fails(write(tmp_path / "p.txt", " \n\n"), r"^\[prompts\] expected at least one prompt in .*txt")
    (tmp_path / "q.txt").write_bytes(b"\xff\xfe\x00")
    fails(tmp_path / "q.txt", r"^\[prompts\] expected UTF-8 text in ")
    for none in (tmp_path / "none.txt", tmp_path / "none.csv", "x" * 5000):
        with pytest.raises(OSError, match=r"^\[prompts\] expected a file"):
            load_prompts(none)


def test_limits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data_rows, "MAX_LINE", 20)
    path = write(tmp_path / "p.txt", "good\n" + "x" * 21)
    fails(path, r"^\[prompts\] expected at most 20 characters in .*p\.txt:2, got more$")
    monkeypatch.setattr(data_rows, "MAX_ROWS", 3)
    fails(write(tmp_path / "q.txt", "a\n" * 4), r"^\[prompts\] expected at most 3 prompts in ")
    assert len(load_prompts(write(tmp_path / "r.txt", "a\n" * 3))) == 3


@pytest.mark.parametrize(
    "source",
    [
        {"dataset": "x", "columns": "text"},
        {"dataset": "x", "positive": "text"},
        {"column": "text"},
        "dataset:x?positive=a",
        "dataset:x?split=train[:10%]",
        "dataset:",
    ],
)
def test_other_specs_are_refused(source: Any) -> None:
    fails(source, r"^\[prompts\] expected ")


# ---- sets without common texts ----


def test_shared_texts_are_refused() -> None:
    """Q53: training, calibration, neutral and test texts share none, nor one in other capitals."""
    sets = {"train": ["The room was", "a"], "test": ["The garden was"], "neutral": iter(["b", "b"])}
    require_disjoint(sets)
    require_disjoint({"train": [], "test": []})
    with pytest.raises(ValueError, match=r"^\[overlap\] .*'a' in train and in calibration; take"):
        require_disjoint({**sets, "calibration": ["c", "a"]})
    with pytest.raises(ValueError, match=r"'The room was' in train and in x, which is ' the  ROOM"):
        require_disjoint({"train": ["The room was"], "x": [" the  ROOM\twas\n"]})
    with pytest.raises(ValueError, match=r"in one and in two and 1 more; take them out of one$"):
        require_disjoint({"one": ["a", "b", "c"], "two": ["b", "c", "b"]})
    with pytest.raises(ValueError, match="Straße"):
        require_disjoint({"one": ["Straße"], "two": ["STRASSE"]})


# ---- packaged material ----


def test_packaged_material() -> None:
    """P19, Q53: enough of each, nothing twice, nothing in two files, the starts without tone."""
    from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

    sets = {name: packaged(name) for name in PROMPTS}
    assert len(sets["open_prompts"]) >= 60
    assert len(sets["neutral_prompts"]) == 40
    pairs = load_pairs("packaged:pairs_sentiment")
    assert len(pairs) == 100
    sets |= {"positive": [p.positive for p in pairs], "negative": [p.negative for p in pairs]}
    require_disjoint(sets)
    assert all(len(set(texts)) == len(texts) for texts in sets.values())
    tone = SentimentIntensityAnalyzer()
    for text in (*sets["open_prompts"], *sets["neutral_prompts"]):
        assert tone.polarity_scores(text)["compound"] == 0, text
        assert text == text.strip()


def test_packaged_pairs_pass_every_check() -> None:
    """Q54, on the pairs that the package itself gives."""
    pairs = load_pairs("packaged:pairs_sentiment.jsonl")
    texts = [p.positive for p in pairs], [p.negative for p in pairs]
    report = check_stimuli(*texts, matched=True)
    assert [check.status for check in report.checks] == [PASS] * 7
    # Also as two sets that know nothing of each other.
    assert [check.status for check in check_stimuli(*texts).checks] == [PASS] * 7


@pytest.mark.parametrize("name", ["", "x", "../neutral", "neutral.jsonl", "pairs_sentiment"])
def test_other_packaged_names_are_refused(name: str) -> None:
    fails(f"packaged:{name}", r"^\[prompts\] expected a packaged file among open_prompts")
    with pytest.raises(ValueError, match=r"^\[pairs\] expected a packaged file among pairs_senti"):
        packaged_path("neutral", "pairs")


def test_packaged_pairs_are_plain_json() -> None:
    path = packaged_path("pairs_sentiment", "pairs")
    for line in path.read_text(encoding="utf-8").splitlines():
        assert set(json.loads(line)) == {"positive", "negative"}
