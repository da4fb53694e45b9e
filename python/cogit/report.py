"""Reports: effect, cost and controls side by side, as JSON, Markdown and plots."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cogit.artefact import write_bytes
from cogit.evaluation.evaluate import ArmResult
from cogit.evaluation.statistics import Interval
from cogit.evaluation.verdict import Verdict
from cogit.figures import image_bytes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLOURS = {"unitary": "#1b6ca8", "additive": "#d1702a"}
_OTHER = "#777777"


@dataclass(frozen=True)
class BackendReport:
    """All arms on one backend.

    arms: name to one result, or to a list for random controls. paired: unitary minus additive.
    dose: operator name to (strength, share of positive continuations).
    """

    arms: Mapping[str, ArmResult | Sequence[ArmResult]]
    paired: Mapping[str, Interval]
    verdict: Verdict
    dose: Mapping[str, Sequence[tuple[float, float]]]

    def to_json(self) -> dict[str, Any]:
        return {
            "arms": {
                name: arm.to_json() if isinstance(arm, ArmResult) else [a.to_json() for a in arm]
                for name, arm in self.arms.items()
            },
            "unitary_minus_additive": {
                name: {"pp": gap.mean, "ci": [gap.low, gap.high]}
                for name, gap in self.paired.items()
            },
            "verdict": self.verdict.to_json(),
            "dose_response": {
                name: [{"strength": s, "share_positive": p} for s, p in points]
                for name, points in self.dose.items()
            },
        }


@dataclass(frozen=True)
class Report:
    """A whole evaluation: one BackendReport per backend and what was chosen before."""

    title: str
    backends: Mapping[str, BackendReport]
    chosen: Mapping[str, Any]
    samples: Sequence[Mapping[str, str]]
    seconds: float

    @property
    def verdict(self) -> str:
        """``effect`` only if every backend says so."""
        verdicts = {report.verdict.overall for report in self.backends.values()}
        return "effect" if verdicts == {"effect"} else "no effect"

    def to_json(self) -> dict[str, Any]:
        return {
            "title": self.title,
            "backends": {name: report.to_json() for name, report in self.backends.items()},
            "chosen": dict(self.chosen),
            "samples": [dict(sample) for sample in self.samples],
            "verdict": self.verdict,
        }

    def write(self, folder: Path) -> None:
        """report.json, report.md, dose_response.png and effect_versus_kl.png into ``folder``.

        Everything is made before anything is written, so that a failure leaves no half report.
        """
        files = {
            "report.json": json.dumps(self.to_json(), indent=2, allow_nan=False).encode(),
            "report.md": self.to_markdown().encode(),
            "dose_response.png": self._plot_dose(),
            "effect_versus_kl.png": self._plot_effect(),
        }
        for name, data in files.items():
            write_bytes(folder / name, data)

    def to_markdown(self) -> str:
        """The report as people read it."""
        parts = [f"# {self.title}", "", f"Verdict: **{self.verdict}**", ""]
        for key, value in self.chosen.items():
            parts.append(f"- {key}: {value}")
        for name, report in self.backends.items():
            parts += ["", f"## {name}", "", *markdown_table(report), ""]
            for label, gap in report.paired.items():
                parts.append(f"- unitary minus additive, {label}: {format_interval(gap)} points")
            parts += ["", f"Verdict: {report.verdict.overall}", ""]
            parts += [
                f"- [{'x' if c.holds else ' '}] {c.name}: {c.found}"
                for c in report.verdict.criteria
            ]
        parts += ["", "## Samples", ""]
        for sample in self.samples:
            parts.append(f"**{sample['prompt']}**")
            parts += [f"- {k}: {v}" for k, v in sample.items() if k != "prompt"] + [""]
        parts += ["![dose-response](dose_response.png)", ""]
        parts += ["![effect against cost](effect_versus_kl.png)", ""]
        return "\n".join(parts)

    def _plot_dose(self) -> bytes:
        figure, axes = _panels(len(self.backends))
        for axis, (name, report) in zip(axes, self.backends.items(), strict=True):
            for operator, points in report.dose.items():
                strengths, shares = zip(*points, strict=True)
                colour = _COLOURS.get(operator, _OTHER)
                axis.plot(strengths, [100 * s for s in shares], "o-", label=operator, color=colour)
            axis.set(title=name, xlabel="strength, 1 = as calibrated", ylim=(-3, 103))
            axis.axvline(0, color="#cccccc", zorder=0)
            axis.legend(frameon=False)
        axes[0].set_ylabel("positive continuations, %")
        return _png(figure)

    def _plot_effect(self) -> bytes:
        figure, axes = _panels(len(self.backends))
        for axis, (name, report) in zip(axes, self.backends.items(), strict=True):
            for arm, result in report.arms.items():
                _draw_arm(axis, arm, result)
            axis.axhline(0, color="#cccccc", zorder=0)
            axis.set(title=name, xlabel="KL on neutral text, nats per token")
        axes[0].set_ylabel("lift on open prompts, points")
        axes[-1].legend(frameon=False, fontsize=8)
        return _png(figure)


def rows_of(report: BackendReport) -> list[tuple[str, ...]]:
    """The table's cells: one row an arm, random controls pooled to their range."""
    rows: list[tuple[str, ...]] = []
    for name, arm in report.arms.items():
        if isinstance(arm, ArmResult):
            rows.append(
                (
                    name,
                    f"{100 * arm.success:.1f} %",
                    format_interval(arm.lift),
                    format_interval(arm.override),
                    f"{arm.perplexity_ratio:.3f}",
                    f"{arm.neutral_kl:.3f}",
                )
            )
            continue
        rows.append(
            (
                f"{name} ({len(arm)} draws)",
                f"{100 * sum(a.success for a in arm) / len(arm):.1f} %",
                _spread([a.lift.mean for a in arm]),
                _spread([a.override.mean for a in arm]),
                _spread([a.perplexity_ratio for a in arm], "{:.3f}"),
                _spread([a.neutral_kl for a in arm], "{:.3f}"),
            )
        )
    return rows


HEADER = ("arm", "success", "lift, points", "override, points", "perplexity ratio", "neutral KL")


def markdown_table(report: BackendReport) -> list[str]:
    """Lines of a Markdown table."""
    lines = [HEADER, tuple("---" for _ in HEADER), *rows_of(report)]
    return ["| " + " | ".join(cells) + " |" for cells in lines]


def format_interval(interval: Interval) -> str:
    """``+39.5 [36.5, 42.2]``."""
    if interval == Interval(0.0, 0.0, 0.0):
        return "0 exactly"
    return f"{interval.mean:+.1f} [{interval.low:.1f}, {interval.high:.1f}]"


def _spread(values: Sequence[float], form: str = "{:+.1f}") -> str:
    mean, low, high = (
        form.format(v) for v in (sum(values) / len(values), min(values), max(values))
    )
    return f"{mean} ({low} … {high})"


def _draw_arm(axis: Axes, name: str, result: ArmResult | Sequence[ArmResult]) -> None:
    if not isinstance(result, ArmResult):
        marker = "x" if name == "random_subspace" else "+"
        kl, lift = [a.neutral_kl for a in result], [a.lift.mean for a in result]
        axis.scatter(kl, lift, marker=marker, color=_OTHER, label=f"{name} ({len(result)})")
        return
    error = [[result.lift.mean - result.lift.low], [result.lift.high - result.lift.mean]]
    colour = _COLOURS.get(name, "#222222")
    axis.errorbar(
        result.neutral_kl, result.lift.mean, yerr=error, fmt="o", color=colour, label=name
    )


def _panels(n: int) -> tuple[Any, Sequence[Axes]]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.2 * n, 4.0), layout="constrained")
    axes = figure.subplots(1, n, sharey=True, squeeze=False)[0]
    return figure, axes


def _png(figure: Any) -> bytes:
    return image_bytes(figure)
