"""``cogit prompts``: look at texts before they are used, and check that two classes are fair."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cogit.cli.console import print_json, say

if TYPE_CHECKING:
    from cogit.stimuli import StimulusReport

NAME = "prompts"
FAILED = 1

app = typer.Typer(help="Look at prompts and contrast pairs, and check them.")

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
Pairs = Annotated[
    str | None,
    typer.Option(
        help="Contrast pairs: JSONL or CSV file; two text files as a.txt,b.txt; "
        "packaged:pairs_sentiment; dataset:NAME?split=…"
    ),
]
_SOURCE = "text, JSONL or CSV (column prompt) file; packaged:NAME; dataset:NAME?split=…&column=…"


@app.command("check")
def check(
    positive: Annotated[
        str | None, typer.Argument(help=f"Texts of one class: {_SOURCE}", show_default=False)
    ] = None,
    negative: Annotated[
        str | None, typer.Argument(help="Texts of the other, likewise.", show_default=False)
    ] = None,
    pairs: Pairs = None,
    explicit: Annotated[
        Path | None,
        typer.Option(
            help="Words that name the concept outright, one a line.",
            show_default="words of sentiment: VADER's, of absolute valence 2 or more",
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Draws the folds of the structural check.")] = 0,
    json_output: Json = False,
) -> None:
    """Check that two classes differ in what they say and in nothing else.

    Counts within 5; mean lengths within a word; first words within 15 %; explicit words in fewer
    than 30 % of the texts; form alone tells the class by less than .10 above chance (a warning from
    .05); duplicates; texts in both classes. Exit code 0 where no check fails, 1 where one does.
    """
    if (pairs is None) == (positive is None) or (positive is None) != (negative is None):
        message = "[prompts] expected POSITIVE and NEGATIVE, or --pairs instead; give one of them"
        raise ValueError(message)
    from cogit.stimuli import ExplicitWords, check_stimuli

    listed = ExplicitWords.read(explicit) if explicit is not None else ExplicitWords.vader()
    if pairs is not None:
        from cogit.pairs import load_pairs

        texts = [pair.texts for pair in load_pairs(pairs)]
        both = [one for one, _ in texts], [other for _, other in texts]
    else:
        from cogit.prompts import load_prompts

        both = load_prompts(str(positive)), load_prompts(str(negative))
    report = check_stimuli(*both, explicit=listed, matched=pairs is not None, seed=seed)
    if json_output:
        print_json(report.to_json())
    else:
        _print_report(report)
    if not report.holds:
        raise typer.Exit(FAILED)


@app.command("show")
def show(
    source: Annotated[
        str | None, typer.Argument(help=f"Prompts: {_SOURCE}", show_default=False)
    ] = None,
    pairs: Pairs = None,
    n: Annotated[int, typer.Option("--n", min=1, help="How many to print.")] = 5,
    json_output: Json = False,
) -> None:
    """Show how many prompts or pairs a source gives, and the first of them."""
    if (source is None) == (pairs is None):
        message = "[prompts] expected SOURCE, or --pairs instead; give one of them"
        raise ValueError(message)
    found: list[Any]
    if pairs is not None:
        from cogit.pairs import load_pairs

        found = [
            {"positive": pair.positive, "negative": pair.negative, "prompt": pair.prompt}
            for pair in load_pairs(pairs)
        ]
    else:
        from cogit.prompts import load_prompts

        found = list(load_prompts(str(source)))
    if json_output:
        kind = "prompts" if pairs is None else "pairs"
        print_json({"source": source or pairs, "n": len(found), kind: found[:n]})
        return
    say("source", f"{source or pairs}: {len(found)} {'prompts' if pairs is None else 'pairs'}")
    for one in found[:n]:
        if isinstance(one, str):
            print(repr(one))
        else:
            print(f"+ {one['prompt'] + one['positive']!r}\n- {one['prompt'] + one['negative']!r}")


def _print_report(report: StimulusReport) -> None:
    say("explicit", report.explicit)
    print(f"{'check':<16}{'found':>8}{'limit':>8}  {'':<9}")
    for one in report.checks:
        found = "-" if one.found is None else f"{one.found:.3g}"
        print(f"{one.name:<16}{found:>8}{one.limit:>8.3g}  {one.status:<9}{one.note}")
    print("the two classes are fair" if report.holds else "the two classes are not fair")
