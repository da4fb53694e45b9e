"""What a layer sweep found: a score with its p-values for each block, the best one, a verdict."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cogit.entries import entry
from cogit.errors import ArtefactError
from cogit.hook_points import HookPoint
from cogit.identity import ModelIdentity
from cogit.latest import resolve_latest
from cogit.separation import rate_gap

# Rank correlation of static scores with generated success on two models: -.5 to +.7, either sign.
CAUTION = (
    "This says where the classes differ, not where steering works: no static score predicted that; "
    "choose the block to steer by the teacher-forced contrast."
)
FORMAT = "cogit sweep"
FORMAT_VERSION = 1
FILE_NAME = "sweep.json"
_MAX_FILE = 64 * 2**20


@dataclass(frozen=True)
class LayerScore:
    """One block's figures.

    score: paired effect size d_z of the held-out projections; interval: its 95 % bootstrap interval
    over groups of pairs; null_band: the central 90 % of scores with swapped labels.
    accuracy: share of held-out pairs whose positive text lies further along the direction; chance
    is one half. d_prime: the classes' distance over their spread, held-out, as single states.
    p_value: of this score by swapped labels; p_family: by the maximum over blocks; p_holm: Holm's.
    gap: pairwise fidelity gap, with its own p-value by the same swaps. biased_gap: the source
    system's, positive on noise.
    """

    layer: int
    score: float
    interval: tuple[float, float]
    null_band: tuple[float, float]
    accuracy: float
    d_prime: float
    p_value: float
    p_family: float
    p_holm: float
    gap: float
    gap_p_value: float
    biased_gap: float

    @property
    def rating(self) -> str:
        """The source system's word for the pairwise gap."""
        return rate_gap(self.gap)

    def to_json(self) -> dict[str, Any]:
        values = asdict(self) | {"source_rating_of_gap": self.rating}
        return {k: list(v) if isinstance(v, tuple) else v for k, v in values.items()}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> LayerScore:
        """KeyError, IndexError, TypeError or ValueError for other entries."""
        plain = {
            name: entry(data, name, float)
            for name in cls.__annotations__
            if name not in ("layer", "interval", "null_band")
        }
        ranges = [entry(data, name, list) for name in ("interval", "null_band")]
        interval, band = ((entry(r, 0, float), entry(r, 1, float)) for r in ranges)
        return cls(layer=entry(data, "layer", int), interval=interval, null_band=band, **plain)


@dataclass(frozen=True)
class Sweep:
    """All blocks of one sweep, and what they were found with (see ``sweep_layers``).

    hook_point: where in the blocks the states were read. n_groups: of pairs that share no text with
    another group, the unit of all inference; None in a sweep of before groups were told apart.

    family_threshold: the score that the best of all blocks exceeds with probability alpha where
    the classes do not differ.
    """

    layers: tuple[LayerScore, ...]
    family_threshold: float
    n_pairs: int
    permutations: int
    folds: int
    repeats: int
    seed: int
    alpha: float
    identity: ModelIdentity
    hook_point: str = HookPoint.RESID_POST.value
    n_groups: int | None = None

    @property
    def best(self) -> LayerScore:
        """The block of the highest score, the first of equals."""
        return max(self.layers, key=lambda layer: layer.score)

    @property
    def p_value(self) -> float:
        """That of the best block, by Holm: what the verdict rests on."""
        return self.best.p_holm

    @property
    def p_family(self) -> float:
        """Of "no block differs", by the maximum over blocks."""
        return self.best.p_family

    @property
    def verdict(self) -> str:
        """``effect`` or ``no effect``."""
        return "effect" if self.p_value <= self.alpha else "no effect"

    @property
    def units(self) -> str:
        """How many pairs there are, and in how many groups where some share a text."""
        if self.n_groups in (None, self.n_pairs):
            return f"{self.n_pairs} pairs"
        return f"{self.n_pairs} pairs in {self.n_groups} groups that share no text"

    def describe(self) -> str:
        """The verdict in one line."""
        best = self.best
        low, high = best.interval
        # The end of the block is what every other command means by a block.
        where = "" if self.hook_point == HookPoint.RESID_POST else f"{self.hook_point} of "
        found = (
            f"{where}block {best.layer}, d_z {best.score:.2f} [{low:.2f}, {high:.2f}], "
            f"{100 * best.accuracy:.0f} % of held-out pairs right, p = {self.p_value:.2g} (Holm), "
            f"{self.p_family:.2g} (maximum)"
        )
        if self.n_groups not in (None, self.n_pairs):
            found += f"; {self.units}"
        if self.verdict == "effect":
            return f"effect: the classes differ most at {found}"
        return f"no effect: no block differs beyond what swapped labels give; highest at {found}"

    def to_json(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "verdict": self.verdict,
            "best_layer": self.best.layer,
            "p_value": self.p_value,
            "p_family": self.p_family,
            "caution": CAUTION,
            "score": "paired effect size d_z of held-out projections on the mean difference",
            "layers": [layer.to_json() for layer in self.layers],
            "family_threshold": self.family_threshold,
            "pairs": self.n_pairs,
            "groups": self.n_groups,
            "permutations": self.permutations,
            "folds": self.folds,
            "repeats": self.repeats,
            "seed": self.seed,
            "alpha": self.alpha,
            "hook_point": self.hook_point,
            "model": self.identity.to_json(),
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Sweep:
        """The inverse of ``to_json``; ValueError naming what is wrong."""
        try:
            if (data["format"], data["format_version"]) != (FORMAT, FORMAT_VERSION):
                message = f"expected {FORMAT} of version {FORMAT_VERSION}, got another"
                raise ValueError(message)
            rows = entry(data, "layers", list)
            if not rows:
                message = "expected at least one layer, got none"
                raise ValueError(message)
            return cls(
                layers=tuple(LayerScore.from_json(row) for row in rows),
                family_threshold=entry(data, "family_threshold", float),
                n_pairs=entry(data, "pairs", int),
                n_groups=None if data.get("groups") is None else entry(data, "groups", int),
                permutations=entry(data, "permutations", int),
                folds=entry(data, "folds", int),
                repeats=entry(data, "repeats", int),
                seed=entry(data, "seed", int),
                alpha=entry(data, "alpha", float),
                identity=ModelIdentity.from_json(entry(data, "model", dict)),
                # Sweeps of before the entry were of the ends of blocks.
                hook_point=entry(
                    {"hook_point": HookPoint.RESID_POST.value, **data}, "hook_point", str
                ),
            )
        except (KeyError, IndexError, TypeError, ValueError) as error:
            message = f"[load] expected a layer sweep, got {' '.join(str(error).split())[:200]}"
            raise ArtefactError(message) from error

    @classmethod
    def load(cls, path: str | Path) -> Sweep:
        """From sweep.json, the folder of a run, or a folder of runs: there, of the latest one.

        Raises FileNotFoundError, or ArtefactError for a file that is no sweep.
        """
        source = Path(path)
        if source.is_dir():
            source = source / FILE_NAME
            if not source.is_file():
                source = resolve_latest(path, "sweep") / FILE_NAME
        if not source.is_file():
            message = f"[load] expected a layer sweep, got {source}, which does not exist"
            raise FileNotFoundError(message)
        if source.stat().st_size > _MAX_FILE:
            message = f"[load] {source} is larger than {_MAX_FILE // 2**20} MiB, too much for JSON"
            raise ArtefactError(message)
        try:
            data = json.loads(source.read_text(encoding="utf-8"))
        except (ValueError, RecursionError) as error:
            message = f"[load] expected JSON in {source}, got {' '.join(str(error).split())[:200]}"
            raise ArtefactError(message) from error
        return cls.from_json(data)
