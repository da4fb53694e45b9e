"""Checks of two classes of texts (Q54), by cases whose numbers are known."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from cogit.cli.main import main
from cogit.stimuli import FAIL, PASS, WARN, Check, ExplicitWords, check_stimuli
from cogit.stimulus_structure import structural_accuracy

NONE = ExplicitWords(frozenset(), "none")
_VERBS = [f"verb{number}" for number in range(50)]


def texts(n: int, mark: str, seed: int = 0, extra: int = 0, end: str = ".") -> list[str]:
    """Texts of one form with words of their own."""
    rng = random.Random(seed)
    return [
        f"w{i % 10} {mark}{i} " + " ".join(rng.choices(_VERBS, k=6 + extra)) + end for i in range(n)
    ]


def checks(
    positive: list[str],
    negative: list[str],
    explicit: ExplicitWords = NONE,
    *,
    matched: bool = False,
) -> dict[str, Check]:
    report = check_stimuli(positive, negative, explicit=explicit, matched=matched)
    found = {check.name: check for check in report.checks}
    assert report.holds == all(check.status != FAIL for check in found.values())
    return found


def failed(found: dict[str, Check]) -> set[str]:
    return {name for name, check in found.items() if check.status == FAIL}


def test_equal_classes_pass() -> None:
    found = checks(texts(50, "a"), texts(50, "b"), matched=True)
    assert {check.status for check in found.values()} == {PASS}
    assert found["structure"].found == 0  # the same form, text by text: a tie everywhere


def test_counts() -> None:
    """Q54: within 5."""
    assert checks(texts(50, "a"), texts(45, "b"))["counts"] == Check(
        "counts", PASS, 5, 5, "50 and 45 texts"
    )
    assert failed(checks(texts(50, "a"), texts(44, "b"))) == {"counts"}


def test_lengths() -> None:
    """Q54: below one word; eight words against nine is one word."""
    found = checks(texts(40, "a"), texts(40, "b", extra=1))
    assert found["length"].found == 1.0
    assert found["length"].status == FAIL
    half = checks(texts(40, "a"), texts(20, "b", extra=1) + texts(20, "c"))
    assert half["length"].found == 0.5
    assert half["length"].status == PASS


def test_first_words() -> None:
    """Q54: the largest difference in the share of one first word, below 15 %."""
    base = texts(40, "b")
    for n, status in ((5, PASS), (6, FAIL)):
        other = [text.replace(text[:2], "the", 1) for text in texts(40, "a")[:n]]
        found = checks(other + texts(40, "a")[n:], base)["first words"]
        assert found.found == pytest.approx(n / 40)
        assert found.status == status
        assert "'the' begins" in found.note


def test_explicit_words() -> None:
    """Q54: share of texts with such a word in the worse class, below 30 %."""
    explicit = ExplicitWords(frozenset({"lovely"}), "a list")
    for n, status in ((11, PASS), (12, FAIL)):
        other = [text.replace("verb", "Lovely verb", 1) for text in texts(40, "a")[:n]]
        found = checks(other + texts(40, "a")[n:], texts(40, "b"), explicit)["explicit words"]
        assert found.found == pytest.approx(n / 40)
        assert found.status == status


def test_structure() -> None:
    """Q54: question marks in one class give it away; in a sixth of one they are a warning."""
    asked, plain = texts(50, "a", end="?"), texts(50, "b", 1)
    assert structural_accuracy(asked, plain, matched=False) == 1.0
    found = checks(asked, plain)["structure"]
    assert (found.status, found.found) == (FAIL, 0.5)
    few = checks(asked[:9] + texts(50, "a")[9:], texts(50, "b"), matched=True)["structure"]
    assert few.status == WARN
    # All nine told and the rest at chance would be .09; the discriminant misses a few.
    assert 0.05 < (few.found or 0) <= 0.09


def test_structure_of_chance_is_chance() -> None:
    """Forms drawn alike for both classes: the mean over 20 draws is 0.5 within 3 standard errors.

    One draw of 60 + 60 texts has a standard error of 0.046, twenty of 0.010.
    """
    accuracies = []
    for seed in range(20):
        rng = random.Random(seed)
        drawn = [
            [
                " ".join(rng.choices(_VERBS, k=rng.randint(4, 12))) + rng.choice(".!?")
                for _ in "x" * 60
            ]
            for _ in range(2)
        ]
        accuracies.append(structural_accuracy(*drawn, matched=False, seed=seed))
    assert sum(accuracies) / 20 == pytest.approx(0.5, abs=0.03)
    assert structural_accuracy(*drawn, matched=False, seed=3) == structural_accuracy(
        *drawn, matched=False, seed=3
    )


def test_few_texts_are_not_judged() -> None:
    found = checks(texts(9, "a"), texts(9, "b"))["structure"]
    assert (found.status, found.found) == (WARN, None)
    assert "not judged" in found.note
    with pytest.raises(ValueError, match=r"^\[stimuli\] expected at least 5 texts a class"):
        structural_accuracy(texts(4, "a"), texts(9, "b"), matched=False)


def test_duplicates_and_overlap() -> None:
    once = texts(40, "a")
    for n, status in ((1, WARN), (2, FAIL)):
        found = checks([*once[: 40 - n], *(text.upper() for text in once[:n])], texts(40, "b"))
        assert found["duplicates"].status == status
        assert found["duplicates"].found == n / 40
    shared = checks(once, [once[3].title(), *texts(39, "b")])["overlap"]
    assert (shared.status, shared.found) == (FAIL, 1)


def test_refused() -> None:
    for positive, negative, matched in (([], ["a"], False), (["a"], ["b", "c"], True)):
        with pytest.raises(ValueError, match=r"^\[stimuli\] expected texts in both classes"):
            check_stimuli(positive, negative, matched=matched, explicit=NONE)


def test_lists_of_explicit_words(tmp_path: Path) -> None:
    vader = ExplicitWords.vader()
    assert {"lovely", "terrible"} <= vader.words
    assert "warm" not in vader.words  # valence 0.9
    path = tmp_path / "words.txt"
    path.write_text("Lovely\n\ndon't\n", encoding="utf-8")
    assert ExplicitWords.read(path).words == {"lovely", "don't"}
    path.write_text("lovely\ntwo words\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"one word a line in \S+words\.txt, got 'two words'"):
        ExplicitWords.read(path)
    path.write_text("\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"^\[explicit\] expected a word a line, got none"):
        ExplicitWords.read(path)


# ---- commands ----


def write(path: Path, lines: list[str]) -> str:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return str(path)


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Q54: exit code 0 for fair classes, 1 where a check fails, 2 for what cannot be read."""
    fair = [write(tmp_path / "a.txt", texts(40, "a")), write(tmp_path / "b.txt", texts(40, "b"))]
    assert main(["prompts", "check", *fair, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["holds"] is True
    assert "VADER" in found["explicit_words"]
    longer = write(tmp_path / "c.txt", texts(50, "c", extra=2))
    assert main(["prompts", "check", fair[0], longer]) == 1
    out, err = capsys.readouterr()
    assert "the two classes are not fair" in out
    assert "VADER" in err
    assert main(["prompts", "check", fair[0], str(tmp_path / "none.txt")]) == 2
    assert capsys.readouterr().err.startswith("error: [prompts] expected a file")
    assert main(["prompts", "check", "--pairs", ",".join(fair), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["n_negative"] == 40


@pytest.mark.parametrize(
    "arguments",
    [
        ["check"],
        ["check", "a.txt"],
        ["check", "a.txt", "b.txt", "--pairs", "c.jsonl"],
        ["show"],
        ["show", "a.txt", "--pairs", "b"],
        ["show", "a.txt", "--n", "0"],
        [],
    ],
)
def test_wrong_flags(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["prompts", *arguments]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_show(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write(tmp_path / "a.txt", ["one ", "two", "three"])
    assert main(["prompts", "show", source, "--n", "2"]) == 0
    out, err = capsys.readouterr()
    assert out == "'one '\n'two'\n"
    assert "3 prompts" in err
    assert main(["prompts", "show", "--pairs", "packaged:pairs_sentiment", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["n"], len(found["pairs"])) == (100, 5)
    assert main(["prompts", "show", "--pairs", f"{source},{source}"]) == 2


def test_flags_are_frozen() -> None:
    from typing import Any

    from typer.main import get_command

    from cogit.cli import prompts

    group: Any = get_command(prompts.app)
    flags = {
        name: {one for p in command.params for one in p.opts if one.startswith("-")}
        for name, command in group.commands.items()
    }
    assert flags == {
        "check": {"--pairs", "--explicit", "--seed", "--json"},
        "show": {"--pairs", "--n", "--json"},
    }
