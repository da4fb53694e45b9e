"""What every judge keeps to, VADER, the demo's words, functions, and specs as text."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from _judges import samples
from cogit.demo.grammar import contrast_pairs, facts, sentiment
from cogit.errors import BackendMissingError
from cogit.evaluation.judges import (
    FunctionJudge,
    Judge,
    JudgeSpec,
    labels,
    make_judge,
    register_judge,
    registry,
)
from cogit.evaluation.judges.vader import VaderJudge

Make = Callable[[Path], Judge]
PAIRS = contrast_pairs(24, 5)


def lexicon(folder: Path) -> Judge:
    file = folder / "words.csv"
    file.write_text("lovely,1\ngood,2\nterrible,-3\nbad,-1\n")
    return make_judge(f"lexicon:{file}")


OFFLINE: dict[str, Make] = {
    "vader": lambda _: make_judge("vader"),
    "demo": lambda _: make_judge("demo"),
    "lexicon": lexicon,
    "function": lambda _: FunctionJudge("sign", lambda text: 0.5 if "good" in text else -0.5),
}
CLEAR = ("the soup was good", "a lovely and good room", "the soup was bad", "a terrible , bad room")


@pytest.mark.parametrize("name", OFFLINE)
def test_sign_and_label_agree(name: str, tmp_path: Path) -> None:
    """Q49: the source's mean score ignored the label; here the label is the sign of the score."""
    judge = OFFLINE[name](tmp_path)
    scores = judge.scores(samples(*CLEAR))
    assert scores.dtype == np.float64
    assert labels(scores).tolist() == [1, 1, -1, -1]
    assert scores[:2].mean() > 0 > scores[2:].mean()
    # The mean of a class is on its side, and a mixture lies between.
    assert scores[2:].mean() < scores.mean() < scores[:2].mean()


@pytest.mark.parametrize("name", OFFLINE)
def test_empty_texts_score_nothing(name: str, tmp_path: Path) -> None:
    judge = OFFLINE[name](tmp_path)
    assert judge.scores(samples("", " \n\t", "\u3000")).tolist() == [0.0, 0.0, 0.0]
    assert judge.scores([]).shape == (0,)
    mixed = judge.scores(samples("", CLEAR[0], " ", CLEAR[2]))
    assert labels(mixed).tolist() == [0, 1, 0, -1]


@pytest.mark.parametrize("name", OFFLINE)
def test_a_text_is_judged_alike_in_any_company(name: str, tmp_path: Path) -> None:
    judge = OFFLINE[name](tmp_path)
    together = judge.scores(samples(*CLEAR))
    assert [judge.scores(samples(text))[0] for text in CLEAR] == together.tolist()


@pytest.mark.parametrize("name", OFFLINE)
def test_a_description_is_json_and_names_the_judge(name: str, tmp_path: Path) -> None:
    judge = OFFLINE[name](tmp_path)
    found = json.loads(json.dumps(judge.describe()))
    assert found["name"] == judge.name
    assert found["decides"]


@pytest.mark.parametrize("name", OFFLINE)
def test_odd_texts_are_judged(name: str, tmp_path: Path) -> None:
    texts = ("\x00\x01", "\ud800 broken", "🙂" * 50, "word " * 5000, "!!!", "1" * 10_000)
    found = OFFLINE[name](tmp_path).scores(samples(*texts))
    assert (np.abs(found) <= 1).all()


def test_the_demo_judge_is_the_grammars_sentiment() -> None:
    """Q49: an exact offline judge."""
    judge = make_judge("demo")
    texts = [text for pair in PAIRS for text in pair.texts] + facts(8, 1)
    scores = judge.scores(samples(*texts))
    assert labels(scores).tolist() == [sentiment(text) for text in texts]
    assert judge.scores(samples("good good bad", "not good"))[0] == pytest.approx(1 / 3)
    assert judge.scores(samples("not good"))[0] == -1.0


def test_vaders_own_examples() -> None:
    """Scores that Hutto & Gilbert print beside their code for these sentences."""
    printed = {
        "VADER is smart, handsome, and funny.": 0.8316,
        "VADER is VERY SMART, handsome, and FUNNY!!!": 0.9342,
        "VADER is not smart, handsome, nor funny.": -0.7424,
        "The book was good.": 0.4404,
        "Today SUX!": -0.5461,
        "Not bad at all": 0.431,
    }
    scores = make_judge("vader").scores(samples(*printed))
    assert scores.tolist() == pytest.approx(list(printed.values()), abs=5e-4)


def test_vader_is_undecided_within_its_threshold() -> None:
    weak = samples("The book was good.")
    assert make_judge("vader?threshold=0.45").scores(weak)[0] == 0.0
    assert make_judge("vader?threshold=0.44").scores(weak)[0] == 0.4404
    assert make_judge("vader").describe()["threshold"] == 0.05
    for bad in (-0.1, 1.0, float("nan")):
        with pytest.raises(ValueError, match=r"^\[judge vader\] expected a threshold"):
            VaderJudge(bad)


def test_vader_missing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "vaderSentiment", None)
    with pytest.raises(BackendMissingError, match=r"^\[judge vader\] expected the package"):
        make_judge("vader")


@pytest.mark.parametrize(
    "value",
    [1.5, -2, float("nan"), float("inf"), "0.5", None, True, np.bool_(True), [0.5]],
    ids=str,
)
def test_a_function_must_give_a_score(value: Any) -> None:
    judge = FunctionJudge("mine", lambda text: value if text == "b" else 0.5)
    with pytest.raises(ValueError, match=r"^\[judge mine\] expected a finite score .* sample 2"):
        judge.scores(samples("a", "", "b"))


@pytest.mark.parametrize("value", [1, -1, 0, np.float32(0.5), np.int64(1)])
def test_numbers_of_any_kind_are_scores(value: Any) -> None:
    assert FunctionJudge("mine", lambda _: value).scores(samples("a"))[0] == float(value)


def test_a_function_is_not_asked_about_empty_texts() -> None:
    asked: list[str] = []
    FunctionJudge("mine", lambda text: float(bool(asked.append(text)))).scores(samples("a", " "))
    assert asked == ["a"]


def test_other_judges_can_be_registered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Q49: pluggable."""
    monkeypatch.setattr(registry, "_MAKERS", dict(registry._MAKERS))

    def maker(spec: JudgeSpec, backend: object) -> Judge:
        return FunctionJudge(spec.source, lambda _: spec.number("score", 0.0))

    register_judge("constant", maker)
    judge = make_judge("constant:mine?score=0.25")
    assert (judge.name, judge.scores(samples("a"))[0]) == ("mine", 0.25)
    for kind in ("constant", "vader", "two words", ""):
        with pytest.raises(ValueError, match=r"^\[judge\] expected a new kind"):
            register_judge(kind, maker)


def test_light_judges_load_no_framework() -> None:
    code = (
        "import sys\n"
        "from cogit.evaluation.judges import make_judge\n"
        "make_judge('demo'), make_judge('vader')\n"
        "print([m for m in ('torch', 'transformers', 'scipy', 'pydantic') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    )
    assert done.stdout.strip() == "[]"


def test_specs() -> None:
    found = JudgeSpec.parse("api:http://host:80/v1?model=a%26b&instructions=rate+it")
    assert found == JudgeSpec(
        "api", "http://host:80/v1", {"model": "a&b", "instructions": "rate it"}
    )
    assert JudgeSpec.parse("vader") == JudgeSpec("vader")
    assert JudgeSpec.parse("lexicon:a?negation=not, never,").words("negation") == ("not", "never")


BAD_SPECS = {
    "": "expected one of vader",
    "siebert": "expected one of vader",
    "vader:x": "expected nothing after it",
    "vader?threshold": "expected option=value",
    "vader?threshold=0.1&threshold=0.2": "expected each option once",
    "vader?level=1": "expected options among threshold",
    "vader?threshold=much": "expected a number for threshold",
    "vader?threshold=inf": "expected a number for threshold",
    "demo?a=1": "expected options among none",
    "demo:x": "expected nothing after it",
    "lexicon": "expected lexicon:FILE",
    "lexicon:": "expected lexicon:FILE",
    "classifier": "expected classifier:MODEL",
    "classifier:a?batch=1.5": "expected a whole number for batch",
    "logits": "expected a loaded model",
    "logits:x": "expected nothing after it",
    "api": "expected api:URL",
    "api:http://host/v1": "expected .model=NAME",
    "vader?threshold=" + "1" * 20_000: "expected at most",
}


@pytest.mark.parametrize("spec", BAD_SPECS, ids=lambda spec: spec[:30])
def test_bad_specs_are_refused(spec: str) -> None:
    with pytest.raises(ValueError, match=rf"^\[judge[a-z ]*\] {BAD_SPECS[spec]}") as caught:
        make_judge(spec)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300
