"""Training a unitary by the Born loss 1 - |<t|U s>|² with Adam, as the system it comes from did.

A high fidelity is no success. All states of a residual stream share a large mean, so the identity
reaches nearly the same fidelity, and so does an operator trained on shuffled classes; the loss does
not see the phase either. Both are therefore trained or measured beside it, on pairs held out, and
reported in the same place. Judge by generated text beside controls.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from cogit.progress import track
from cogit.training.born_config import BornConfig
from cogit.training.born_measures import (
    Compared,
    antisymmetric_transport,
    born_fidelity,
    centroid,
)
from cogit.training.born_states import PairedStates, pair_states
from cogit.training.cayley_module import UnitaryModule, make_unitary
from cogit.training.checkpoint import Progress, TrainingState, load_checkpoint, save_checkpoint

if TYPE_CHECKING:
    from cogit.training.born_states import States

_LOG = logging.getLogger("cogit.training")
NOTE = (
    "fidelity is no measure of success: the identity and an operator trained on shuffled classes "
    "reach nearly the same; judge by generated text beside controls"
)
OnEpoch = Callable[[str, int, float], None]


@dataclass(frozen=True, eq=False)
class BornResult:
    """A trained unitary and everything that says how much it is worth.

    module: in evaluation mode. loss_history: the mean loss of each epoch; fidelity_history: the
    mean fidelity of the training pairs as each epoch met them, which is 1 - loss.
    fidelity: on held-out pairs, beside the identity and the shuffled control; **no success**.
    transport: how far held-out states are carried from the source centroid towards the target's,
    in their distance, against what the inverse does (see `antisymmetric_transport`).
    states: the pairs as they were used, with the split and the mean that was taken out.
    control: the module that was trained on shuffled classes, in evaluation mode.
    """

    module: UnitaryModule
    config: BornConfig
    loss_history: tuple[float, ...]
    fidelity_history: tuple[float, ...]
    fidelity: Compared
    transport: Compared
    unitarity_deviation: float
    learning_rate: float
    states: PairedStates
    control: UnitaryModule

    def to_json(self) -> dict[str, Any]:
        """The report: settings, curves, held-out measures with their controls, and the caveat."""
        return {
            "config": asdict(self.config),
            "loss_history": list(self.loss_history),
            "fidelity_history": list(self.fidelity_history),
            "held_out_pairs": len(self.states.held_out_rows),
            "held_out_fidelity": self.fidelity.to_json(),
            "held_out_transport": self.transport.to_json(),
            "unitarity_deviation": self.unitarity_deviation,
            "final_learning_rate": self.learning_rate,
            "free_parameters": self.module.free_parameters,
            "note": NOTE,
        }


@dataclass(frozen=True)
class _Run:
    """Where and how one training runs; nothing of it changes the result."""

    folder: Path | None
    every: int
    resume: bool
    device: torch.device
    show: bool
    on_epoch: OnEpoch | None


def train_born(
    source_states: States,
    target_states: States,
    config: BornConfig | None = None,
    *,
    checkpoint: str | Path | None = None,
    checkpoint_every: int = 10,
    resume: bool = False,
    device: str | torch.device = "cpu",
    show: bool = True,
    on_epoch: OnEpoch | None = None,
) -> BornResult:
    """Train U so that U s comes near t, up to a phase, for matched pairs (s, t) of states.

    source_states, target_states: (n, q) complex, rows matched, of any length but zero (they are
    normalised); NumPy or torch. Loss: the batch mean of 1 - |<t|U s>|²; Adam, gradient norm
    clipped, rows shuffled every epoch, learning rate by ReduceLROnPlateau on the epoch's mean loss.

    checkpoint: a folder; every ``checkpoint_every`` epochs the whole training state is written
    there. resume: go on from it; the end is the same as without the interruption, on the same
    machine to the last bit. device: where torch computes. on_epoch: called after each epoch (and
    its checkpoint) with "born" or "shuffled", the number of finished epochs and the mean loss.

    **A high fidelity is no success** (see the module's text). The result always carries the
    identity and a shuffled-class control, trained in the same way, measured on held-out pairs.

    Raises ValueError for states that do not fit, a loss or parameter that is not finite, and a U
    that stops being unitary; FileNotFoundError where there is nothing to resume; FileExistsError
    for a folder that holds a checkpoint already; ArtefactError for a checkpoint of other settings
    or other states.
    """
    config = config or BornConfig()
    if type(checkpoint_every) is not int or checkpoint_every < 1:
        message = f"[born] expected checkpoint_every of 1 or more, got {checkpoint_every!r}"
        raise ValueError(message)
    folder = None if checkpoint is None else Path(checkpoint)
    _check_folder(folder, resume)
    states = pair_states(
        source_states,
        target_states,
        held_out=config.held_out,
        seed=config.seed,
        centred=config.centred,
        dtype=config.complex_dtype,
    )
    run = _Run(folder, checkpoint_every, resume, torch.device(device), show, on_epoch)
    trainer = _Trainer("born", states, config, run)
    trainer.train()
    control = _Trainer("shuffled", states.shuffled(config.seed), config, run)
    control.train()
    return _result(trainer, control, states, config)


def train_shuffled(
    states: PairedStates,
    config: BornConfig,
    *,
    draw: int,
    checkpoint: Path | None = None,
    checkpoint_every: int = 10,
    resume: bool = False,
    device: str | torch.device = "cpu",
    show: bool = True,
) -> UnitaryModule:
    """One more shuffled control of a training: half of its pairs exchanged by another draw.

    states, config: of the training's result. draw: 1 or more; the result's own control is draw 0.
    A control that has no checkpoint yet starts anew when resumed. Raises as `train_born`.
    """
    if checkpoint is not None:
        if not resume and (checkpoint / "shuffled.safetensors").exists():
            message = f"[born] expected a folder without a checkpoint, got {checkpoint}; resume it"
            raise FileExistsError(message)
        checkpoint.mkdir(parents=True, exist_ok=True)
    run = _Run(checkpoint, checkpoint_every, resume, torch.device(device), show, None)
    trainer = _Trainer("shuffled", states.shuffled(config.seed + draw), config, run)
    trainer.train()
    return trainer.module


class _Trainer:
    """One training, its curves and its checkpoints."""

    def __init__(self, name: str, states: PairedStates, config: BornConfig, run: _Run) -> None:
        self.name, self.config, self.run = name, config, run
        self.source, self.target = (x.to(run.device) for x in (states.source, states.target))
        self.data = states.fingerprint()
        self.module = make_unitary(
            config.family,
            self.source.shape[1],
            rank=config.rank,
            spread=config.spread,
            seed=config.seed,
            dtype=config.real_dtype,
        ).to(run.device)
        optimiser = torch.optim.Adam(
            self.module.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
        )
        scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(
            optimiser, factor=config.factor, patience=config.patience
        )
        # The order of rows is drawn on the CPU, the same for every device.
        generator = torch.Generator().manual_seed(config.seed)
        self.state = TrainingState(self.module, optimiser, scheduler, generator)
        self.losses: list[float] = []

    @property
    def fidelities(self) -> tuple[float, ...]:
        return tuple(1.0 - loss for loss in self.losses)

    @property
    def learning_rate(self) -> float:
        return float(self.state.optimiser.param_groups[0]["lr"])

    @property
    def file(self) -> Path | None:
        return None if self.run.folder is None else self.run.folder / f"{self.name}.safetensors"

    def train(self) -> None:
        first = self._restore()
        self.module.train()
        label = "training" if self.name == "born" else f"training ({self.name} control)"
        epochs = range(first + 1, self.config.epochs + 1)
        for number in track(epochs, label, show=self.run.show):
            loss = self._epoch(number)
            self._log(number, loss)
            last = number == self.config.epochs
            if last or number % self.config.check_every == 0:
                self._check(number)
            if self.file is not None and (last or number % self.run.every == 0):
                self._save(self.file)
            if self.run.on_epoch is not None:
                self.run.on_epoch(self.name, number, loss)
        self.module.eval()
        # Three times the parameters, which cycles with the scheduler would keep through the next
        # trainings.
        self.state.optimiser.zero_grad()
        self.state.optimiser.state.clear()

    def _epoch(self, number: int) -> float:
        n_rows = len(self.source)
        order = torch.randperm(n_rows, generator=self.state.generator).to(self.run.device)
        total = 0.0
        for start in range(0, n_rows, self.config.batch_size):
            rows = order[start : start + self.config.batch_size]
            total += self._step(self.source[rows], self.target[rows], number) * len(rows)
        mean = total / n_rows
        self.state.scheduler.step(mean)
        self.losses.append(mean)
        return mean

    def _step(self, source: Tensor, target: Tensor, number: int) -> float:
        overlaps = (target.conj() * self.module(source)).sum(dim=1)
        loss = (1.0 - overlaps.abs().square()).mean()
        value = float(loss.detach())
        if not math.isfinite(value):
            message = (
                f"[born] expected a finite loss, got {value} in epoch {number}; "
                f"lower the learning rate"
            )
            raise ValueError(message)
        self.state.optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(
            self.module.parameters(), self.config.clip, error_if_nonfinite=True
        )
        self.state.optimiser.step()
        return value

    def _log(self, number: int, loss: float) -> None:
        if number % self.config.log_every == 0:
            _LOG.info(
                "%s: epoch %d of %d, loss %.4f, training fidelity %.4f, learning rate %.2g",
                self.name,
                number,
                self.config.epochs,
                loss,
                1.0 - loss,
                self.learning_rate,
            )

    def _check(self, number: int) -> None:
        deviation = self.module.deviation()
        if not deviation <= self.config.tolerance:
            message = (
                f"[born] expected max |UᴴU - I| of at most {self.config.tolerance:.1e}, got "
                f"{deviation:.1e} in epoch {number}; train in complex128 or lower the learning rate"
            )
            raise ValueError(message)

    def _save(self, file: Path) -> None:
        progress = Progress(len(self.losses), tuple(self.losses), self.fidelities)
        settings = self.config.settings()
        save_checkpoint(file, self.state, progress, settings=settings, data=self.data)

    def _restore(self) -> int:
        """The number of epochs that are done already."""
        # The control begins when the training ends, so it may have nothing to go on from.
        if not self.run.resume or self.file is None or not self.file.exists():
            return 0
        settings = self.config.settings()
        progress = load_checkpoint(self.file, self.state, settings=settings, data=self.data)
        if progress.epoch > self.config.epochs:
            message = (
                f"[resume] expected at most {self.config.epochs} finished epochs, got "
                f"{progress.epoch} in {self.file}; ask for more epochs"
            )
            raise ValueError(message)
        self.losses = list(progress.loss_history)
        return progress.epoch


def _check_folder(folder: Path | None, resume: bool) -> None:
    """Make the folder; refuse one that would be overwritten, or that holds nothing to resume."""
    if folder is None:
        if resume:
            message = "[resume] expected a checkpoint folder, got none; name it"
            raise ValueError(message)
        return
    file = folder / "born.safetensors"
    if resume and not file.is_file():
        message = f"[resume] expected a checkpoint {file}, which does not exist; start without it"
        raise FileNotFoundError(message)
    if not resume and file.exists():
        message = f"[born] expected a folder without a checkpoint, got {file}; resume it or move it"
        raise FileExistsError(message)
    folder.mkdir(parents=True, exist_ok=True)


def _result(
    trainer: _Trainer, control: _Trainer, states: PairedStates, config: BornConfig
) -> BornResult:
    on_device = replace(
        states,
        source=trainer.source,
        target=trainer.target,
        held_source=states.held_source.to(trainer.run.device),
        held_target=states.held_target.to(trainer.run.device),
    )
    held_source, held_target = on_device.held_source, on_device.held_target
    start, end = centroid(on_device.source), centroid(on_device.target)
    reference = torch.cat([on_device.source, on_device.target])

    def carried(module: UnitaryModule) -> float:
        turns = module, module.adjoint
        return antisymmetric_transport(*turns, held_source, start, end, reference)

    turns = (trainer.module, lambda rows: rows, control.module)
    fidelities = [born_fidelity(turn, held_source, held_target) for turn in turns]
    return BornResult(
        module=trainer.module,
        config=config,
        loss_history=tuple(trainer.losses),
        fidelity_history=trainer.fidelities,
        fidelity=Compared(*fidelities),
        transport=Compared(carried(trainer.module), 0.0, carried(control.module)),
        unitarity_deviation=trainer.module.deviation(),
        learning_rate=trainer.learning_rate,
        states=states,
        control=control.module,
    )
