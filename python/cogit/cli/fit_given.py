"""Flags of ``cogit fit`` that would have no effect: each is refused by name, none is ignored."""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cogit.cli.fit_request import Request


def require_effect(request: Request, given: AbstractSet[str]) -> None:
    """ValueError for given flags that nothing would read. given: by name, as in ``--angle``."""
    for names, reason in _idle(request):
        found = [name for name in names if name in given]
        if found:
            message = (
                f"[fit] expected no {' and no '.join(found)} {reason}, got "
                f"{', '.join(found)}; leave it out"
            )
            raise ValueError(message)


def _idle(request: Request) -> list[tuple[tuple[str, ...], str]]:
    """Which flags this call does not read, and why."""
    recipe, found = request.recipe, list[tuple[tuple[str, ...], str]]()
    if recipe.operator != "unitary":
        idle = ("--method", "--angle", "--gain")
        found.append((idle, f"with --operator {recipe.operator}, which has none"))
    if request.auto:
        found.append((("--lambda", "--angle", "--gain"), "with --auto, which chooses them"))
    if recipe.method != "plane":
        found.append((("--angle",), f"with --method {recipe.method}, which turns by no angle"))
    if request.born is not None:
        found.append((("--gain", "--k"), "with --method born-adam, which has no subspace"))
    if request.subspace is not None:
        found.append((("--k", "--tail"), "with --subspace, which was fitted already"))
    if request.activations is not None:
        found.append((("--tail",), "with --activations, which were recorded already"))
    if request.pairs is None:
        found.append((("--kl-budget", "--nll-budget"), "without --pairs, which are judged by it"))
        if request.model is None:
            found.append((("--neutral",), "without a model to run it"))
    return found
