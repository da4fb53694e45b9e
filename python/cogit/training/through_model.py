"""Refining a unitary by gradients through the frozen language model.

The operator sits where it does at inference, at a block's end, the first token left alone. Every
step draws a strength λ and steers a batch of contrast pairs and neutral texts by +λ and by -λ. The
objective asks that the target's texts gain likelihood against the opposite ones, by the logistic
loss of a preference (Bradley & Terry 1952; against a frozen reference: Rafailov et al. 2023), and
pays for the KL divergence on neutral texts and for every loss of likelihood of the target's own:

    loss = mean over ±λ of  softplus(-(Δ target - Δ opposite)) + kl_price · KL(plain ‖ steered)
           + target_price · relu(-Δ target per token)

with Δ the log-likelihood that steering adds to a text. Only the k+1 dimensional unitary (a low-rank
Cayley generator) and the reference amplitude are trained. Whether it helped is read off the
teacher-forced contrast on other pairs, at the strength that the budget allows, never off the loss.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from cogit.errors import ArtefactError
from cogit.evaluation.teacher_forced import Score, TeacherForced
from cogit.intervention import Intervention
from cogit.operators import Unitary
from cogit.progress import track
from cogit.training import refine_state
from cogit.training.lifted import LiftedUnitary
from cogit.training.refine_objective import RefineData, RefineSettings, objective
from cogit.training.refine_state import Progress
from cogit.training.steered_pass import SteeredPass

if TYPE_CHECKING:
    from torch import Tensor

    from cogit.backends.transformers import TransformersBackend

__all__ = ["FACTORS", "RefineData", "RefineSettings", "Refined", "refine"]

# Multiples of the trained strength at which an evaluation looks for the budget.
FACTORS = (0.4, 0.6, 0.8, 1.0, 1.2, 1.4)
_CLIP = 1.0
_LAST_RATE = 0.1
# Nats per pair: less is the rounding of float32 logits, and no better effect.
_LEAST_GAIN = 1e-4


@dataclass(frozen=True)
class Refined:
    """The best operator found, at the strength that the budget allows, and the way there.

    before, after: scores on the check split, within the budget. step: where the best was found; 0
    is the start, returned where no step did better. history: one row a step (loss and its parts)
    and one an evaluation.
    """

    intervention: Intervention
    before: Score
    after: Score
    step: int
    steps_done: int
    history: tuple[dict[str, Any], ...]


def refine(
    backend: TransformersBackend,
    start: Intervention,
    data: RefineData,
    settings: RefineSettings | None = None,
    *,
    checkpoint: Path | None = None,
    resume: bool = False,
    on_step: Callable[[dict[str, Any]], None] | None = None,
    show: bool = False,
) -> Refined:
    """Train the unitaries of ``start`` through the model, which stays as it is.

    start: unitaries on any blocks, on all tokens but the first; strength 1 of the training is its
    strength. checkpoint: a folder for the checkpoint and the loss curve; with ``resume`` it goes on
    from there and ends as an uninterrupted run does. on_step: called with every row of the curve.
    The result is deterministic for a seed, a machine and a number of threads.

    Raises ValueError for other operators or positions, for a loss that is not finite, and where
    neither the start nor any step is within the budget; FileExistsError for a folder that holds a
    checkpoint already, unless it is resumed.
    """
    if checkpoint is not None and not resume:
        refine_state.require_none(checkpoint)
    run = _Run(backend, start, data, settings or RefineSettings(), checkpoint, on_step)
    if resume:
        if checkpoint is None:
            message = "[resume] expected a checkpoint folder to resume from, got none; name one"
            raise ValueError(message)
        run.resume()
    with _frozen(backend.model):
        return run.train(show=show)


class _Run:
    """One training run: the trained unitaries, the optimiser and where it stands."""

    def __init__(
        self,
        backend: TransformersBackend,
        start: Intervention,
        data: RefineData,
        settings: RefineSettings,
        checkpoint: Path | None,
        on_step: Callable[[dict[str, Any]], None] | None,
    ) -> None:
        self.backend, self.data, self.settings = backend, data, settings
        self.start, self.given = _at_full_strength(start), start.content_hash
        _require_unsteered(backend)
        start.identity.require_same_shape(backend.identity)
        self.trained = {
            layer: LiftedUnitary(operator, settings.rank)
            for layer, operator in _unitaries(self.start).items()
        }
        self.leaves = {
            f"{layer}.{name}": leaf
            for layer, one in self.trained.items()
            for name, leaf in one.leaves().items()
        }
        self.optimiser = torch.optim.Adam(list(self.leaves.values()), lr=settings.learning_rate)
        self.steered = SteeredPass(backend, {layer: op.start for layer, op in self.trained.items()})
        self.pair_ids = [
            (self.steered.tokenize(positive), self.steered.tokenize(negative))
            for positive, negative in (pair.texts for pair in data.pairs)
        ]
        self.neutral_ids = [self.steered.tokenize(text) for text in data.neutral]
        if not self.pair_ids or not self.neutral_ids:
            message = "[refine] expected pairs and neutral texts to train on, got none"
            raise ValueError(message)
        self.check = TeacherForced(backend, data.check_pairs, data.check_neutral)
        self.progress, self.history = Progress(), list[dict[str, Any]]()
        self.checkpoint, self.on_step = checkpoint, on_step
        if checkpoint is not None:
            checkpoint.mkdir(parents=True, exist_ok=True)

    # ---- the loop ----

    def train(self, *, show: bool) -> Refined:
        settings, progress = self.settings, self.progress
        before = self.check.score(self.start)
        if progress.step == 0 and not progress.stopped:
            self._evaluate()
        for step in track(range(progress.step, settings.steps), "refining", show=show):
            if progress.stopped:
                break
            self._note({"step": step + 1, **self._step(step)})
            progress.step = step + 1
            last = progress.step == settings.steps
            if last or progress.step % settings.evaluate_every == 0:
                self._evaluate()
            if last or progress.stopped or progress.step % settings.checkpoint_every == 0:
                self._save()
        return self._result(before)

    def _step(self, step: int) -> dict[str, float]:
        """One update. Everything random comes from (seed, step), so that a resume repeats it."""
        settings = self.settings
        rng = np.random.default_rng([settings.seed, step])
        strength = float(rng.uniform(*settings.strengths))
        pairs = [self.pair_ids[i] for i in _draw(rng, len(self.pair_ids), settings.batch_pairs)]
        neutral = [
            self.neutral_ids[i] for i in _draw(rng, len(self.neutral_ids), settings.batch_neutral)
        ]
        for group in self.optimiser.param_groups:
            group["lr"] = settings.learning_rate * _rate(step / settings.steps)
        self.optimiser.zero_grad()
        rows = [[ids for pair in pairs for ids in pair], neutral]
        parts = objective(self.steered, self.trained, rows, strength, settings)
        loss = parts["loss"]
        if not bool(torch.isfinite(loss)):
            message = (
                f"[refine] expected a finite loss at step {step + 1}, got {float(loss)}; lower the "
                f"learning rate or start from a weaker operator"
            )
            raise ValueError(message)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(list(self.leaves.values()), _CLIP)
        self.optimiser.step()
        return {
            "lambda": strength,
            **{name: float(value.detach()) for name, value in parts.items()},
        }

    def _evaluate(self) -> None:
        """The effect at the budget on the check split; keeps the best and decides when to stop."""
        progress = self.progress
        found = self.check.at_budget(self._intervention(), self.data.budget, FACTORS)
        row: dict[str, Any] = {"step": progress.step, "within_budget": found is not None}
        if found is not None:
            factor, score = found
            row |= {"factor": factor, "effect": score.contrast, "neutral_kl": score.neutral_kl}
        if found is not None and found[1].contrast > progress.best_effect + _LEAST_GAIN:
            progress.best_factor, progress.best_effect = found[0], found[1].contrast
            progress.best_step, progress.stale = progress.step, 0
            progress.best = {
                f"{layer}.{name}": value
                for layer, one in self.trained.items()
                for name, value in one.values().items()
            }
        else:
            progress.stale += 1
            progress.stopped = progress.stale >= self.settings.patience
        self._note(row)

    def _note(self, row: dict[str, Any]) -> None:
        self.history.append(row)
        if self.on_step is not None:
            self.on_step(row)

    # ---- results ----

    def _intervention(self) -> Intervention:
        return replace(
            self.start, operators={layer: one.operator() for layer, one in self.trained.items()}
        )

    def _result(self, before: Score) -> Refined:
        progress = self.progress
        if progress.best is None:
            message = (
                f"[refine] expected a strength within a rise of the target's NLL of "
                f"{self.data.budget.target_nll:g} and a KL of {self.data.budget.neutral_kl:g}, got "
                f"none in {progress.step} steps; raise kl_price or start from a weaker operator"
            )
            raise ValueError(message)
        self._load(progress.best)
        lineage = {
            **self.start.lineage,
            "refined": {
                **asdict(self.settings),
                "strengths": list(self.settings.strengths),
                "start": self.given,
                "best_step": progress.best_step,
                "steps_done": progress.step,
            },
        }
        found = replace(self._intervention(), strength=progress.best_factor, lineage=lineage)
        return Refined(
            intervention=found,
            before=before,
            after=self.check.score(found),
            step=progress.best_step,
            steps_done=progress.step,
            history=tuple(self.history),
        )

    # ---- checkpoints ----

    def resume(self) -> None:
        saved = refine_state.load(self._folder(), self._digest())
        try:
            self._load(saved.leaves)
            for name, leaf in self.leaves.items():
                self.optimiser.state[leaf] = {
                    "step": torch.tensor(float(saved.progress.step)),
                    "exp_avg": _like(leaf, saved.moments[f"{name}.first"]),
                    "exp_avg_sq": _like(leaf, saved.moments[f"{name}.second"]),
                }
        except (KeyError, ValueError) as error:
            message = f"[resume] expected the tensors of this run in {self.checkpoint}, got {error}"
            raise ArtefactError(message) from error
        self.progress, self.history = saved.progress, saved.history

    def _save(self) -> None:
        if self.checkpoint is None:
            return
        moments = {}
        for name, leaf in self.leaves.items():
            state = self.optimiser.state[leaf]
            moments[f"{name}.first"] = state["exp_avg"].numpy()
            moments[f"{name}.second"] = state["exp_avg_sq"].numpy()
        leaves = {name: leaf.detach().numpy() for name, leaf in self.leaves.items()}
        refine_state.save(
            self.checkpoint, self.progress, leaves, moments, self.history, self._digest()
        )

    def _load(self, values: dict[str, Any]) -> None:
        for layer, one in self.trained.items():
            prefix = f"{layer}."
            one.load(
                {
                    name.removeprefix(prefix): value
                    for name, value in values.items()
                    if name.startswith(prefix)
                }
            )

    def _folder(self) -> Path:
        assert self.checkpoint is not None
        return self.checkpoint

    def _digest(self) -> str:
        """Of all that must be the same for a resumed run to end as the first would have."""
        facts = {
            "settings": asdict(self.settings),
            "start": self.given,
            "model": self.backend.identity.to_json(),
            "pairs": [pair.texts for pair in self.data.pairs],
            "neutral": list(self.data.neutral),
            "check_pairs": [pair.texts for pair in self.data.check_pairs],
            "check_neutral": list(self.data.check_neutral),
            "budget": asdict(self.data.budget),
        }
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def _rate(done: float) -> float:
    return _LAST_RATE + (1 - _LAST_RATE) * 0.5 * (1 + math.cos(math.pi * done))


def _draw(rng: np.random.Generator, n: int, size: int) -> list[int]:
    return [int(i) for i in rng.choice(n, min(size, n), replace=False)]


def _like(leaf: Tensor, values: Any) -> Tensor:
    found = torch.from_numpy(np.array(values))
    if found.shape != leaf.shape or found.dtype != leaf.dtype:
        message = f"moments of shape {tuple(found.shape)} in {found.dtype}"
        raise ValueError(message)
    return found


def _unitaries(start: Intervention) -> dict[int, Unitary]:
    found: dict[int, Unitary] = {}
    for layer, operator in start.operators.items():
        if not isinstance(operator, Unitary):
            message = f"[refine] expected unitary operators to refine, got {operator.kind}"
            raise TypeError(message)
        found[layer] = operator
    return found


def _at_full_strength(start: Intervention) -> Intervention:
    """The same intervention with its strength in the matrices, at strength 1."""
    from cogit.operators.unitary_fits import power

    if start.positions.kind != "all" or start.positions.first_token:
        message = (
            f"[refine] expected an intervention on all tokens but the first, got positions "
            f"{start.positions}; set them on the result"
        )
        raise ValueError(message)
    if start.strength == 1.0:
        return start
    operators = {
        layer: replace(operator, matrix=power(operator.matrix, start.strength))
        for layer, operator in _unitaries(start).items()
    }
    return replace(start, operators=operators, strength=1.0)


def _require_unsteered(backend: TransformersBackend) -> None:
    if backend.intervention is not None:
        message = "[refine] expected an unsteered backend, got one that steers; leave its block"
        raise ValueError(message)


@contextmanager
def _frozen(model: Any) -> Iterator[None]:
    """No parameter asks for a gradient inside, and each is as before afterwards."""
    asked = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for parameter in asked:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in asked:
            parameter.requires_grad_(True)
