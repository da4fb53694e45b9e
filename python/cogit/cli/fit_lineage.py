"""What an intervention of ``cogit fit`` says of its making: only what was really used."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cogit import artefact

if TYPE_CHECKING:
    from cogit.activations import Activations
    from cogit.cli.fit_request import Request
    from cogit.intervention import Intervention
    from cogit.subspace import Subspace


def source_facts(request: Request, states: Activations) -> dict[str, Any]:
    """How the states were recorded, a hash of those that were fitted on, and k where one counts."""
    tail = {"tail": states.tail} if states.select.startswith("tail-") else {}
    return {
        "hook_point": states.hook_point,
        "select": states.select,
        **tail,
        **({"k": request.recipe.k} if request.born is None else {}),
        "activations": artefact.content_hash(
            {"positive": states.positive, "negative": states.negative},
            {"layers": list(states.layers), "model": states.identity.to_json()},
        ),
    }


def subspace_facts(subspace: Subspace) -> dict[str, Any]:
    """The subspace's own lineage and hash; its width, and its states as far as it knows them."""
    own: dict[str, Any] = dict(subspace.lineage)
    known: dict[str, Any] = {
        name: own[name] for name in ("select", "tail", "activations") if name in own
    }
    return {
        "hook_point": subspace.hook_point,
        "k": subspace.basis.shape[1] // 2,
        **known,
        "subspace": own,
        "subspace_hash": subspace.content_hash,
    }


def with_lineage(
    request: Request,
    found: Intervention,
    sizes: dict[str, int],
    neutral: str | None,
    made_of: dict[str, Any],
) -> Intervention:
    """The intervention with its lineage. ValueError where it changes nothing.

    made_of: of ``source_facts`` or ``subspace_facts``.
    """
    if found.changes_nothing():
        message = (
            f"[fit] expected an operator that changes something, got {found.describe()}, which "
            f"changes nothing; use another angle, gain or strength"
        )
        raise ValueError(message)
    made_of = dict(made_of)
    width = {"k": made_of.pop("k")} if "k" in made_of else {}
    made = {**request.recipe.settings(), **width}
    if request.born is not None:
        made = request.born.to_json()
    split = {} if request.subspace is not None else {"seed": request.seed}
    lineage = {
        **found.lineage,
        "made_by": "cogit fit",
        "fit": found.lineage.get("fit", made),
        **_source(request),
        "splits": sizes,
        **split,
        **made_of,
        **({} if neutral is None else {"neutral": neutral}),
    }
    return replace(found, lineage=lineage)


def _source(request: Request) -> dict[str, str]:
    """The file's name and fingerprint, or the data set's specification."""
    from cogit.identity import file_fingerprint

    source = str(request.pairs or request.activations or request.subspace)
    path = Path(source)
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    if request.pairs is not None and not path.exists() and source.count(",") == 1:
        files = [Path(part.strip()) for part in source.split(",")]
    known = [one for one in files if one.is_file()]
    name = path.name if path.is_dir() else source
    if not known:
        return {"source": name}
    if not path.is_dir():
        name = ",".join(one.name for one in files)
    return {"source": name, "source_fingerprint": file_fingerprint(known)}
