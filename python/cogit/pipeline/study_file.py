"""Study files: experiments and sweeps over settings of the pipeline, in TOML or JSON.

    name = "strengths"
    [base]
    preset = "tiny"
    [[experiment]]
    name = "plane"
    method = "plane"
    [experiment.sweep]
    strength = [0.5, 1.0]
    [sweep]
    seed = [1, 2]

Each experiment is run for every combination of its own sweep and the file's; ``base`` holds for
all. Without an experiment, ``base`` is the only one. Names are those of `cogit.pipeline.plan.Plan`.
"""

from __future__ import annotations

import itertools
import json
import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from cogit.evaluation.judges.spec import judge_place
from cogit.pipeline.lineage import fingerprint
from cogit.pipeline.plan import Plan, named, nearest
from cogit.run_inputs import describe_inputs

_TOP = ("name", "base", "experiment", "sweep")
_MAX_FILE, _MAX_TRIALS = 2**20, 1000


@dataclass(frozen=True)
class Trial:
    """One run of a study. changes: what differs from ``base``, for tables."""

    name: str
    plan: Plan
    changes: Mapping[str, Any]

    @cached_property
    def key(self) -> str:
        """Digits that stand for the plan and for what its files of texts hold now.

        The same trial in a changed study file is the same; on changed texts it is another one.
        """
        plan = self.plan
        given = {"pairs": plan.pairs, "prompts": plan.prompts, "neutral": plan.neutral}
        described = describe_inputs({**given, "judge": judge_place(plan.judge)})
        files = {
            flag: [one["files"] for one in parts if one.get("files")]
            for flag, parts in described.items()
        }
        files = {flag: parts for flag, parts in files.items() if parts}
        return fingerprint(plan.to_json() | ({"files": files} if files else {}))


def load_study(path: Path, base: Mapping[str, Any] | None = None) -> list[Trial]:
    """The trials of a file, in its order. base: settings that the file overrides.

    Raises FileNotFoundError, or ValueError for what is no study, unknown keys (naming the nearest
    ones), values that no plan can have, two equal trials, and more than 1000.
    """
    data = _read(path)
    _known(data, _TOP, str(path))
    common = {**(base or {}), **named(_table(data, "base"))}
    shared = _sweep(_table(data, "sweep"))
    experiments = data.get("experiment", [{"name": "base"}])
    if not isinstance(experiments, list) or not experiments:
        message = f"[study] expected [[experiment]] tables in {path}, got {experiments!r:.60}"
        raise ValueError(message)
    found: list[Trial] = []
    for number, one in enumerate(experiments):
        found += _expand(one, number, common, shared)
        if len(found) > _MAX_TRIALS:
            message = f"[study] expected at most {_MAX_TRIALS} trials in {path}; make it smaller"
            raise ValueError(message)
    seen: dict[str, str] = {}
    for trial in found:
        if trial.key in seen:
            message = (
                f"[study] expected different trials in {path}, got {seen[trial.key]!r} and "
                f"{trial.name!r} with the same settings"
            )
            raise ValueError(message)
        seen[trial.key] = trial.name
    return found


def _expand(
    data: Any, number: int, common: Mapping[str, Any], shared: Mapping[str, list[Any]]
) -> list[Trial]:
    if not isinstance(data, dict):
        message = f"[study] expected a table for experiment {number + 1}, got {data!r:.60}"
        raise ValueError(message)
    settings = dict(data)
    title = settings.pop("name", f"experiment {number + 1}")
    if not isinstance(title, str) or not title.strip():
        message = f"[study] expected a name for experiment {number + 1}, got {title!r}"
        raise ValueError(message)
    own = named({k: v for k, v in settings.items() if k != "sweep"})
    grid = {**shared, **_sweep(_table(settings, "sweep"))}
    if math.prod(len(values) for values in grid.values()) > _MAX_TRIALS:
        message = f"[study] expected at most {_MAX_TRIALS} trials of {title!r}; make it smaller"
        raise ValueError(message)
    trials = []
    for values in itertools.product(*grid.values()):
        changes = {**own, **dict(zip(grid, values, strict=True))}
        words = ", ".join(f"{k} {v}" for k, v in zip(grid, values, strict=True))
        try:
            plan = Plan(**{**common, **changes})
        except ValueError as error:
            message = f"[study] experiment {title!r}: {error}"
            raise ValueError(message) from error
        trials.append(Trial(f"{title}: {words}" if words else title, plan, changes))
    return trials


def _sweep(data: Mapping[str, Any]) -> dict[str, list[Any]]:
    found = named(data)
    for name, values in found.items():
        if not isinstance(values, list) or not values:
            message = f"[study] expected a list of values for sweep.{name}, got {values!r:.60}"
            raise ValueError(message)
    return found


def _table(data: Mapping[str, Any], name: str) -> dict[str, Any]:
    found = data.get(name, {})
    if not isinstance(found, dict):
        message = f"[study] expected a table {name}, got {found!r:.60}"
        raise ValueError(message)
    return found


def _known(data: Mapping[str, Any], known: tuple[str, ...], where: str) -> None:
    for key in data:
        if key not in known:
            message = f"[study] expected {', '.join(known)} in {where}, got {key!r}"
            raise ValueError(message + nearest(key, list(known)))


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        message = f"[study] expected a file, got {path}, which does not exist"
        raise FileNotFoundError(message)
    if path.stat().st_size > _MAX_FILE:
        message = f"[study] {path} is larger than {_MAX_FILE // 2**20} MiB"
        raise ValueError(message)
    try:
        text = path.read_text(encoding="utf-8")
        found = json.loads(text) if path.suffix.lower() == ".json" else tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        message = f"[study] expected TOML, or JSON in a .json file, in {path}, got: {error}"
        raise ValueError(message) from error
    if not isinstance(found, dict):
        message = f"[study] expected a table in {path}, got {type(found).__name__}"
        raise ValueError(message)
    return found
