"""The page in a real browser: it draws, it asks for nothing, and it fits a narrow screen."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from _chromium import Visit, visit
from _report_example import example, hostile
from cogit.reporting import check_report
from cogit.reporting.compare import compare_html
from cogit.reporting.html import to_html

POLICY = re.compile(r'<meta http-equiv="Content-Security-Policy"[^>]*>')
NARROW = 400
TELL = (
    "<script>addEventListener('load', () => parent.postMessage("
    "document.title.slice(0, 5) + ' ' + innerWidth + ' ' + document.documentElement.scrollWidth,"
    " '*'))</script></body>"
)
CONTROL = (
    "<!DOCTYPE html><title>wide</title><body><img src='http://example.invalid/picture.png'>"
    "<script>console.error('told')</script><div style='width: 900px'>x</div></body>"
)


def pixels(picture: Path) -> np.ndarray:
    from matplotlib.image import imread

    return np.asarray(imread(picture))[..., :3]


def narrow_widths(folder: Path, pages: Mapping[str, str]) -> dict[str, tuple[int, int]]:
    """Width of the window and of the content of each page, in frames of 400 px."""
    for name, text in pages.items():
        titled = re.sub("<title>.*?</title>", f"<title>{name}</title>", text, count=1)
        told = POLICY.sub("", titled).replace("</body>", TELL)
        (folder / f"{name}.html").write_text(told, encoding="utf-8")
    frames = "".join(
        f'<iframe src="{n}.html" width="{NARROW}" height="900"></iframe>' for n in pages
    )
    note = "addEventListener('message', (e) => { document.body.append('[' + e.data + ']'); })"
    whole = f"<!DOCTYPE html><title>frames</title><body><script>{note}</script>{frames}</body>"
    (folder / "frames.html").write_text(whole, encoding="utf-8")
    dom = visit(folder / "frames.html", folder / "visit").dom
    found = re.findall(r"\[(\w+) +(\d+) (\d+)\]", dom)
    return {name: (int(inner), int(content)) for name, inner, content in found}


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Visit:
    folder = tmp_path_factory.mktemp("page")
    path = folder / "report.html"
    path.write_text(to_html(check_report(example())), encoding="utf-8")
    return visit(path, folder / "visit")


def test_the_page_draws(shown: Visit) -> None:
    """A picture of the asked size with text, colours of the arms and the green of the verdict."""
    found = pixels(shown.picture)
    assert found.shape == (2000, 1280, 3)
    codes = (255 * found).round().astype(int) @ [1 << 16, 1 << 8, 1]
    colours = set(np.unique(codes).tolist())
    assert len(colours) > 100
    dark = (found.max(axis=-1) < 0.4).mean()
    assert 0.005 < dark < 0.3
    assert {0x0B62A8, 0xC2500A, 0xE8F5ED} <= colours


def test_the_page_holds_verdict_and_plots_after_its_script(shown: Visit) -> None:
    assert re.search(r'class="verdict good".*?</span>effect</h2>', shown.dom)
    for name in ("effect_versus_kl", "random_lifts", "dose_response", "dose_cost", "layers"):
        assert f'<figure id="{name}"' in shown.dom
    assert shown.dom.count('class="plot"') == 5
    # The script ran: headings sort, samples are filtered.
    assert '<button type="button">lift, points</button>' in shown.dom
    assert '<input type="search">' in shown.dom


def test_the_page_asks_for_nothing_and_complains_of_nothing(shown: Visit, tmp_path: Path) -> None:
    assert shown.requests == ()
    assert shown.console == ()
    # The same look at a page that does both.
    control = tmp_path / "control.html"
    control.write_text(CONTROL, encoding="utf-8")
    seen = visit(control, tmp_path / "visit")
    assert seen.requests == ("http://example.invalid/picture.png",)
    assert len(seen.console) == 1


def test_no_page_is_wider_than_a_narrow_screen(tmp_path: Path) -> None:
    one, other = check_report(example()), check_report(hostile())
    pages = {
        "plain": to_html(one),
        "rough": to_html(other),
        "pairs": compare_html({"one": one, other.backend: other}),
        "wide0": CONTROL,
    }
    found = narrow_widths(tmp_path, {name: pages[name] for name in pages})
    assert set(found) == set(pages)
    assert {inner for inner, _ in found.values()} == {NARROW}
    assert found.pop("wide0")[1] > 900
    assert all(content <= NARROW for _, content in found.values()), found


@pytest.mark.slow
def test_hostile_texts_run_nothing(tmp_path: Path) -> None:
    """Neither the texts nor a script put beside ours: the policy stands behind the escaping."""
    text = to_html(check_report(hostile()))
    planted = (
        "<img src='http://example.invalid/z.png'><script>document.title='owned'</script></body>"
    )
    for name, page, complaints in (
        ("clean", text, 0),
        ("planted", text.replace("</body>", planted), 2),
    ):
        path = tmp_path / f"{name}.html"
        path.write_text(page, encoding="utf-8")
        seen = visit(path, tmp_path / name)
        assert seen.requests == ()
        assert "<title>owned" not in seen.dom
        assert len(seen.console) == complaints
        assert all("Content Security Policy" in line for line in seen.console)


@pytest.mark.slow
def test_a_dark_scheme_is_dark_and_keeps_its_contrast(tmp_path: Path) -> None:
    text = to_html(check_report(example()))
    dark = POLICY.sub("", text).replace("@media (prefers-color-scheme: dark)", "@media all")
    (tmp_path / "dark.html").write_text(dark, encoding="utf-8")
    found = pixels(visit(tmp_path / "dark.html", tmp_path / "visit").picture)
    assert np.median(found) < 0.15
    assert (found.min(axis=-1) > 0.8).mean() > 0.003


def test_colours_of_texts_have_contrast() -> None:
    """WCAG 2.1: at least 4.5 to 1 for texts on each paper, 3 to 1 for marks of the plots."""
    css = re.search(r"<style>(.*?)</style>", to_html(check_report(example())), re.DOTALL)
    assert css is not None
    light, dark = re.findall(r":root \{(.*?)\}", css[1], re.DOTALL)[:2]
    for scheme in (light, dark):
        colour = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", scheme))
        for text in ("ink", "soft", "link", "good", "warn", "bad", "none"):
            assert contrast(colour[text], colour["paper"]) >= 4.5, text
        for text in ("ink", "soft"):
            assert contrast(colour[text], colour["card"]) >= 4.5, text
        for text in ("good", "warn", "none"):
            assert contrast(colour[text], colour[f"{text}-paper"]) >= 4.5, text
            assert contrast(colour["soft"], colour[f"{text}-paper"]) >= 4.5, text
        for mark in ("learned", "additive", "prompt", "shuffled", "same", "flipped", "other"):
            assert contrast(colour[mark], colour["paper"]) >= 3, mark


def contrast(one: str, other: str) -> float:
    """Ratio of relative luminances, WCAG 2.1."""

    def luminance(colour: str) -> float:
        parts = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
        linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
        return float(linear @ [0.2126, 0.7152, 0.0722])

    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)
