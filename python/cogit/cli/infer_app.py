"""The typer app of ``cogit-infer``: one prompt in, one steered continuation out."""

from __future__ import annotations

import typer

from cogit.cli import flags, infer_flags
from cogit.cli.loading import MODEL_VARIABLE, BackendChoice, Dtype, Runtime
from cogit.cli.memory_flags import CheckMemory, Yes

_HELP = f"""Generate text with a steered model.

With --intervention FILE the file decides what is done; --lambda, --layers, --positions and
--first-token override it. Without one a commitment is used: a seeded draw in a small space,
projected once and added with strength --lambda to every token at the blocks of --layers.

The continuation goes to standard output, everything else to standard error. The model is --model,
else the environment variable {MODEL_VARIABLE}, else the demo model that comes with cogit."""

app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


@app.command(help=_HELP)
def command(
    backend: flags.Backend = BackendChoice.transformers,
    model: flags.Model = None,
    prompt: infer_flags.Prompt = None,
    prompt_file: infer_flags.PromptFile = None,
    strength: infer_flags.Strength = None,
    layers: infer_flags.Layers = None,
    intervention: infer_flags.File = None,
    commitment: infer_flags.UseCommitment = False,
    k: infer_flags.K = None,
    positions: infer_flags.TokenPositions = None,
    first_token: infer_flags.FirstToken = False,
    max_tokens: infer_flags.MaxTokens = 25,
    temperature: infer_flags.Temperature = 0.8,
    top_k: infer_flags.TopK = 50,
    top_p: infer_flags.TopP = 1.0,
    seed: infer_flags.Seed = 0,
    device: flags.Device = "auto",
    dtype: flags.Dtype = Dtype.f32,
    threads: flags.Threads = None,
    n_ctx: flags.Context = None,
    compare: infer_flags.Compare = False,
    yes: Yes = False,
    memory_check: CheckMemory = True,
    json_output: infer_flags.Json = False,
    no_verify: infer_flags.NoVerify = False,
    _config: flags.Config = None,
) -> None:
    from cogit.cli.infer_run import Request, execute
    from cogit.layers import LayerRange
    from cogit.positions import Positions
    from cogit.sampling import SamplingOptions

    if intervention is not None and (commitment or k is not None):
        message = "[intervention] expected either --intervention or --commitment with --k, got both"
        raise ValueError(message)
    execute(
        Request(
            backend=backend,
            model=model,
            prompts=tuple(prompt or ()),
            prompt_file=prompt_file,
            strength=strength,
            layers=None if layers is None else LayerRange.parse(layers),
            intervention=intervention,
            k=infer_flags.DEFAULT_K if k is None else k,
            positions=None if positions is None else Positions.parse(positions),
            first_token=first_token,
            sampling=SamplingOptions(max_tokens, temperature, top_k, top_p, seed),
            runtime=Runtime(
                device, dtype, threads, n_ctx, assume_yes=yes, check_memory=memory_check
            ),
            compare=compare,
            json_output=json_output,
            verify=not no_verify,
        )
    )
