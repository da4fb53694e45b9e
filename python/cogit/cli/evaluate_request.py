"""What ``cogit evaluate`` was asked for, checked before a model is loaded."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cogit.cli.loading import BackendChoice, Runtime
from cogit.cli.outputs import require_apart
from cogit.evaluation.thresholds import Settings
from cogit.sampling import SamplingOptions


@dataclass(frozen=True)
class Request:
    """The flags; None where one was not given. instructions: for +1 and for -1."""

    intervention: Path
    opposite: Path | None
    backend: BackendChoice
    model: str | None
    runtime: Runtime
    prompts: str | None
    neutral_prompts: str | None
    neutral: str | None
    pairs: str | None
    judge: str | None
    match: str
    n_random: int | None
    seeds: tuple[int, ...] | None
    size: str
    instructions: tuple[str | None, str | None]
    n_tests: int
    tail: int
    sweep_strength: bool
    sampling: SamplingOptions
    seed: int
    out: Path | None
    json_output: bool

    def require(self) -> None:
        """ValueError, FileExistsError or FileNotFoundError for what cannot be done."""
        if (self.instructions[0] is None) != (self.instructions[1] is None):
            message = (
                "[evaluate] expected --instruction-positive and --instruction-negative together, "
                "got one of them: both directions are measured"
            )
            raise ValueError(message)
        self.settings()
        self.runtime.require(self.backend)
        if self.out is not None:
            if self.out.exists() and (not self.out.is_dir() or any(self.out.iterdir())):
                message = (
                    f"[run] expected an empty or new folder, got {self.out}, which exists; "
                    f"name another"
                )
                raise FileExistsError(message)
            require_apart({"out": self.out}, self.inputs())

    def inputs(self) -> dict[str, Any]:
        """Every path or source that the call names, by its flag."""
        names = ("intervention", "opposite", "model", "prompts", "neutral", "pairs")
        found = {name: getattr(self, name) for name in names}
        from cogit.evaluation.judges.spec import judge_place

        return found | {"neutral-prompts": self.neutral_prompts, "judge": judge_place(self.judge)}

    def settings(self) -> Settings:
        """Those of the preset of sizes with the flags over them."""
        given: dict[str, Any] = {
            "match": self.match,
            "sampling": self.sampling,
            "n_tests": self.n_tests,
            "seed": self.seed,
        }
        if self.n_random is not None:
            given["n_random"] = self.n_random
        if self.seeds is not None:
            given["seeds"] = self.seeds
        return Settings.of_size(self.size, **given)


def seeds_of(text: str | None) -> tuple[int, ...] | None:
    """``42,43`` as numbers; ValueError for anything else."""
    if text is None:
        return None
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        message = f"[seeds] expected whole numbers with commas, such as 42,43, got {text!r}"
        raise ValueError(message) from None


def size_of(size: str | None, *, quick: bool) -> str:
    """The preset of sizes; ValueError where --quick contradicts --size."""
    if quick and size not in (None, "quick"):
        message = f"[evaluate] expected --quick or --size {size}, got both; leave one out"
        raise ValueError(message)
    return "quick" if quick else size or "standard"


def sampling_of(max_tokens: int, temperature: float, top_k: int) -> SamplingOptions:
    """The sampling of every arm; its seed is replaced by each of the evaluation's."""
    return SamplingOptions(max_tokens=max_tokens, temperature=temperature, top_k=top_k)
