"""The lexicon judge: scores by hand, and files that nobody vouches for."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from _judges import samples
from cogit.evaluation.judges import lexicon as module
from cogit.evaluation.judges import make_judge
from cogit.evaluation.judges.lexicon import LexiconJudge

WORDS = {"good": 1.0, "great": 3.0, "bad": -2.0, "don't": -1.0, "top-notch": 2.0, "Été": 1.0}


def score(text: str, **values: float) -> float:
    negation = ("not", "never", "isn't")
    return float(LexiconJudge(values or WORDS, negation=negation).scores(samples(text))[0])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("good", 1.0),
        ("bad", -1.0),
        ("GOOD, Great!", 1.0),
        ("good bad", -1 / 3),  # (1 − 2) / (1 + 2)
        ("great bad", 1 / 5),
        ("goodness and badly", 0.0),  # whole words
        ("nothing listed", 0.0),
        ("don\u2019t", -1.0),
        ("top-notch", 1.0),
        ("ÉTÉ", 1.0),
        ("not good", -1.0),
        ("not very good", -1.0),
        ("not so very good", -1.0),
        ("not so very much good", 1.0),  # beyond three words
        ("not never good", 1.0),
        ("not bad", 1.0),
        ("it isn't good", -1.0),
        ("good not", 1.0),
        ("not good great", -1.0),  # both within reach
        ("good_bad", -1 / 3),
    ],
)
def test_scores_by_hand(text: str, expected: float) -> None:
    assert score(text) == pytest.approx(expected)


def test_negation_is_off_unless_asked_for() -> None:
    assert LexiconJudge(WORDS).scores(samples("not good"))[0] == 1.0


def test_a_word_of_value_0_says_nothing() -> None:
    assert score("fine good", fine=0.0, good=1.0) == 1.0
    assert score("fine", fine=0.0) == 0.0


@pytest.mark.parametrize("value", [0.1, 1e-300, 1e6])
def test_scores_stay_within_bounds(value: float) -> None:
    assert score("w " * 1000, w=value) == 1.0


FORMS = {
    "words.tsv": "# a comment\nword\tvalue\ngood\t1.5\n\nbad\t-2\n",
    "words.csv": "word,value\ngood, 1.5\nbad,-2e0\n",
    "words.txt": "\ufeffGood\t1.5\r\nbad,-2\r\n",
    "words.json": '{"good": 1.5, "bad": -2}',
}


@pytest.mark.parametrize("name", FORMS)
def test_files_of_every_form(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(FORMS[name], newline="")
    judge = make_judge(f"lexicon:{tmp_path / name}?negation=not")
    assert judge.scores(samples("good", "not good", "good bad")).tolist() == [1, -1, -0.5 / 3.5]
    found = judge.describe()
    assert (found["source"], found["words"], found["negation"]) == (name, 2, ["not"])
    # The words count, not how they are written down.
    assert (
        found["words_sha256"] == LexiconJudge({"bad": -2, "good": 1.5}).describe()["words_sha256"]
    )


HOSTILE = {
    "empty.txt": (b"", "expected at least one word"),
    "comments.txt": (b"# nothing\n", "expected at least one word"),
    "one-column.txt": (
        b"good\n",
        "expected a word, .* got 'good' in line 1",
    ),
    "three-columns.txt": (b"good,1,2\n", "expected a word, a tab or comma"),
    "no-number.txt": (b"good,1\nbad,much\n", "expected a number, got 'much' in line 2"),
    "nan.txt": (b"good,nan\n", "expected values within"),
    "inf.txt": (b"good,inf\n", "expected values within"),
    "huge.txt": (b"good,1e9\n", "expected values within"),
    "twice.txt": (b"good,1\ngood,2\n", "expected each word once"),
    "twice-folded.txt": (b"good,1\nGOOD,2\n", "expected each word once"),
    "phrase.txt": (b"very good,1\n", "expected single words"),
    "no-word.txt": (b",1\n", "expected single words"),
    "smile.txt": (b":-),1\n", "expected single words"),
    "latin.txt": (b"\xe9t\xe9,1\n", "expected UTF-8"),
    "binary.txt": (bytes(range(256)), "expected UTF-8"),
    "zeros.txt": (b"\x00" * 100, "expected a word, a tab or comma"),
    "empty.json": (b"", "expected a JSON object"),
    "cut.json": (b'{"good": 1', "expected a JSON object"),
    "list.json": (b'[["good", 1]]', "expected a JSON object of words"),
    "number.json": (b"1", "expected a JSON object of words"),
    "none.json": (b"{}", "expected at least one word"),
    "twice.json": (b'{"good": 1, "good": 2}', "expected each word once"),
    "text.json": (b'{"good": "1"}', "expected a number"),
    "bool.json": (b'{"good": true}', "expected a number"),
    "null.json": (b'{"good": null}', "expected a number"),
    "nested.json": (b'{"good": {"a": 1}}', "expected a number"),
    "nan.json": (b'{"good": NaN}', "expected values within"),
    "deep.json": (b"[" * 100_000, "expected a JSON object"),
    "digits.json": (b'{"good": ' + b"9" * 5000 + b"}", "expected a JSON object"),
    "large.json": (b'{"good": ' + b"9" * 400 + b"}", "expected values within"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_are_refused(name: str, tmp_path: Path) -> None:
    content, message = HOSTILE[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=rf"^\[judge lexicon\] {message}") as caught:
        make_judge(f"lexicon:{tmp_path / name}")
    assert "\n" not in str(caught.value)


def test_files_are_limited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "words.txt"
    file.write_text("a,1\nb,2\nc,3\n")
    monkeypatch.setattr(module, "MAX_WORDS", 2)
    with pytest.raises(ValueError, match="expected at most 2 words"):
        LexiconJudge.load(file)
    monkeypatch.setattr(module, "MAX_FILE", 5)
    with pytest.raises(ValueError, match="expected at most 5 characters"):
        LexiconJudge.load(file)


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="which does not exist"):
        make_judge(f"lexicon:{tmp_path / 'none.txt'}")
    with pytest.raises(ValueError, match="expected a file"):
        make_judge(f"lexicon:{tmp_path}")
    # Nobody writes to it: opening it would wait for good.
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ValueError, match="expected a file"):
        make_judge(f"lexicon:{tmp_path / 'pipe'}")


@pytest.mark.parametrize("negation", ["two words", ""])
def test_negation_is_words(negation: str) -> None:
    with pytest.raises(ValueError, match="expected single words"):
        LexiconJudge(WORDS, negation=[negation])
