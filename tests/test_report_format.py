"""The format of an evaluation report: what is read, what is refused, and what documents it."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from _report_example import example, hostile
from cogit.errors import ArtefactError
from cogit.reporting import check_report, documents, load, load_report

DOCS = Path(__file__).parent.parent / "docs" / "report.md"
Change = Callable[[dict[str, Any]], Any]


def changed(change: Change) -> bytes:
    data = copy.deepcopy(example())
    change(data)
    return json.dumps(data).encode()


def test_a_report_comes_back_as_it_was(tmp_path: Path) -> None:
    data = example()
    path = tmp_path / "report.json"
    path.write_bytes(load.encode(data))
    found = load_report(path)
    assert found == check_report(data)
    again = found.model_dump(mode="json", by_alias=True)
    for key, value in data.items():
        assert json.loads(path.read_text(encoding="utf-8"))[key] == value, key
    # What was given is there, and what was not is null or empty.
    assert again["arms"][1]["lift_pp"] == data["arms"][1]["lift_pp"]
    assert again["arms"][0]["p"] is None
    assert again["neutral_summary"] is None
    assert check_report(again) == found


def test_the_smallest_report_is_one(tmp_path: Path) -> None:
    arm = {"name": "baseline", "role": "baseline", "n_prompts": 1, "n_samples": 1}
    head = {"format": "cogit evaluation", "format_version": 1, "title": "", "backend": "x"}
    rest = {"model": {}, "intervention": {"description": ""}, "settings": {}, "arms": [arm]}
    assert check_report({**head, **rest, "verdict": "no effect"}).arms[0].lift_pp is None


def test_the_fields_of_row_q56() -> None:
    """Q56: configuration with strengths and decoding, five conditions, records, neutral ones."""
    summary = example()["summary"]
    assert set(summary) == {
        "baseline",
        "learned_to_positive",
        "learned_to_negative",
        "random_a",
        "random_b",
    }
    for condition in summary.values():
        assert {"positive_rate", "avg_sentiment_score", "avg_perplexity"} <= set(condition)
    for name in ("learned_to_positive", "learned_to_negative"):
        for other in ("baseline", "random"):
            assert {f"lift_vs_{other}", f"lift_ci_vs_{other}"} <= set(summary[name])
    neutral = {"baseline": {"positive_rate": 0.5, "avg_sentiment_score": 0.0}}
    found = check_report(example(neutral_summary=neutral))
    assert found.settings["sampling"]
    assert found.intervention.strength == 1.0
    assert found.records
    assert found.neutral_records
    assert found.neutral_summary is not None
    required = documents.schema()["required"]
    assert {"settings", "intervention", "model"} <= set(required)
    with pytest.raises(ValueError, match=r"summary.random_c"):
        check_report(example(summary={"random_c": {}}))


@pytest.mark.parametrize(
    ("change", "part"),
    [
        (lambda d: d.pop("arms"), "arms: Field required"),
        (lambda d: d.update(arms=[]), "arms: List should have at least 1 item"),
        (lambda d: d.update(extra=1), "extra: Extra inputs are not permitted"),
        (lambda d: d["arms"][1].update(lift=1), r"arms.1.lift: Extra inputs"),
        (lambda d: d["arms"][1].update(success="0.9"), r"arms.1.success: Input should be a valid"),
        (lambda d: d["arms"][1].update(success=1.2), r"arms.1.success: .* less than or equal to 1"),
        (lambda d: d["arms"][1].update(success=True), r"arms.1.success"),
        (lambda d: d["arms"][1].update(role="hero"), r"arms.1.role"),
        (lambda d: d["arms"][1].update(n_prompts=-1), r"arms.1.n_prompts"),
        (lambda d: d["arms"][1].update(p=-0.1), r"arms.1.p"),
        (lambda d: d["arms"][1]["lift_pp"].pop("low"), r"arms.1.lift_pp.low: Field required"),
        (lambda d: d["arms"][1]["lift_pp"].update(mean=1e9), r"arms.1.lift_pp.mean"),
        (lambda d: d["records"][0].update(sign=True), r"records.0.sign"),
        (lambda d: d["records"][0].update(sign=2), r"records.0.sign"),
        (lambda d: d["tokens"][0]["tokens"][0].update(change=-1), r"tokens.0.tokens.0.change"),
        (lambda d: d.update(verdict="huge effect"), "verdict"),
        (lambda d: d.update(title="x" * 6000), "title"),
        (lambda d: d.update(format="other"), "expected the format 'cogit evaluation', got 'other'"),
        (lambda d: d.update(format_version=2), "expected format version 1, got 2"),
        (lambda d: d.update(format_version=True), "expected format version 1, got True"),
        (lambda d: d.update(format_version="1"), "expected format version 1, got 1"),
    ],
)
def test_what_is_no_report_is_named(tmp_path: Path, change: Change, part: str) -> None:
    path = tmp_path / "report.json"
    path.write_bytes(changed(change))
    with pytest.raises(ArtefactError, match=part) as caught:
        load_report(path)
    assert str(caught.value).startswith("[report] ")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 700


GOOD = load.encode(example()).decode()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "null",
        "{",
        "\x00",
        GOOD[: len(GOOD) // 2],
        GOOD.replace('"score": 0.', '"score": NaN, "x": 0.', 1),
        GOOD.replace('"strength": 1.0', '"strength": Infinity', 1),
        GOOD.replace('"strength": 1.0', '"strength": 1e999', 1),
        GOOD.replace('"max_tokens": 16', '"max_tokens": 1e999', 1),
        GOOD.replace('"max_tokens": 16', '"max_tokens": ' + "9" * 5000, 1),
        GOOD.replace('"title":', '"title": "one", "title":', 1),
        GOOD.replace('"title": "', '"title": "\\ud800', 1),
        GOOD.replace('"max_tokens": 16', '"max_tokens": ' + "[" * 100_000, 1),
        GOOD.replace('"max_tokens": 16', '"max_tokens": ' + "[" * 900 + "]" * 900, 1),
    ],
)
def test_hostile_files_are_refused_in_one_line(tmp_path: Path, text: str) -> None:
    path = tmp_path / "report.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ArtefactError, match=r"^\[report\] ") as caught:
        load_report(path)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 700


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    path.write_bytes(b"\xff\xfe\x00{")
    with pytest.raises(ArtefactError, match=r"^\[report\] "):
        load_report(path)


def test_a_file_beyond_the_limit_is_not_parsed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "report.json"
    path.write_bytes(load.encode(example()))
    monkeypatch.setattr(load, "MAX_FILE", 1000)
    with pytest.raises(ArtefactError, match="larger than"):
        load_report(path)


def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="which does not exist"):
        load_report(tmp_path / "absent.json")
    with pytest.raises(FileNotFoundError, match="a folder"):
        load_report(tmp_path)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), object(), {1, 2}])
def test_values_that_json_cannot_hold_are_refused(value: Any) -> None:
    with pytest.raises(ValueError, match=r"^\[report\] "):
        check_report(example(facts={"x": value}))


def test_hostile_texts_are_texts() -> None:
    assert check_report(hostile()).records[0].text == "w" * 5000


def test_the_documents_are_those_of_the_classes() -> None:
    hint = "run `python -m cogit.reporting.documents` at the root of the repository"
    assert documents.SCHEMA_FILE.read_bytes() == documents.schema_bytes(), hint
    text = DOCS.read_text(encoding="utf-8")
    assert text.partition(documents.START)[2].strip() == documents.fields_markdown().strip(), hint


def test_every_field_is_described() -> None:
    whole = documents.schema()
    assert whole["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    parts = [whole, *(part for part in whole["$defs"].values() if "properties" in part)]
    assert len(parts) > 12
    for part in parts:
        assert part["additionalProperties"] is False
        for name, facts in part["properties"].items():
            assert facts.get("description"), f"{part['title']}.{name}"
