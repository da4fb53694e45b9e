"""What one run of the pipeline is asked to do: everything that decides it, and nothing else.

A plan is plain data. It goes into the manifest as it is, a study file overrides its fields, and
the same plan on the same files gives the same results.
"""

from __future__ import annotations

import difflib
import math
import types
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Self, Union, get_args, get_origin, get_type_hints

from cogit.presets import Preset, preset

PHASES = ("record", "fit", "generate", "evaluate", "reverse")
METHODS = ("plane", "procrustes", "direct", "born", "margin", "born-adam")
BACKENDS = ("transformers", "llamacpp")
DECODES = ("real_component", "real_imag_avg")
_QUICK = 10
MATCHES = ("kl", "displacement", "none")


@dataclass(frozen=True)
class Plan:
    """One run.

    preset: names, widths, schedule (`cogit.presets`). model: folder, hub id or GGUF file; None is
    the preset's, or the shipped demo model for ``tiny``. pairs, prompts, neutral, judge: of the
    user; empty ones are those of the demo grammar on the demo model, else the packaged ones.
    layers: candidates, as ``LayerRange`` reads them; preset_layers: those of the preset, at the
    same relative depth. q: of the encoded states; None keeps the preset's ratio to the width.
    prompts_per_class, epochs: None are the preset's. calibration_pairs, held_out_pairs: at most so
    many of the others. angle, gain: None lets the choice try several.
    strength: None takes the chosen one; else a multiple of it (for born-adam, the blend).
    strengths: of the continuations of the generate phase, likewise; empty is the default set.
    eval_seeds: replicates of each prompt; empty is two for presets of ten pairs, which are meant
    for a quick look, and four for others. match, prompts, draws and resamples of the evaluation:
    see `cogit.evaluation`.
    """

    preset: str = "tiny"
    model: str | None = None
    backend: str = "transformers"
    device: str = "auto"
    dtype: str = "f32"
    threads: int | None = None
    pairs: tuple[str, ...] = ()
    prompts: str | None = None
    neutral: str | None = None
    judge: str | None = None
    method: str = "plane"
    layers: str | None = None
    preset_layers: bool = False
    q: int | None = None
    k: int = 4
    tail: int = 4
    prompts_per_class: int | None = None
    calibration_pairs: int = 24
    held_out_pairs: int = 40
    epochs: int | None = None
    shuffled_fits: int = 4
    angle: float | None = None
    gain: float | None = None
    decode: str = "real_component"
    strength: float | None = None
    kl_budget: float = 0.02
    nll_budget: float = 0.005
    min_fidelity: float = 0.85
    max_tokens: int = 25
    temperature: float = 0.8
    top_k: int = 50
    stop_at_eos: bool = True
    strengths: tuple[float, ...] = ()
    examples: int = 8
    match: str = "kl"
    eval_seeds: tuple[int, ...] = ()
    test_prompts: int = 48
    calibration_prompts: int = 24
    neutral_prompts: int = 40
    n_random: int = 20
    n_same_subspace: int = 8
    resamples: int = 2000
    reverse_draws: int = 8
    seed: int | None = None

    def __post_init__(self) -> None:
        for name, kind in _KINDS.items():
            value = _as_kind(name, getattr(self, name), kind)
            object.__setattr__(self, name, value)
        chosen = preset(self.preset)
        if self.seed is None:
            object.__setattr__(self, "seed", chosen.seed)
        if not self.eval_seeds:
            n_seeds = 2 if chosen.prompts_per_class <= _QUICK else 4
            object.__setattr__(self, "eval_seeds", tuple(range(42, 42 + n_seeds)))
        self._require_words()
        self._require_numbers()

    @property
    def base(self) -> Preset:
        return preset(self.preset)

    @property
    def n_pairs(self) -> int:
        """How many pairs are recorded to fit on."""
        given = self.prompts_per_class
        return self.base.prompts_per_class if given is None else given

    @property
    def n_epochs(self) -> int:
        return self.base.epochs if self.epochs is None else self.epochs

    @property
    def chosen_seed(self) -> int:
        assert self.seed is not None  # set on making
        return self.seed

    @property
    def trains(self) -> bool:
        """Whether a unitary is trained on encoded states, as the source system does."""
        return self.method == "born-adam"

    def to_json(self) -> dict[str, Any]:
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """ValueError for an unknown key, naming the nearest ones, and for a value of another type.

        Keys may have dashes, as the flags have.
        """
        return cls(**named(data))

    def with_changes(self, changes: Mapping[str, Any]) -> Self:
        """The same plan with some fields replaced; errors as of ``from_json``."""
        return replace(self, **named(changes))

    def _require_words(self) -> None:
        for name, allowed in (
            ("method", METHODS),
            ("backend", BACKENDS),
            ("decode", DECODES),
            ("match", MATCHES),
            ("dtype", ("f32", "bf16", "f16")),
        ):
            if getattr(self, name) not in allowed:
                _refuse(name, f"one of {', '.join(allowed)}", getattr(self, name))
        if self.layers is not None:
            from cogit.layers import LayerRange

            LayerRange.parse(self.layers)
            if self.preset_layers:
                message = (
                    "[pipeline] expected layers or preset_layers, got both; leave one of them out"
                )
                raise ValueError(message)
        if self.decode != "real_component" and not self.trains:
            _refuse("decode", "no decode without the method born-adam", self.decode)
        if self.q is not None and not self.trains:
            _refuse("q", "no q without the method born-adam, which alone encodes states", self.q)
        if self.epochs is not None and not self.trains:
            _refuse("epochs", "no epochs without the method born-adam", self.epochs)
        for name in ("angle", "gain"):
            if getattr(self, name) is not None and self.trains:
                _refuse(name, f"no {name} with the method born-adam", getattr(self, name))

    def _require_numbers(self) -> None:
        # Fewer could not reach p = .05, or not be split.
        least = {"prompts_per_class": 4, "test_prompts": 4, "calibration_prompts": 2}
        least |= {"calibration_pairs": 2, "held_out_pairs": 5}
        least |= dict.fromkeys(("q", "k", "tail", "epochs", "shuffled_fits", "examples"), 1)
        least |= dict.fromkeys(("max_tokens", "neutral_prompts", "reverse_draws", "threads"), 1)
        least |= {"n_random": 1, "n_same_subspace": 0, "resamples": 100, "seed": 0, "top_k": 0}
        for name, value in least.items():
            found = getattr(self, name)
            if found is not None and not value <= found < 2**31:
                _refuse(name, f"{value} or more", found)
        for name in ("kl_budget", "nll_budget", "temperature"):
            if not 0 <= getattr(self, name) < math.inf:
                _refuse(name, "0 or more", getattr(self, name))
        for name in ("angle", "gain", "strength"):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value > 0):
                _refuse(name, "a number above 0; both directions are run anyway", value)
        if not 0 <= self.min_fidelity < 1:
            _refuse("min_fidelity", "0 or more and below 1", self.min_fidelity)
        if not all(math.isfinite(one) and one > 0 for one in self.strengths):
            _refuse("strengths", "numbers above 0; both directions are run anyway", self.strengths)
        seeds = self.eval_seeds
        if len(set(seeds)) != len(seeds) or min(seeds) < 0:
            _refuse("eval_seeds", "different seeds of 0 or more", seeds)


def named(data: Mapping[str, Any]) -> dict[str, Any]:
    """The same with underscores; ValueError for what is no field of a plan."""
    known = [field.name for field in fields(Plan)]
    found: dict[str, Any] = {}
    for key, value in data.items():
        name = str(key).replace("-", "_")
        if name not in known:
            message = f"[pipeline] expected a setting of the pipeline, got {key!r}{nearest(key)}"
            raise ValueError(message)
        found[name] = value
    return found


def nearest(key: object, known: list[str] | None = None) -> str:
    """Words for an error: the names that come closest, or all of them."""
    names = [field.name for field in fields(Plan)] if known is None else known
    close = difflib.get_close_matches(str(key).replace("-", "_"), names, n=3, cutoff=0.5)
    return f"; did you mean {' or '.join(close)}?" if close else f"; known are {', '.join(names)}"


def _refuse(name: str, expected: str, found: object) -> None:
    message = f"[pipeline] expected {name}: {expected}; got {found!r}"
    raise ValueError(message)


def _as_kind(name: str, value: Any, kind: Any) -> Any:
    """The value as its field's type: lists become tuples, whole numbers serve as numbers."""
    if get_origin(kind) in (Union, types.UnionType):
        if value is None:
            return None
        kind = next(one for one in get_args(kind) if one is not type(None))
    if get_origin(kind) is tuple:
        item = get_args(kind)[0]
        values = value if isinstance(value, list | tuple) else [value]
        return tuple(_as_kind(name, one, item) for one in values)
    if kind is float and type(value) is int:
        return float(value)
    if type(value) is not kind:
        _refuse(name, f"a value of type {kind.__name__}", value)
    return value


_KINDS = get_type_hints(Plan)
