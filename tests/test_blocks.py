"""Finding decoder blocks by structure, on models of many architectures."""

from __future__ import annotations

import pytest
import transformers
from torch import nn

from _models import (
    ARCHITECTURES,
    D_MODEL,
    N_LAYERS,
    N_VOCAB,
    prompt,
    steering,
    tiny_backend,
    tiny_model,
)
from cogit.backends.blocks import count, find_blocks, text_config
from cogit.sampling import SamplingOptions

CLASSES = {
    "Llama": "LlamaDecoderLayer",
    "Qwen2": "Qwen2DecoderLayer",
    "Qwen3": "Qwen3DecoderLayer",
    "Mistral": "MistralDecoderLayer",
    "Gemma": "GemmaDecoderLayer",
    "Gemma2": "Gemma2DecoderLayer",
    "Phi3": "Phi3DecoderLayer",
    "GPT2": "GPT2Block",
    "GPTNeoX": "GPTNeoXLayer",
    "Falcon": "FalconDecoderLayer",
    "Olmo2": "Olmo2DecoderLayer",
    "Olmoe": "OlmoeDecoderLayer",
    "Mixtral": "MixtralDecoderLayer",
    "Qwen2Moe": "Qwen2MoeDecoderLayer",
    "Qwen3Moe": "Qwen3MoeDecoderLayer",
    "Bloom": "BloomBlock",
    "OPT": "OPTDecoderLayer",
    "StableLm": "StableLmDecoderLayer",
    "Granite": "GraniteDecoderLayer",
    "Starcoder2": "Starcoder2DecoderLayer",
    "Cohere": "CohereDecoderLayer",
    "Glm4": "Glm4DecoderLayer",
    "SmolLM3": "SmolLM3DecoderLayer",
    "Nemotron": "NemotronDecoderLayer",
}


def test_every_architecture_is_listed() -> None:
    assert CLASSES.keys() == ARCHITECTURES.keys()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_blocks_are_found_and_steered(architecture: str) -> None:
    """Number, class and order of the blocks; steering lands on the first, a middle, the last."""
    backend = tiny_backend(architecture)
    blocks = find_blocks(backend.model, N_LAYERS)
    assert [type(block).__name__ for block in blocks] == [CLASSES[architecture]] * N_LAYERS
    assert backend.identity.d_model == D_MODEL
    assert backend.identity.n_layers == N_LAYERS
    for layers in ((0,), (1,), (2,), (0, 1, 2)):
        with backend.steer(steering(backend, layers)) as found:
            assert found is not None
            assert set(found.relative_change) == set(layers)


@pytest.mark.parametrize("architecture", ["GPT2", "Falcon", "Bloom", "OPT", "Mixtral", "Gemma2"])
def test_batches_equal_single_prompts(architecture: str) -> None:
    """Positions by table, by rotation, and by attention bias, under left padding."""
    backend = tiny_backend(architecture)
    prompts = [prompt(2, 1), prompt(7, 2)]
    options = SamplingOptions(max_tokens=6, temperature=0.0)
    with backend.steer(steering(backend, [0, 2])):
        together = backend.generate(prompts, options)
        assert together == [backend.generate([text], options)[0] for text in prompts]


# ---- what has no blocks to find ----


def test_encoder_decoders_are_refused() -> None:
    config = transformers.T5Config(
        vocab_size=N_VOCAB, d_model=32, d_ff=32, d_kv=8, num_layers=2, num_heads=2
    )
    model = transformers.T5ForConditionalGeneration(config)
    with pytest.raises(ValueError, match=r"^\[model\] expected a decoder-only model, got the enc"):
        find_blocks(model, 2)


def test_another_number_of_layers_is_refused() -> None:
    with pytest.raises(
        ValueError, match=r"^\[model\] expected a list of 7 blocks somewhere in Llam"
    ):
        find_blocks(tiny_model(), 7)


def test_two_lists_of_the_same_length_are_refused() -> None:
    class Twins(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one = nn.ModuleList(nn.Linear(2, 2) for _ in range(3))
            self.two = nn.ModuleList(nn.Linear(2, 2) for _ in range(3))

    with pytest.raises(ValueError, match=r"^\[model\] expected one list of 3 blocks .* one, two$"):
        find_blocks(Twins(), 3)


def test_inner_lists_do_not_count() -> None:
    """As many experts in each block as there are blocks."""

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.experts = nn.ModuleList(nn.Linear(2, 2) for _ in range(3))

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.deep = nn.Sequential()
            self.deep.layers = nn.ModuleList(Block() for _ in range(3))

    model = Model()
    assert find_blocks(model, 3) is model.deep.layers


def test_measures_have_several_names() -> None:
    config = text_config(tiny_model("GPT2").config)
    assert count(config, "n_layer", "num_hidden_layers") == N_LAYERS
    with pytest.raises(ValueError, match=r"^\[model\] expected one of depth, height in GPT2Config"):
        count(config, "depth", "height")


def test_a_multi_modal_config_is_looked_into() -> None:
    class Outer:
        def get_text_config(self) -> str:
            return "inner"

    assert text_config(Outer()) == "inner"
    assert text_config("plain") == "plain"
