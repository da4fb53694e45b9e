"""The model as its own judge: a planted model whose next word is known to follow the text."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.special import log_softmax

from _judges import samples
from _planted import NEGATIVE, PLAIN, POSITIVE, learned, planted_backend, run
from cogit.backends import load_backend
from cogit.evaluation.judges import labels, logits, make_judge
from cogit.evaluation.judges.logits import TEMPLATE, LogitsJudge

# " good0" and " bad0": the words that the planted model continues a text of their class with.
SPEC = f"logits?yes=+{POSITIVE[0]}&no=+{NEGATIVE[0]}"
QUESTION = f"Is the feeling of this {PLAIN[0]} positive?"
TEXTS = (
    " ".join(POSITIVE[:3]),
    f"{PLAIN[0]} {POSITIVE[1]}",
    " ".join(NEGATIVE[:3]),
    f"{PLAIN[4]} {NEGATIVE[1]} {NEGATIVE[2]} {NEGATIVE[3]}",
)


@pytest.fixture(scope="module")
def backend() -> Any:
    return planted_backend()


@pytest.fixture(scope="module")
def tiny(tiny_hf: Path) -> Iterator[Any]:
    with load_backend("transformers", tiny_hf, device="cpu") as loaded:
        yield loaded


def test_sign_and_label_agree(backend: Any) -> None:
    """Q49: an offline logit judge."""
    judge = make_judge(SPEC, backend=backend)
    scores = judge.scores(samples(*TEXTS, "", " "))
    assert labels(scores).tolist() == [1, 1, -1, -1, 0, 0]
    assert scores[:2].mean() > 0 > scores[2:4].mean()


def test_an_unplanted_model_cannot_tell() -> None:
    """Without the plant the words' class does not reach the logits: one lean for all texts."""
    scores = make_judge(SPEC, backend=planted_backend(connected=False)).scores(samples(*TEXTS))
    assert np.ptp(scores) < 0.5
    assert len(set(labels(scores).tolist())) == 1


def expected_score(backend: Any, text: str, yes: str, no: str, question: str) -> float:
    ids = backend.tokenize(TEMPLATE.format(text=text, question=question))
    logp = log_softmax(backend.logits([ids])[0][-1].astype(np.float64))
    return math.tanh((logp[backend.tokenize(yes)[-1]] - logp[backend.tokenize(no)[-1]]) / 2)


def test_scores_by_hand(backend: Any) -> None:
    judge = LogitsJudge(backend, question=QUESTION, yes=" good0", no=" bad0")
    expected = [expected_score(backend, text, "good0", "bad0", QUESTION) for text in TEXTS]
    # Float32 logits of a batch round otherwise than those of a single text.
    assert judge.scores(samples(*TEXTS)).tolist() == pytest.approx(expected, abs=1e-5)


def test_the_score_is_the_difference_of_two_probabilities() -> None:
    odds = 1.7
    p = 1 / (1 + math.exp(-odds))
    assert math.tanh(odds / 2) == pytest.approx(p - (1 - p))


def test_yes_and_no_swapped_turn_the_score_round(backend: Any) -> None:
    one = LogitsJudge(backend, yes=" good0", no=" bad0").scores(samples(*TEXTS))
    other = LogitsJudge(backend, yes=" bad0", no=" good0").scores(samples(*TEXTS))
    assert other.tolist() == (-one).tolist()


def test_the_contrary_question_cancels_a_lean(tiny: Any) -> None:
    """ℓ is half the difference of the log-odds of both questions; the same one twice leaves 0."""
    texts = samples("bago mina", "tolo", "rapi kes")
    one, other = "Is it warm?", "Is it cold?"
    both = LogitsJudge(tiny, question=one, opposite=other).scores(texts)
    apart = [np.arctanh(LogitsJudge(tiny, question=q).scores(texts)) for q in (one, other)]
    assert both.tolist() == pytest.approx(np.tanh((apart[0] - apart[1]) / 2).tolist(), abs=1e-5)
    same = LogitsJudge(tiny, question=one, opposite=one).scores(texts)
    assert same.tolist() == [0.0, 0.0, 0.0]


def test_answers_of_several_tokens_are_compared_where_they_differ(backend: Any) -> None:
    judge = LogitsJudge(backend, question=QUESTION, yes=" word1 good0", no=" word1 bad0")
    ids = backend.tokenize(TEMPLATE.format(text=TEXTS[0], question=QUESTION) + " word1")
    row = backend.logits([ids])[0][-1]
    odds = float(row[backend.tokenize("good0")[-1]] - row[backend.tokenize("bad0")[-1]])
    found = judge.scores(samples(TEXTS[0]))[0]
    assert found == pytest.approx(math.tanh(odds / 2), abs=1e-5)


def test_real_tokens_need_not_be_words(tiny: Any) -> None:
    """A SentencePiece vocabulary that spells yes and no in pieces; braces in a text are text."""
    judge = make_judge("logits", backend=tiny)
    found = judge.scores(samples("bago", "{text} {0}", "ünïcode 🙂"))
    assert np.isfinite(found).all()
    assert len(set(found.tolist())) == 3


def test_a_steered_model_is_no_judge() -> None:
    planted = run(connected=True)
    judge = make_judge(SPEC, backend=planted.backend)
    intervention = learned(planted.activations, "additive")
    with planted.backend.steer(intervention, verify=False):
        with pytest.raises(ValueError, match=r"^\[judge logits\] expected an unsteered model"):
            judge.scores(samples(TEXTS[0]))
        # Even where no text would be asked about.
        with pytest.raises(ValueError, match="unsteered"):
            judge.scores([])
    assert judge.scores(samples(TEXTS[0]))[0] > 0


@pytest.mark.parametrize(("yes", "no"), [(" good0", " good0"), (" good0", " good0 bad0"), ("", "")])
def test_answers_must_differ(backend: Any, yes: str, no: str) -> None:
    with pytest.raises(ValueError, match=r"^\[judge logits\] expected answers with a token"):
        LogitsJudge(backend, yes=yes, no=no)


def test_a_question_must_be_asked(backend: Any) -> None:
    with pytest.raises(ValueError, match="expected a question"):
        LogitsJudge(backend, yes=" good0", no=" bad0", question=" ")


def test_a_text_beyond_the_context_is_refused(backend: Any) -> None:
    judge = make_judge(SPEC, backend=backend)
    with pytest.raises(ValueError, match=r"within the context of 64 tokens, got \d+ for sample 1"):
        judge.scores(samples("word0", "word0 " * 64))


def test_logits_of_few_texts_are_held_at_once(
    backend: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    judge = make_judge(SPEC, backend=backend)
    whole = judge.scores(samples(*TEXTS, *TEXTS))
    calls: list[int] = []
    plain = backend.logits

    def counted(sequences: Any, **more: Any) -> Any:
        calls.append(sum(map(len, sequences)))
        return plain(sequences, **more)

    monkeypatch.setattr(backend, "logits", counted)
    limit = 60  # tokens, of which a text with its question has about 20
    monkeypatch.setattr(logits, "_MAX_LOGITS", limit * backend.identity.vocab_size)
    parts = judge.scores(samples(*TEXTS, *TEXTS))
    assert len(calls) >= 3
    assert max(calls) <= limit
    assert parts.tolist() == pytest.approx(whole.tolist(), abs=1e-5)


def test_a_model_that_broke_down_is_refused(backend: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    judge = make_judge(SPEC, backend=backend)
    broken = lambda sequences: [np.full((len(s), 64), np.nan, np.float32) for s in sequences]  # noqa: E731
    monkeypatch.setattr(backend, "logits", broken)
    with pytest.raises(ValueError, match=r"expected a finite score .* for sample 0"):
        judge.scores(samples(TEXTS[0]))


def test_the_description_names_the_model(backend: Any) -> None:
    found = make_judge(SPEC, backend=backend).describe()
    assert found["model"] == backend.identity.to_json()
    assert (found["yes"], found["no"]) == (" good0", " bad0")
