"""A made-up evaluation report, drawn from a seed: every part filled, nulls where they occur."""

from __future__ import annotations

import random
from typing import Any

OPENINGS = ("the soup was", "our room was", "the driver seemed", "that concert felt", "her coat is")
WORDS = {
    1: ("lovely", "warm and kind", "a quiet delight", "better than hoped", "generous"),
    -1: ("dreadful", "cold and rude", "a long bore", "worse than feared", "stingy"),
}
FACTS = ("iron melts at", "the river passes", "a week has", "copper carries")
N_PROMPTS = 72


def interval(mean: float, half: float) -> dict[str, float]:
    return {"mean": round(mean, 3), "low": round(mean - half, 3), "high": round(mean + half, 3)}


def arm(role: str, lift: float, rng: random.Random, **changes: Any) -> dict[str, Any]:
    """One arm with everything measured, around its lift."""
    success = min(0.98, max(0.02, 0.458 + lift / 100))
    kl = abs(rng.gauss(0.0042, 0.0016)) + 1e-4
    made: dict[str, Any] = {
        "name": role,
        "role": role,
        "draw": None,
        "strength": 1.0,
        "match": {"by": "kl", "target": 0.01, "reached": 0.0101, "exact": True},
        "n_prompts": N_PROMPTS,
        "n_samples": 8 * N_PROMPTS,
        "positive_rate": {"+1": round(success, 4), "-1": round(1 - success, 4)},
        "success": round(success, 4),
        "score": round(2 * success - 1, 4),
        "lift_pp": interval(lift, 4.6),
        "override_pp": interval(1.7 * lift, 8.0),
        "p": 0.0005 if lift > 20 else round(rng.uniform(0.05, 0.9), 4),
        "p_holm": 0.001 if lift > 20 else round(rng.uniform(0.3, 1.0), 4),
        "mcnemar_p": 3.1e-9 if lift > 20 else round(rng.uniform(0.1, 0.9), 4),
        "cohen_h": round(lift / 45, 4),
        "anti_steered": round(max(0.0, rng.gauss(0.09 - lift / 800, 0.02)), 4),
        "perplexity": round(rng.gauss(12.3, 0.4), 3),
        "perplexity_ratio": round(1 + abs(rng.gauss(0.05, 0.03)), 4),
        "neutral_kl": round(kl, 6),
        "text_kl": round(4.1 * kl, 6),
        "repetition": round(abs(rng.gauss(0.02, 0.006)), 4),
        "drift_pp": interval(rng.gauss(0.4, 1.0), 2.2),
        "relevance": round(rng.gauss(0.83, 0.01), 4),
        "capability": round(min(1.0, rng.gauss(0.985, 0.008)), 4),
        "displacement": round(abs(rng.gauss(0.21, 0.02)), 4),
    }
    return made | changes


def still(role: str, rng: random.Random) -> dict[str, Any]:
    """An arm that changes nothing at all."""
    zero = interval(0, 0)
    exact = {"lift_pp": zero, "override_pp": zero, "drift_pp": zero, "p": None, "p_holm": None}
    costs = {"mcnemar_p": None, "cohen_h": 0.0, "anti_steered": 0.0, "match": None}
    kept = {"perplexity": 11.9, "perplexity_ratio": 1.0, "neutral_kl": 0.0, "text_kl": 0.0}
    rest = {"relevance": 0.84, "capability": 1.0, "displacement": 0.0, "repetition": 0.014}
    return arm(role, 0.0, rng, **exact, **costs, **kept, **rest)


def arms(rng: random.Random, lift: float) -> list[dict[str, Any]]:
    made = [still("baseline", rng) | {"strength": None}]
    made.append(arm("learned", lift, rng, override_pp=interval(2 * lift, 7.0)))
    made.append(arm("additive", 0.96 * lift, rng, override_pp=interval(1.3 * lift, 9.5)))
    made.append(arm("sign_flipped", -lift, rng))
    made += [still(role, rng) for role in ("identity", "strength_zero")]
    for role, n, width in (("random", 20, 7.0), ("random_same_subspace", 8, 15.0)):
        for i in range(n):
            made.append(arm(role, rng.gauss(-1, width), rng, name=f"{role}_{i}", draw=i))
    made += [arm("shuffled", rng.gauss(0, 5), rng, name=f"shuffled_{i}", draw=i) for i in range(4)]
    nothing = {"neutral_kl": None, "text_kl": None, "displacement": None, "match": None}
    made.append(arm("prompt_only", 22.0, rng, strength=None, override_pp=None, **nothing))
    made.append(arm("prompt_and_steer", min(lift + 4, 50), rng, override_pp=None))
    made.append(arm("source", 0.7, rng, capability=None, relevance=None))
    return made


def dose(rng: random.Random, slope: float) -> dict[str, Any]:
    points = []
    for strength in (-1.5, -1.0, -0.5, 0.0, 0.5, 1.0, 1.5):
        share = min(0.97, max(0.03, 0.5 + slope * strength + rng.gauss(0, 0.015)))
        points.append(
            {
                "strength": strength,
                "share_positive": round(share, 4),
                "low": round(max(0.0, share - 0.06), 4),
                "high": round(min(1.0, share + 0.06), 4),
                "perplexity_ratio": round(1 + 0.05 * strength**2, 4),
            }
        )
    middle = round(100 * slope, 2)
    unit = "points per unit of strength"
    fitted = {"mean": middle, "low": middle - 4.2, "high": middle + 4.2, "unit": unit}
    return {"points": points, "slope": fitted, "spearman": 1.0}


def records(rng: random.Random) -> list[dict[str, Any]]:
    made = []
    for number in range(12):
        prompt = OPENINGS[number % len(OPENINGS)]
        for name, sign in (("baseline", 0), ("learned", 1), ("learned", -1), ("additive", 1)):
            for seed in (42, 43):
                side = sign or rng.choice((1, -1))
                made.append(
                    {
                        "arm": name,
                        "sign": sign,
                        "seed": seed,
                        "prompt": f"{prompt} ({number})" if number >= 5 else prompt,
                        "text": f" {rng.choice(WORDS[side])} and we said so.",
                        "score": round(side * rng.uniform(0.2, 0.9), 3),
                    }
                )
    return made


def neutral_records(rng: random.Random) -> list[dict[str, Any]]:
    return [
        {
            "arm": name,
            "sign": 1,
            "seed": 42,
            "prompt": prompt,
            "text": f" {rng.randrange(2, 90)} of them.",
            "score": None,
        }
        for prompt in FACTS
        for name in ("baseline", "learned")
    ]


def tokens(rng: random.Random, sign: int) -> dict[str, Any]:
    prompt = "the soup was"
    text = f"{prompt} {WORDS[sign][1]} and we said so at once."
    found = []
    for i, word in enumerate(text.split()):
        change = 0.0 if i == 0 else round(abs(rng.gauss(0.21, 0.09)), 4)
        written = word if i == 0 else f" {word}"
        found.append({"text": written, "generated": i >= 3, "change": change})
    return {"arm": "learned", "sign": sign, "prompt": prompt, "layers": [2], "tokens": found}


def example(seed: int = 0, *, lift: float = 45.8, **changes: Any) -> dict[str, Any]:
    """A whole report; a small lift gives one that finds no effect."""
    rng = random.Random(seed)
    found = lift > 20
    made: dict[str, Any] = {
        "format": "cogit evaluation",
        "format_version": 1,
        "title": "Kinder replies, held-out reviews",
        "backend": "transformers",
        "model": {
            "name": "demo",
            "architecture": "LlamaForCausalLM",
            "hash": "5c1f09a2e4d7",
            "revision": None,
            "n_layers": 4,
        },
        "intervention": {
            "description": "unitary rotation by 60° in (reference, mean difference)",
            "hash": "9b04c7d1f2a6e8b35d40",
            "layers": [2],
            "strength": 1.0,
            "operators": [{"layer": 2, "kind": "unitary", "rank": 1, "restores_norm": False}],
        },
        "settings": {
            "seeds": [42, 43, 44, 45],
            "match": "kl",
            "resamples": 2000,
            "judge": {"name": "lexicon", "hash": "77aa12", "decides": "count of listed words"},
            "sampling": {"max_tokens": 16, "temperature": 1.0, "top_k": 0, "top_p": 1.0},
            "thresholds": {"lift_pp": 10.0, "drift_pp": 3.0, "perplexity_ratio": 1.5},
        },
        "facts": {"separation_gap": 0.0812, "fidelity_to_positive": 0.9714, "transport": None},
        "arms": arms(rng, lift),
        "comparisons": [
            {
                "one": "learned",
                "other": "additive",
                "lift_pp": interval(0.04 * lift, 3.5),
                "override_pp": interval(0.7 * lift, 10.0),
                "p": 0.41,
                "mcnemar_p": 0.37,
            },
            {"one": "learned", "other": "random", "lift_pp": interval(lift, 5.0), "p": 0.0005},
        ],
        "dose": {"learned": dose(rng, lift / 120), "additive": dose(rng, lift / 140)},
        "power": {
            "n_prompts": N_PROMPTS,
            "discordance": 0.31,
            "detectable_pp": 9.1,
            "power_at_threshold": 0.93,
            "n_for_80": 60,
        },
        "criteria": criteria(lift),
        "verdict": "effect" if found else "no effect",
        "reasons": reasons(lift),
        "summary": summary(lift),
        "records": records(rng),
        "neutral_records": neutral_records(rng),
        "tokens": [tokens(rng, 1), tokens(rng, -1)],
        "layers": [
            {"layer": 0, "gap": 0.004, "p": 0.62},
            {"layer": 1, "gap": 0.031, "p": 0.04},
            {"layer": 2, "gap": 0.081, "p": 0.0005},
            {"layer": 3, "gap": 0.066, "p": None},
        ],
    }
    return made | changes


def criteria(lift: float) -> list[dict[str, Any]]:
    found = lift > 20
    rows: list[tuple[str, bool | None, str | None, str, bool]] = [
        ("lift", found, f"{lift:+.1f} [{lift - 4.6:.1f}, {lift + 4.6:.1f}]", "≥ 10, low > 0", True),
        ("above every random control", found, "strongest of 28: +19.4", "none reaches it", True),
        ("permutation p, Holm", found, "0.001" if found else "0.62", "< 0.05", True),
        ("identity and strength 0", True, "both exact", "change nothing", True),
        ("neutral drift", True, "+0.4 points", "≤ 3 points", True),
        ("perplexity ratio", True, "1.067", "< 1.5", True),
        ("separation gap", True, "8.1 %", "≥ 5 %", False),
        ("relevance", None, None, "> 0.7", False),
    ]
    return [
        {"name": name, "holds": holds, "found": seen, "expected": wanted, "decides": decides}
        for name, holds, seen, wanted, decides in rows
    ]


def reasons(lift: float) -> list[str]:
    if lift > 20:
        return [
            f"lift {lift:+.1f} points, and no random control of 28 reaches it",
            "within the budget: perplexity ratio 1.067, neutral drift +0.4 points",
        ]
    return [f"lift {lift:+.1f} points is below 10", "3 of 28 random controls lift as much or more"]


def summary(lift: float) -> dict[str, Any]:
    def row(rate: float, **more: Any) -> dict[str, Any]:
        return {
            "positive_rate": round(rate, 4),
            "avg_sentiment_score": round(2 * rate - 1, 4),
            "avg_perplexity": 12.1,
            **more,
        }

    def against(value: float) -> dict[str, Any]:
        ends = [value - 4.6, value + 4.6]
        vs_random = {"lift_vs_random": value, "lift_ci_vs_random": ends}
        return {"lift_vs_baseline": value, "lift_ci_vs_baseline": ends, **vs_random}

    return {
        "baseline": row(0.5),
        "learned_to_positive": row(0.5 + lift / 110, **against(lift)),
        "learned_to_negative": row(0.5 - lift / 110, **against(-lift)),
        "random_a": row(0.47),
        "random_b": row(0.52),
    }


HOSTILE = (
    "</script><script>document.title='owned'</script><img src=http://example.invalid/x onerror=x()>"
    "\x00\x1b[31m\x7f\x85 \u202egnp.exe\u202c \u2066x\u2069 \u200b\ufeff \"quoted\" 'single' & ]]>"
    " --> "
    "`code` | pipe [link](http://example.invalid) ![](http://example.invalid/y) שלום مرحبا 漢字 😀"
)


def hostile() -> dict[str, Any]:
    """A valid report whose every text tries to be more than text, and some words are long."""
    made = _spoil(example(), "")
    made["records"][0]["text"] = "w" * 5000
    made["title"] = HOSTILE
    assert isinstance(made, dict)
    return made


_KEPT = {"format", "role", "verdict", "unit", "by"}


def _spoil(value: Any, key: str) -> Any:
    if isinstance(value, dict):
        spoilt = {name: _spoil(part, name) for name, part in value.items()}
        return {HOSTILE: 1, **spoilt} if key in ("settings", "model", "facts") else spoilt
    if isinstance(value, list):
        return [_spoil(part, key) for part in value]
    if isinstance(value, str) and key not in _KEPT:
        return f"{value}{HOSTILE}"[:300] if key in ("name", "arm", "backend") else value + HOSTILE
    return value
