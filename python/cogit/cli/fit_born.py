"""``cogit fit --method born-adam``: the training at every block, its controls, what it says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cogit.cli.console import say
from cogit.cli.memory_check import check_host
from cogit.intervention import Intervention
from cogit.training.born_operator import BornOperators, fit_born_operators

if TYPE_CHECKING:
    from cogit.activations import Activations
    from cogit.cli.fit_request import Request

_PLAIN = {
    "right": "each of the two operators carries its own class towards the other",
    "swapped": "SWAPPED: each operator does what the other's name says",
    "unclear": "UNCLEAR: the two operators do not go clearly different ways",
}


@dataclass(frozen=True)
class Trained:
    """The operators of every block, as interventions."""

    blocks: dict[int, BornOperators]
    towards: Intervention
    back: Intervention

    def shuffled(self) -> list[tuple[Intervention, Intervention]]:
        """Every control, both ways."""
        draws = min(len(one.shuffled) for one in self.blocks.values())
        found = []
        for draw in range(draws):
            pairs = {layer: one.shuffled[draw] for layer, one in self.blocks.items()}
            there = {layer: pair[0] for layer, pair in pairs.items()}
            back = {layer: pair[1] for layer, pair in pairs.items()}
            identity, strength = self.towards.identity, self.towards.strength
            found.append(
                (Intervention(there, identity, strength), Intervention(back, identity, strength))
            )
        return found

    def to_json(self) -> dict[str, Any]:
        return {str(layer): one.to_json() for layer, one in self.blocks.items()}


def train(request: Request, states: Activations, blocks: tuple[int, ...]) -> Trained:
    """Train at the given blocks, and say beforehand what that takes."""
    from cogit.devices import plan_placement
    from cogit.memory_operators import born_parts, training_needs

    settings = request.born
    assert settings is not None
    width = settings.width(states.identity.d_model)
    say(
        "training",
        f"{len(blocks)} x {settings.trainings} unitaries in C^{width} (with controls), at most "
        f"{settings.config.epochs} epochs each; a step takes time as q cubed",
    )
    lost = states.identity.d_model - width
    if lost > 0:
        say("q", f"{width} is below d_model: {lost} dimensions pass by unsteered")
    batch, family = settings.config.batch_size, settings.config.family
    needs = training_needs(family, width, batch=batch, trainings=settings.trainings)
    placed = plan_placement(needs, request.runtime.device)
    say("training on", f"{placed.device} ({placed.reason})")
    if family == "dense":
        parts = born_parts(
            states.identity.d_model,
            width,
            trainings=settings.trainings,
            batch=batch,
            blocks=len(blocks),
        )
        check_host(parts, request.runtime)
    if request.runtime.threads is not None:
        import torch

        torch.set_num_threads(request.runtime.threads)
    folders = {
        layer: None if request.checkpoint is None else request.checkpoint / f"{layer}"
        for layer in blocks
    }
    found = {
        layer: fit_born_operators(
            states,
            layer,
            settings,
            checkpoint=folder,
            # A later block may not have begun when the first was interrupted.
            resume=request.resume and folder is not None and any(folder.glob("*/born.safetensors")),
            device=placed.device,
            show=not request.json_output,
        )
        for layer, folder in folders.items()
    }
    there = Intervention(
        {layer: one.towards for layer, one in found.items()},
        states.identity,
        request.strength,
        lineage={"direction": "negative_to_positive"},
    )
    back = Intervention(
        {layer: one.back for layer, one in found.items()},
        states.identity,
        request.strength,
        lineage={"direction": "positive_to_negative"},
    )
    return Trained(found, there, back)


def print_born(blocks: dict[str, Any], opposite: str | None) -> None:
    """Fidelity beside its controls, polarity, and that the way back is an operator of its own."""
    for layer, facts in blocks.items():
        for direction, one in facts["directions"].items():
            named = f"fidelity, block {layer}"
            values = one["held_out_fidelity"]
            print(
                f"{named:<30}{values['trained']:.3f} {direction.replace('_', ' ')}; identity "
                f"{values['identity']:.3f}, shuffled {values['shuffled']:.3f} (no success)"
            )
        polarity = facts["polarity"]
        ways = [polarity[name] for name in ("negative_to_positive", "positive_to_negative")]
        moved = " and ".join(
            f"{way['own']:+.2f} ± {way['two_standard_errors']:.2f}" for way in ways
        )
        named = f"polarity, block {layer}"
        print(f"{named:<30}{_PLAIN[polarity['verdict']]} (transport {moved})")
    where = "not written; --out-opposite writes it" if opposite is None else opposite
    print(f"{'way back':<30}an operator of its own, measured here: {where}")
    print(f"{'':<30}a negative strength runs the blend backwards, which is not the way back")
