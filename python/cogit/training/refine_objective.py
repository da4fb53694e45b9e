"""What a refinement through the model is told, and the objective that it follows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch

from cogit.evaluation.teacher_forced import Budget
from cogit.pairs import ContrastPair
from cogit.training.lifted import LiftedUnitary
from cogit.training.steered_pass import SteeredPass, token_log_likelihoods

if TYPE_CHECKING:
    from torch import Tensor

_SIGNS = (1.0, -1.0)


@dataclass(frozen=True)
class RefineSettings:
    """How an operator is refined.

    steps: at most. learning_rate: Adam's first; it falls by a cosine to a tenth. batch_pairs,
    batch_neutral: texts a step. strengths: λ is drawn evenly from here. kl_price: nats of the
    objective for a nat of KL per neutral token. target_price: for a nat that the target's texts
    lose per token. evaluate_every, patience: evaluations, and how many without a better effect end
    the training. checkpoint_every: steps. rank: of the generator, k+1 unless given.
    """

    steps: int = 300
    learning_rate: float = 0.02
    batch_pairs: int = 12
    batch_neutral: int = 6
    strengths: tuple[float, float] = (0.5, 1.0)
    kl_price: float = 20.0
    target_price: float = 20.0
    evaluate_every: int = 25
    patience: int = 5
    checkpoint_every: int = 25
    rank: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        whole = (self.batch_pairs, self.batch_neutral, self.evaluate_every, self.patience)
        low, high = self.strengths
        if min(*whole, self.steps, self.checkpoint_every) < 1 or not 0 < low <= high:
            message = f"[refine] expected positive sizes and 0 < low <= high strengths, got {self}"
            raise ValueError(message)
        if not self.learning_rate > 0 or min(self.kl_price, self.target_price) < 0:
            message = f"[refine] expected a positive learning rate and prices >= 0, got {self}"
            raise ValueError(message)


@dataclass(frozen=True)
class RefineData:
    """Texts to train on, and others that decide when to stop; held-out ones belong to neither."""

    pairs: Sequence[ContrastPair]
    neutral: Sequence[str]
    check_pairs: Sequence[ContrastPair]
    check_neutral: Sequence[str]
    budget: Budget = field(default_factory=Budget)


def objective(
    steered: SteeredPass,
    trained: dict[int, LiftedUnitary],
    rows: list[list[list[int]]],
    strength: float,
    settings: RefineSettings,
) -> dict[str, Tensor]:
    """The loss and its parts; rows are the texts of the pairs (alternating) and neutral ones."""
    texts, neutral = rows
    with torch.no_grad():
        plain = steered.run([*texts, *neutral], None)
        plain_sums = token_log_likelihoods(plain, len(texts)).sum(dim=1)
    preference, divergence, loss_of_target = [], [], []
    for sign in _SIGNS:
        maps = {layer: one.signal_map(sign * strength) for layer, one in trained.items()}
        now = steered.run([*texts, *neutral], maps)
        added = token_log_likelihoods(now, len(texts)).sum(dim=1) - plain_sums
        target, opposite = (added[0::2], added[1::2]) if sign > 0 else (added[1::2], added[0::2])
        preference.append(torch.nn.functional.softplus(opposite - target).mean())
        divergence.append(now.divergence_from(plain, first=len(texts)))
        lengths = now.predicted[: len(texts)].sum(dim=1)[0 if sign > 0 else 1 :: 2]
        loss_of_target.append(torch.relu(-target.sum() / lengths.sum()))
    parts = {
        "preference": torch.stack(preference).mean(),
        "neutral_kl": torch.stack(divergence).mean(),
        "target_loss": torch.stack(loss_of_target).mean(),
    }
    loss = (
        parts["preference"]
        + settings.kl_price * parts["neutral_kl"]
        + settings.target_price * parts["target_loss"]
    )
    return {"loss": loss, **parts}
