"""``cogit fit``: an operator from pairs, recorded states or a subspace, judged on what it has not
seen.
"""

from __future__ import annotations

from cogit.cli import fit_flags, flags
from cogit.cli.loading import BackendChoice, Dtype, Runtime
from cogit.cli.memory_flags import CheckMemory, Yes
from cogit.cli.outputs import Force

NAME = "fit"


def command(
    out: fit_flags.Out,
    pairs: fit_flags.Pairs = None,
    activations: fit_flags.Activations = None,
    subspace: fit_flags.Subspace = None,
    model: fit_flags.Model = None,
    backend: flags.Backend = BackendChoice.transformers,
    layers: fit_flags.Layers = None,
    operator: fit_flags.Operator = fit_flags.OperatorChoice.unitary,
    method: fit_flags.Method = None,
    angle: fit_flags.Angle = None,
    gain: fit_flags.Gain = None,
    strength: fit_flags.Strength = None,
    k: fit_flags.ComplexDimensions = None,
    tail: fit_flags.Tail = None,
    auto: fit_flags.Auto = False,
    refine: fit_flags.Refine = 0,
    neutral: fit_flags.Neutral = None,
    kl_budget: fit_flags.KlBudget = None,
    nll_budget: fit_flags.NllBudget = None,
    checkpoint: fit_flags.Checkpoint = None,
    resume: fit_flags.Resume = False,
    family: fit_flags.Family = None,
    preset: fit_flags.Preset = None,
    epochs: fit_flags.Epochs = None,
    q: fit_flags.Width = None,
    exact_inverse: fit_flags.ExactInverse = False,
    shuffled_fits: fit_flags.ShuffledFits = None,
    out_opposite: fit_flags.OutOpposite = None,
    plot: fit_flags.Plot = None,
    seed: fit_flags.Seed = 0,
    device: flags.Device = "auto",
    dtype: flags.Dtype = Dtype.f32,
    threads: flags.Threads = None,
    force: Force = False,
    yes: Yes = False,
    memory_check: CheckMemory = True,
    json_output: flags.Json = False,
) -> None:
    """Fit an operator and say, on pairs it has not seen, what it does, what it costs, and whether
    that is more than controls do. The verdict may be "no effect".
    """
    from cogit.cli.fit_numbers import BornFlags, FitNumbers
    from cogit.cli.fit_request import Request
    from cogit.cli.fit_run import execute
    from cogit.layers import LayerRange

    numbers = FitNumbers(method, angle, gain, strength, k, tail, neutral, kl_budget, nll_budget)
    born = BornFlags(family, preset, epochs, q, exact_inverse, shuffled_fits, out_opposite)
    recipe = numbers.recipe(operator)
    request = Request(
        pairs=pairs,
        activations=activations,
        subspace=subspace,
        out=out,
        model=model,
        backend=backend,
        runtime=Runtime(device, dtype, threads, assume_yes=yes, check_memory=memory_check),
        layers=None if layers is None else LayerRange.parse(layers),
        recipe=recipe,
        strength=1.0 if strength is None else strength,
        born=born.settings(recipe, seed),
        out_opposite=out_opposite,
        tail=4 if tail is None else tail,
        auto=auto,
        refine=refine,
        neutral=neutral,
        budget=numbers.budget(),
        checkpoint=checkpoint,
        resume=resume,
        plot=plot,
        seed=seed,
        force=force,
        json_output=json_output,
        given=numbers.given(),
    )
    execute(request)
