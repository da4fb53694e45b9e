"""The report: a JSON that others can rely on, a table with every arm, plots, all or nothing."""

from __future__ import annotations

import json
import math
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from _planted import run
from _results import PLAIN, ZERO, arms, backend_report, report, result
from cogit import report as report_module
from cogit.evaluation.evaluate import paired_difference
from cogit.evaluation.statistics import Interval
from cogit.evaluation.verdict import judge
from cogit.report import BackendReport, format_interval, markdown_table

FILES = {"report.json", "report.md", "dose_response.png", "effect_versus_kl.png"}
NUMBERS = ("success", "lift_pp", "override_pp", "perplexity_ratio", "neutral_kl")
INTERVALS = {"ci": "lift_pp", "override_ci": "override_pp"}
RANDOM = {"random_same_subspace", "random_subspace"}


def check_arm(arm: dict[str, Any]) -> None:
    for name in NUMBERS:
        assert isinstance(arm[name], int | float), name
        assert math.isfinite(arm[name]), name
    assert 0 <= arm["success"] <= 1
    for name, mean in INTERVALS.items():
        low, high = arm[name]
        assert low <= arm[mean] <= high, name
    assert arm["perplexity_ratio"] > 0
    assert arm["neutral_kl"] >= 0


def check_schema(data: dict[str, Any], names: set[str]) -> None:
    """What a reader of ``cogit demo --json`` may rely on."""
    assert data["verdict"] in {"effect", "no effect"}
    assert data["backends"]
    for backend in data["backends"].values():
        assert set(backend["arms"]) == names
        for name, arm in backend["arms"].items():
            assert isinstance(arm, list) == (name in RANDOM)
            if name in RANDOM:
                assert len(arm) >= 8
            for one in arm if name in RANDOM else [arm]:
                check_arm(one)
        assert backend["verdict"]["overall"] in {"effect", "no effect"}
        for criterion in backend["verdict"]["criteria"]:
            assert isinstance(criterion["holds"], bool)
            assert criterion["name"]
            assert criterion["found"]
        for gap in backend["unitary_minus_additive"].values():
            assert gap["ci"][0] <= gap["pp"] <= gap["ci"][1]
        for points in backend["dose_response"].values():
            assert all(0 <= point["share_positive"] <= 1 for point in points)


def png_size(path: Path) -> tuple[int, int]:
    data = path.read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    width, height = struct.unpack(">II", data[16:24])
    return width, height


def test_the_json_of_made_up_results(tmp_path: Path) -> None:
    made = report()
    made.write(tmp_path)
    data = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    check_schema(data, set(arms()))
    assert data == json.loads(json.dumps(made.to_json()))
    unitary = data["backends"]["llamacpp"]["arms"]["unitary"]
    assert unitary["lift_pp"] == 38.25
    assert unitary["ci"] == [35.25, 41.25]
    assert "seconds" not in data, "a time is in the manifest: a report is the same each time"
    assert data["chosen"]["source"] == {"blend": 0.5}


def test_the_json_of_measured_results(tmp_path: Path) -> None:
    """From evaluator to file, with the demo's arms on the planted model."""
    found = run(connected=True)
    measured = {name: found.results(name) for name in found.arms}
    verdict = judge(
        measured["unitary"][0],
        same_subspace=measured["random_same_subspace"],
        random_subspace=measured["random_subspace"],
        unchanged={name: measured[name][0] for name in ("identity", "strength_zero")},
    )
    dose = [(s, found.evaluator.share_positive(found.unitary.at_strength(s))) for s in (-1.0, 1.0)]
    part = BackendReport(
        arms={name: draws if name in RANDOM else draws[0] for name, draws in measured.items()},
        paired=paired_difference(measured["unitary"][0], measured["additive"][0]),
        verdict=verdict,
        dose={"unitary": dose},
    )
    made = replace(report({"transformers": part}), samples=[{"prompt": p} for p in ("a", "b")])
    made.write(tmp_path)
    data = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    check_schema(data, set(arms()))
    shown = data["backends"]["transformers"]
    assert data["verdict"] == shown["verdict"]["overall"] == "effect"
    assert shown["arms"]["unitary"]["ci"][0] > 0
    assert shown["arms"]["strength_zero"]["ci"] == [0.0, 0.0]


def test_the_markdown_holds_every_arm_and_criterion(tmp_path: Path) -> None:
    made = report()
    made.write(tmp_path)
    text = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert text == made.to_markdown()
    assert "Verdict: **effect**" in text
    for name, part in made.backends.items():
        section = text.split(f"## {name}\n")[1].split("\n## ")[0]
        for arm in arms():
            assert sum(line.startswith(f"| {arm} ") for line in section.splitlines()) == 1, arm
        for criterion in part.verdict.criteria:
            assert f"- [x] {criterion.name}: {criterion.found}" in section
        assert "unitary minus additive, override: +13.5 [7.0, 20.0] points" in section
    for name in ("dose_response.png", "effect_versus_kl.png"):
        assert f"({name})" in text
    assert "**the soup was**" in text
    assert "- positive: lovely" in text


def test_the_table_shows_intervals_and_ranges() -> None:
    header, rule, *rows = markdown_table(backend_report())
    cells = {row.split("|")[1].strip(): [c.strip() for c in row.split("|")[2:-1]] for row in rows}
    assert header.count("|") == rule.count("|") == rows[0].count("|")
    expected = ["88.2 %", "+38.2 [35.2, 41.2]", "+76.5 [68.5, 84.5]", "1.050", "0.010"]
    assert cells["unitary"] == expected
    assert cells["strength_zero"][1:3] == ["0 exactly", "0 exactly"]
    assert cells["random_same_subspace (8 draws)"][1] == "-2.0 (-9.0 … +5.0)"


def test_a_failed_criterion_is_shown_unticked() -> None:
    part = backend_report(identity=replace(PLAIN, lift=Interval(1.0, 0.0, 2.0)))
    text = report({"transformers": part}).to_markdown()
    assert "Verdict: **no effect**" in text
    assert "- [ ] identity and strength 0 change nothing at all: identity CHANGED" in text


def test_every_backend_has_to_agree() -> None:
    good, bad = backend_report(), backend_report(unitary=result("unitary", 1.0))
    assert report({"a": good, "b": good}).verdict == "effect"
    assert report({"a": good, "b": bad}).verdict == "no effect"
    assert replace(report(), backends={}).verdict == "no effect"


@pytest.mark.parametrize("n", [1, 2])
def test_plots_are_pictures(tmp_path: Path, n: int) -> None:
    from matplotlib.image import imread

    report({f"backend {i}": backend_report() for i in range(n)}).write(tmp_path)
    for name in ("dose_response.png", "effect_versus_kl.png"):
        path = tmp_path / name
        # 5.2 by 4 inches a panel at 120 dots an inch.
        assert png_size(path) == (624 * n, 480)
        pixels = imread(path)[..., :3]
        # Lines and labels on white: some ink, and colours among it.
        assert 0.005 < (pixels.min(axis=-1) < 0.5).mean() < 0.5
        assert (pixels.max(axis=-1) - pixels.min(axis=-1)).max() > 0.3


def test_plots_show_the_data(tmp_path: Path) -> None:
    pictures = []
    for folder, part in (
        ("one", backend_report()),
        ("same", backend_report()),
        ("other", replace(backend_report(), dose={"unitary": [(-1.0, 0.9), (1.0, 0.1)]})),
    ):
        (tmp_path / folder).mkdir()
        report({"backend": part}).write(tmp_path / folder)
        pictures.append((tmp_path / folder / "dose_response.png").read_bytes())
    assert pictures[0] == pictures[1]
    assert pictures[0] != pictures[2]


def test_all_files_are_written(tmp_path: Path) -> None:
    report().write(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == FILES


@pytest.mark.parametrize(
    "changes",
    [{"neutral_kl": float("nan")}, {"perplexity_ratio": float("inf")}],
)
def test_numbers_that_json_cannot_hold_leave_nothing(
    tmp_path: Path, changes: dict[str, float]
) -> None:
    broken = report({"a": backend_report(source=result("source", **changes))})
    with pytest.raises(ValueError, match="JSON compliant"):
        broken.write(tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_plot_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(figure: Any) -> bytes:
        message = "no room"
        raise OSError(message)

    monkeypatch.setattr(report_module, "_png", fail)
    with pytest.raises(OSError, match="no room"):
        report().write(tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"^\[save\] expected an existing folder"):
        report().write(tmp_path / "absent")


def test_intervals_as_people_read_them() -> None:
    assert format_interval(Interval(39.54, 36.5, 42.21)) == "+39.5 [36.5, 42.2]"
    assert format_interval(Interval(-3.0, -5.0, 1.0)) == "-3.0 [-5.0, 1.0]"
    assert format_interval(ZERO) == "0 exactly"
    # An average of nothing that was something is not exact.
    assert format_interval(Interval(0.0, -1.0, 1.0)) == "+0.0 [-1.0, 1.0]"
