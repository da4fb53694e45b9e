"""The material of an evaluation of the demo model: splits of its grammar that share no text."""

from __future__ import annotations

from cogit.demo import grammar
from cogit.evaluation.suite import Suite
from cogit.pairs import ContrastPair

N_PROMPTS, N_NEUTRAL, N_OPPOSITE, N_CALIBRATION, N_PAIRS = 72, 24, 40, 12, 100


def demo_suite(n_prompts: int = N_PROMPTS, seed: int = 0) -> Suite:
    """Open prompts, beginnings of facts, facts, and contexts of the opposite sentiment."""
    told = grammar.facts(2 * N_NEUTRAL, seed, "test")
    begun = dict.fromkeys(_first_half(text) for text in told[N_NEUTRAL:])
    return Suite(
        prompts=tuple(grammar.open_prompts(n_prompts, seed, "test")),
        neutral_prompts=tuple(begun),
        neutral_texts=tuple(told[:N_NEUTRAL]),
        calibration_prompts=tuple(grammar.open_prompts(N_CALIBRATION, seed, "calibration")),
        calibration_texts=tuple(grammar.facts(N_CALIBRATION, seed, "calibration")),
        # context_prompts takes the sign of the context, which is the opposite of the target's.
        opposite={
            +1: tuple(grammar.context_prompts(N_OPPOSITE, -1, seed, "test")),
            -1: tuple(grammar.context_prompts(N_OPPOSITE, 1, seed, "test")),
        },
    )


def demo_pairs(seed: int = 0) -> list[ContrastPair]:
    """Contrast pairs of the training split, for the controls that are fitted."""
    return grammar.contrast_pairs(N_PAIRS, seed, "train")


def _first_half(text: str) -> str:
    sentences = text.split(" . ")
    return " . ".join(sentences[: len(sentences) // 2]) + " ."
