"""The parts of an evaluation report: arms, comparisons, doses, samples, tokens.

A number is finite or null, and an absent number is a null: not measured. Shares lie in [0, 1];
differences of shares are in percentage points (``_pp``); divergences in nats per token.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue

Role = Literal[
    "baseline",
    "learned",
    "sign_flipped",
    "identity",
    "strength_zero",
    "additive",
    "shuffled",
    "random",
    "random_same_subspace",
    "diagonal",
    "prompt_only",
    "prompt_and_steer",
    "source",
]
Name = Annotated[str, Field(min_length=1, max_length=300)]
Line = Annotated[str, Field(max_length=5_000)]
Text = Annotated[str, Field(max_length=200_000)]
Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(ge=0)]
Points = Annotated[float, Field(ge=-1000, le=1000)]
Count = Annotated[int, Field(ge=0)]
Sign = Annotated[
    int, Field(ge=-1, le=1, description="target class, 1 or -1; 0 where there is none")
]


class Part(BaseModel):
    """Strict: no unknown key, no string for a number, no infinity."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class Interval(Part):
    """A mean with its 95 % interval, in percentage points."""

    mean: Points = Field(description="the estimate")
    low: Points = Field(description="lower end of its 95 % interval")
    high: Points = Field(description="upper end of its 95 % interval")


class Match(Part):
    """How the strength of an arm was set, on prompts used for nothing else."""

    by: Name = Field(description="what was made equal: kl or displacement")
    target: float | None = Field(default=None, description="the value aimed at")
    reached: float | None = Field(default=None, description="the value reached")
    exact: bool = Field(description="whether it was reached; false where no strength does")


class Arm(Part):
    """One way to steer, or a control, measured on the held-out prompts."""

    name: Name = Field(description="name of the arm; the draws of one control may share it")
    role: Role = Field(description="what the arm is for")
    draw: Count | None = Field(default=None, description="number of a random draw, else null")
    strength: float | None = Field(default=None, description="strength it was applied at")
    match: Match | None = Field(default=None, description="how that strength was chosen")
    n_prompts: Count = Field(description="held-out prompts")
    n_samples: Count = Field(description="continuations: prompts, seeds and directions")
    positive_rate: dict[Literal["+1", "-1"], Share | None] = Field(
        default_factory=dict, description="share judged positive when steered to each class"
    )
    success: Share | None = Field(default=None, description="share that took the target's class")
    score: float | None = Field(default=None, description="mean judge score, in [-1, 1]")
    lift_pp: Interval | None = Field(default=None, description="success minus the baseline's")
    override_pp: Interval | None = Field(
        default=None, description="the same where the context says the opposite"
    )
    p: Share | None = Field(default=None, description="permutation p-value of the lift")
    p_holm: Share | None = Field(default=None, description="p corrected by Holm over the arms")
    mcnemar_p: Share | None = Field(default=None, description="McNemar's exact p-value")
    cohen_h: float | None = Field(default=None, description="effect size h of two shares")
    anti_steered: Share | None = Field(
        default=None, description="share of prompts moved away from the target"
    )
    perplexity: Positive | None = Field(
        default=None, description="of the continuations, under the unsteered model"
    )
    perplexity_ratio: Positive | None = Field(
        default=None, description="that over the baseline's; above 1 is a cost"
    )
    neutral_kl: float | None = Field(
        default=None, description="divergence from the unsteered model on neutral texts"
    )
    text_kl: float | None = Field(default=None, description="the same along generated texts")
    repetition: Share | None = Field(default=None, description="share of repeated n-grams")
    drift_pp: Interval | None = Field(
        default=None, description="change of the judged share on neutral prompts"
    )
    relevance: float | None = Field(default=None, description="likeness of text and prompt")
    capability: float | None = Field(
        default=None, description="next-token accuracy on neutral texts over the unsteered one"
    )
    displacement: Positive | None = Field(
        default=None, description="mean |h' − h| / |h| at the steered blocks"
    )


class Comparison(Part):
    """Two arms on the same prompts and seeds."""

    one: Name = Field(description="arm")
    other: Name = Field(description="arm that is subtracted")
    lift_pp: Interval | None = Field(default=None, description="difference on open prompts")
    override_pp: Interval | None = Field(default=None, description="on opposite contexts")
    p: Share | None = Field(default=None, description="permutation p-value")
    p_holm: Share | None = Field(default=None, description="p corrected by Holm")
    mcnemar_p: Share | None = Field(default=None, description="McNemar's exact p-value")


class DosePoint(Part):
    """What one strength did."""

    strength: float = Field(description="strength, in multiples of the arm's own where so set")
    share_positive: Share = Field(description="share of continuations judged positive")
    low: Share | None = Field(default=None, description="lower end of its 95 % interval")
    high: Share | None = Field(default=None, description="upper end of its 95 % interval")
    perplexity_ratio: Positive | None = Field(default=None, description="its cost")


class Slope(Part):
    """Change of the share per unit of strength."""

    mean: float = Field(description="the estimate")
    low: float = Field(description="lower end of its 95 % interval")
    high: float = Field(description="upper end of its 95 % interval")
    unit: Line = Field(default="points per unit of strength", description="unit of the slope")


class Dose(Part):
    """Dose-response of one arm."""

    points: list[DosePoint] = Field(description="by rising strength")
    slope: Slope | None = Field(default=None, description="fitted slope with its interval")
    spearman: float | None = Field(
        default=None, ge=-1, le=1, description="rank correlation of strength and share"
    )


class Power(Part):
    """What the number of prompts could have shown."""

    n_prompts: Count | None = Field(default=None, description="prompts of the evaluation")
    discordance: float | None = Field(
        default=None, description="share of prompts judged differently with and without steering"
    )
    detectable_pp: float | None = Field(default=None, description="lift found with 80 % power")
    power_at_threshold: Share | None = Field(
        default=None, description="power for a lift at the threshold"
    )
    n_for_80: Count | None = Field(default=None, description="prompts for 80 % at the threshold")


class Criterion(Part):
    """One condition of the verdict."""

    name: Line = Field(description="the condition")
    holds: bool | None = Field(description="whether it holds; null where it was not measured")
    found: Line | None = Field(default=None, description="what was found")
    expected: Line | None = Field(default=None, description="what was asked for")
    decides: bool = Field(description="whether the verdict depends on it")


class Condition(Part):
    """One of five conditions in short."""

    positive_rate: Share | None = Field(default=None, description="share judged positive")
    avg_sentiment_score: float | None = Field(default=None, description="mean judge score")
    avg_perplexity: Positive | None = Field(default=None, description="mean perplexity")
    lift_vs_baseline: float | None = Field(default=None, description="points over the baseline")
    lift_ci_vs_baseline: list[float] | None = Field(
        default=None, min_length=2, max_length=2, description="its 95 % interval"
    )
    lift_vs_random: float | None = Field(default=None, description="points over random controls")
    lift_ci_vs_random: list[float] | None = Field(
        default=None, min_length=2, max_length=2, description="its 95 % interval"
    )


class Record(Part):
    """One continuation with its judgement."""

    arm: Name = Field(description="name of the arm")
    draw: Count | None = Field(default=None, description="number of a random draw, else null")
    sign: Sign = Field(default=0)
    seed: int | None = Field(default=None, description="seed of the sampling")
    prompt: Text = Field(description="the prompt")
    text: Text = Field(description="what the model wrote")
    score: float | None = Field(default=None, description="judge score, in [-1, 1]")


class Token(Part):
    """One token and how far steering moved its state."""

    text: Line = Field(description="the token as text")
    generated: bool = Field(description="false for a token of the prompt")
    change: Positive | None = Field(
        default=None, description="|h' − h| / |h| at the steered blocks; 0 where nothing acts"
    )


class TokenView(Part):
    """The tokens of one prompt and its continuation."""

    arm: Name = Field(description="name of the arm")
    sign: Sign = Field(default=0)
    prompt: Text = Field(description="the prompt")
    layers: list[Count] = Field(default_factory=list, description="steered blocks, from 0")
    tokens: list[Token] = Field(description="in order")


class LayerScore(Part):
    """How far the classes differ at one block."""

    layer: Count = Field(description="block, from 0")
    gap: float | None = Field(default=None, description="separation of the classes")
    p: Share | None = Field(default=None, description="permutation p-value")
    p_holm: Share | None = Field(default=None, description="p corrected by Holm over the blocks")


class Intervention(Part):
    """What steered."""

    description: Line = Field(description="in words")
    hash: Name | None = Field(default=None, description="content hash")
    layers: list[Count] = Field(default_factory=list, description="steered blocks, from 0")
    strength: float | None = Field(default=None, description="strength as saved")
    operators: list[JsonValue] = Field(default_factory=list, description="facts of each operator")
