"""The page and the Markdown: every number from the JSON, every text as text, the same each time."""

from __future__ import annotations

import itertools
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from _report_example import HOSTILE, example, hostile
from cogit.reporting import check_report, write_comparison, write_report
from cogit.reporting import write as write_module
from cogit.reporting.html import to_html
from cogit.reporting.markdown import to_markdown
from cogit.reporting.markup import Markup, element, visible

FILES = {
    "report.json",
    "report.md",
    "report.html",
    "dose_response.png",
    "effect_versus_kl.png",
}
ALLOWED = {"html", "head", "meta", "title", "style", "body", "script"}


class Page(HTMLParser):
    """Elements with their attributes, texts, and tables by caption."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.tables: dict[str, list[list[str]]] = {}
        self.texts: list[str] = []
        self._rows: list[list[str]] = []
        self._in: str | None = None
        self._caption = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "table":
            self._rows, self._caption = [], ""
        elif tag == "tr":
            self._rows.append([])
        elif tag in ("th", "td"):
            self._rows[-1].append("")
        if tag in ("caption", "th", "td", "style", "script"):
            self._in = tag

    def handle_endtag(self, tag: str) -> None:
        if tag == self._in:
            self._in = None
        if tag == "table":
            self.tables[self._caption] = self._rows

    def handle_data(self, data: str) -> None:
        if self._in == "caption":
            self._caption += data
        elif self._in in ("th", "td"):
            self._rows[-1][-1] += data
        if self._in not in ("style", "script"):
            self.texts.append(data)


@pytest.fixture(scope="module")
def page() -> Page:
    return Page(to_html(check_report(example())))


def by_name(rows: list[list[str]]) -> dict[str, list[str]]:
    return {row[0]: row[1:] for row in rows}


def test_the_table_of_arms_says_what_the_json_says(page: Page) -> None:
    """N1: effect, cost and controls side by side."""
    data = example()
    rows = page.tables["Every arm beside its controls"]
    head, cells = rows[1], by_name(rows)
    learned = data["arms"][1]
    lift, override = learned["lift_pp"], learned["override_pp"]
    found = dict(zip(head[1:], cells["learned"], strict=True))
    assert found["success"] == f"{100 * learned['success']:.1f} %"
    assert found["lift, points"] == f"{lift['mean']:+.1f} [{lift['low']:.1f}, {lift['high']:.1f}]"
    assert found["override, points"].startswith(f"{override['mean']:+.1f} ")
    assert found["perplexity ratio"] == f"{learned['perplexity_ratio']:.3f}"
    assert found["neutral KL"] == f"{learned['neutral_kl']:.3f}"
    assert found["p, Holm"] == "0.001"
    lifts = [arm["lift_pp"]["mean"] for arm in data["arms"] if arm["role"] == "random"]
    assert len(lifts) == 20
    ends = [f"{x:+.1f}".replace("-", "−") for x in (sum(lifts) / 20, min(lifts), max(lifts))]
    pooled = dict(zip(head[1:], cells["random subspace (20 draws)"], strict=True))
    assert pooled["lift, points"] == f"{ends[0]} ({ends[1]} … {ends[2]})"
    still = dict(zip(head[1:], cells["identity"], strict=True))
    assert (still["lift, points"], still["p, Holm"]) == ("0 exactly", "–")
    only = dict(zip(head[1:], cells["prompt only"], strict=True))
    assert (only["override, points"], only["neutral KL"]) == ("–", "–")


def test_every_draw_has_a_row(page: Page) -> None:
    rows = by_name(page.tables["Each random draw by itself"])
    draws = [arm for arm in example()["arms"] if arm["draw"] is not None]
    assert len(rows) == len(draws) + 1 == 33
    third = next(a for a in draws if a["name"] == "random_3")
    assert f"{third['perplexity_ratio']:.3f}" in rows["random subspace, draw 3"]


def test_verdict_criteria_power_and_conditions_are_on_the_page(page: Page) -> None:
    data, text = example(), " ".join(page.texts)
    assert any(value == "effect" for value in page.texts)
    for reason in data["reasons"]:
        assert reason in text
    criteria = by_name(page.tables["What has to hold for the verdict"])
    assert criteria["neutral drift"] == ["✓ holds", "+0.4 points", "≤ 3 points", "decides"]
    assert criteria["relevance"] == ["– not measured", "–", "> 0.7", "for information"]
    power = by_name(page.tables["Power of this evaluation"])
    assert power["power for a lift at the threshold"] == ["93.0 %"]
    conditions = by_name(page.tables["Five conditions in short"])
    assert conditions["random a"][:3] == ["47.0 %", "−0.06", "12.1"]
    settings = by_name(page.tables["What was run, with what"])
    assert settings["settings.sampling.max_tokens"] == ["16"]
    assert settings["facts.transport"] == ["not given"]
    against = by_name(page.tables["Arms against each other, on the same prompts"])
    assert against["learned minus additive"][2] == "0.410"


def test_every_plot_has_a_picture_a_name_and_its_numbers(page: Page) -> None:
    plots = [attributes for tag, attributes in page.tags if tag == "svg" and "role" in attributes]
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert len(plots) == 5
    for attributes in plots:
        assert attributes["role"] == "img"
        assert set((attributes["aria-labelledby"] or "").split()) <= set(ids)
    dose = page.tables["Numbers of “Dose-response”"]
    assert len(dose) == 15
    point = example()["dose"]["learned"]["points"][2]
    low, high = 100 * point["low"], 100 * point["high"]
    wanted = ["learned", "−0.5", f"{100 * point['share_positive']:.4g}", f"[{low:.4g}, {high:.4g}]"]
    assert dose[3] == wanted
    others = [a for tag, a in page.tags if tag == "svg" and "role" not in a]
    assert all(attributes["aria-hidden"] == "true" for attributes in others)


def test_the_page_has_headings_captions_and_heads(page: Page) -> None:
    tags = [tag for tag, _ in page.tags]
    assert tags.count("h1") == tags.count("main") == tags.count("nav") == 1
    assert tags.count("caption") == tags.count("table")
    assert all("scope" in attributes for tag, attributes in page.tags if tag == "th")
    targets = {attributes.get("id") for _, attributes in page.tags}
    links = [attributes["href"] or "" for tag, attributes in page.tags if tag == "a"]
    assert len(links) > 6
    assert all(link[0] == "#" and link[1:] in targets for link in links)


def test_tokens_carry_their_numbers(page: Page) -> None:
    shown = [attributes for tag, attributes in page.tags if tag == "span" and "title" in attributes]
    data = example()["tokens"]
    assert len(shown) == sum(len(view["tokens"]) for view in data)
    first, second = (token["change"] for token in data[0]["tokens"][:2])
    assert first == 0
    assert shown[0]["title"] == "token 0, prompt, change 0.0 %"
    assert shown[0]["class"] == "t c0"
    assert shown[1]["title"] == f"token 1, prompt, change {100 * second:.1f} %"
    assert {attributes["class"] for attributes in shown if "c10" in (attributes["class"] or "")}
    assert f"{100 * second:.0f}" in page.texts


def test_a_report_of_nothing_measured_has_a_page() -> None:
    arm = {"name": "learned", "role": "learned", "n_prompts": 0, "n_samples": 0}
    lists = ("comparisons", "criteria", "records", "neutral_records", "tokens")
    empty: dict[str, Any] = {key: [] for key in lists}
    data = example(arms=[arm], dose={}, summary={}, power=None, layers=None, **empty)
    text = to_html(check_report(data))
    assert "<svg" not in text
    assert "no random draws" in text
    assert "## Dose" not in to_markdown(check_report(data))


def test_one_number_changes_one_report() -> None:
    """A number on the page is the file's, not one kept from elsewhere."""
    before = example()
    after = example()
    after["arms"][1]["perplexity_ratio"] = 1.4321
    assert "1.432" not in to_html(check_report(before)) + to_markdown(check_report(before))
    for draw in (to_html, to_markdown):
        assert "1.432" in draw(check_report(after))


def test_markdown_holds_every_part() -> None:
    data = example()
    text = to_markdown(check_report(data), pictures=["dose_response.png"])
    lines = text.splitlines()
    assert lines[2] == "Verdict: **effect**"
    for title in ("Effect, cost and controls", "Criteria", "Power", "Every draw", "Settings"):
        assert f"## {title}" in lines
    learned = next(line for line in lines if line.startswith("| learned | 9"))
    assert "| +45.8 [41.2, 50.4] |" in learned
    assert "- [x] neutral drift: +0.4 points (expected ≤ 3 points)" in lines
    assert any(line.startswith("| random subspace | 19 |") for line in lines)
    assert "![dose\\_response.png](dose_response.png)" in lines
    widths = {line.count(" | ") for line in lines if line.startswith("| random subspace | ")}
    assert len(widths) == 1


def test_hostile_texts_stay_texts() -> None:
    """No element, attribute or request comes from a text, in either form."""
    found = Page(to_html(check_report(hostile())))
    clean = Page(to_html(check_report(example())))
    names = {tag for tag, _ in found.tags}
    assert names == {tag for tag, _ in clean.tags}
    assert "img" not in names
    for tag in ("script", "style", "title"):
        wanted = [t for t, _ in clean.tags if t == tag and t in ALLOWED]
        assert [t for t, _ in found.tags if t == tag].count(tag) >= len(wanted)
    assert [t for t, _ in found.tags].count("script") == 1
    for tag, attributes in found.tags:
        assert not [name for name in attributes if name.startswith("on") or name == "src"], tag
    whole = "".join(found.texts)
    assert visible(HOSTILE)[:60] in whole
    assert not re.search(
        "[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b\u202a-\u202e\u2066-\u2069\ufeff]", whole
    )
    assert "⟨U+202E⟩" in whole
    assert "␀" in whole
    assert "שלום مرحبا 漢字 😀" in whole


def test_hostile_texts_stay_texts_in_markdown() -> None:
    text = to_markdown(check_report(hostile()))
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u200b\u202a-\u202e\u2066-\u2069]", text)
    assert not re.search(r"(?<!\\)<(script|img)", text)
    assert not re.search(r"(?<!\\)\]\(http", text)
    assert not re.search(r"(?<!\\)://", text)
    bars = [len(re.findall(r"(?<!\\)\|", line)) for line in text.splitlines()]
    # A cell that broke out would make its row wider than the one above it.
    assert all(above in (0, n) for above, n in itertools.pairwise(bars) if n)
    assert sum(n > 0 for n in bars) > 80


def test_what_is_hidden_is_spelt_out() -> None:
    assert visible("a\x00\x1b\x7f\x85\u202e\u200d") == "a␀␛␡⟨U+0085⟩⟨U+202E⟩\u200d"
    assert element("p", "<b>", Markup("<i>x</i>"), title='"') == (
        '<p title="&quot;">&lt;b&gt;<i>x</i></p>'
    )


def test_the_policy_allows_one_style_and_one_script_by_hash() -> None:
    import base64
    import hashlib

    text = to_html(check_report(hostile()))
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', text)
    assert policy is not None
    assert "default-src 'none'" in policy[1]
    assert "unsafe" not in policy[1]
    for tag in ("style", "script"):
        found = re.findall(rf"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
        assert len(found) == 1
        digest = base64.b64encode(hashlib.sha256(found[0].encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy[1]
    assert "url(" not in text
    assert "@import" not in text


def test_a_page_is_bounded() -> None:
    """A file near the limit does not give a page of its size."""
    data = hostile()
    text = "<&\x00" * 20_000
    data["records"] = [
        {"arm": f"a{i % 50}", "sign": 1, "prompt": f"{i // 40} {text[:1200]}", "text": text[:1200]}
        for i in range(4000)
    ]
    data["tokens"] = [{**data["tokens"][0], "tokens": 100 * data["tokens"][0]["tokens"]}] * 50
    data["arms"] += [{**arm, "draw": i} for i in range(30) for arm in data["arms"][6:40]]
    data["settings"] = {str(i): text[:1000] for i in range(600)}
    report = check_report(data)
    page = to_html(report)
    assert len(page.encode()) < 24 * 2**20
    assert "80 of 100 prompts" in page
    assert "24 of 50 texts" in page
    assert "lines, in report.json" in page


def test_all_files_are_written_and_the_same_each_time(tmp_path: Path) -> None:
    data = example()
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        written = write_report(tmp_path / name, data)
        assert {path.name for path in (tmp_path / name).iterdir()} == FILES == set(written)
    for name in FILES:
        one, two = ((tmp_path / run / name).read_bytes() for run in ("one", "two"))
        assert one == two, name
    for name in ("dose_response.png", "effect_versus_kl.png"):
        assert (tmp_path / "one" / name).read_bytes()[:4] == b"\x89PNG"


def test_texts_do_not_hang_on_the_hash_seed() -> None:
    code = (
        "import hashlib; from _report_example import example\n"
        "from cogit.reporting import check_report; from cogit.reporting.html import to_html\n"
        "from cogit.reporting.markdown import to_markdown; r = check_report(example())\n"
        "print(hashlib.sha256((to_html(r) + to_markdown(r)).encode()).hexdigest())"
    )
    found = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONPATH": ":".join(sys.path), "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(found) == 1


def test_hostile_texts_are_drawn_too(tmp_path: Path) -> None:
    """Dollar signs, letters that no font has: the pictures take them without a warning."""
    data = hostile()
    data["title"] = "$\\frac{1}{$"
    data["dose"] = {"$x_1 漢": data["dose"]["learned"], "_hidden": data["dose"]["additive"]}
    assert set(write_report(tmp_path, data)) == FILES


def test_a_failure_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=r"^\[report\] expected values that JSON can hold"):
        write_report(tmp_path, example(facts={"x": float("nan")}))
    with pytest.raises(ValueError, match="extra"):
        write_report(tmp_path, example(extra=1))

    def fail(*plots: Any) -> bytes:
        message = "no room"
        raise OSError(message)

    monkeypatch.setattr(write_module, "png", fail)
    with pytest.raises(OSError, match="no room"):
        write_report(tmp_path, example())
    assert not list(tmp_path.iterdir())


def test_reports_side_by_side(tmp_path: Path) -> None:
    reports = {
        "one": check_report(example()),
        "two": check_report(example(1, lift=6.3, dose={}, layers=None)),
    }
    files = write_comparison(tmp_path, reports)
    page = Page(files["comparison.html"].read_text(encoding="utf-8"))
    lifts = next(rows for name, rows in page.tables.items() if name.startswith("Lift, points."))
    assert lifts[0] == ["arm", "one", "two"]
    assert by_name(lifts)["learned"] == ["+45.8 [41.2, 50.4]", "+6.3 [1.7, 10.9]"]
    holds = by_name(page.tables["What holds where"])
    assert holds["lift"] == ["✓ holds", "✗ fails"]
    names = [a["id"] for tag, a in page.tags if tag == "figure"]
    assert names[:3] == ["effect_versus_kl-0", "effect_versus_kl-1", "dose_response-0"]
    text = files["comparison.md"].read_text(encoding="utf-8")
    assert "| learned | +45.8 [41.2, 50.4] | +6.3 [1.7, 10.9] |" in text
    assert "| lift | holds: +45.8 [41.2, 50.4] | FAILS: +6.3 [1.7, 10.9] |" in text
    with pytest.raises(ValueError, match="expected 2 to 8 reports"):
        write_comparison(tmp_path, {"one": reports["one"]})
