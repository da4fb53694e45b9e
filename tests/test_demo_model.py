"""The demo's grammar is exact and reproducible, and the shipped model is what its card says."""

from __future__ import annotations

import hashlib
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from cogit.demo import convert, grammar, lexicon, quality
from cogit.demo.tokenizer import BOS, CONTEXT, VOCAB_SIZE, load_tokenizer
from cogit.errors import BackendMissingError

ASSETS = Path(grammar.__file__).parent / "assets"
MODEL = ASSETS / "model"
ODD_TEXTS = (
    "",
    " ",
    "  two  spaces ",
    " leading",
    "trailing ",
    "the soupwas goodgood .",
    "Hello, World! 42 é 日本 🙂\n\tnew line",
    "x . y .z",
    "<0x41> ▁the",
    "a" * 60,
)
# An agreed sample of the corpus the shipped model was trained on: change words or templates, and
# the model has to be trained again.
CORPUS_DIGEST = "03d0f91c578b223b"


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return load_tokenizer(MODEL)


@pytest.fixture(scope="module")
def model() -> Any:
    return transformers.LlamaForCausalLM.from_pretrained(MODEL, local_files_only=True).eval()


def _sentences(text: str) -> list[str]:
    return [part.strip() for part in re.findall(r"[^.!]+(?:[.!]|$)", text)]


def _is_scene(sentence: str) -> bool:
    return any(
        word in sentence for word in ("visited", "i went", "i found", "spent", "took us")
    ) or (sentence.startswith("this is about"))


def test_corpus_is_the_one_the_model_was_trained_on() -> None:
    text = "\n".join(grammar.corpus(200, 0))
    assert hashlib.sha256(text.encode()).hexdigest()[:16] == CORPUS_DIGEST


def test_every_generator_is_seeded() -> None:
    for draw in (grammar.open_prompts, grammar.facts, grammar.contrast_pairs):
        assert draw(20, 3, "test") == draw(20, 3, "test")
        assert draw(20, 3, "test") != draw(20, 4, "test")
    assert grammar.context_prompts(5, 1, 3) == grammar.context_prompts(5, 1, 3)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("the soup was delicious .", 1),
        ("the soup was not delicious .", -1),
        ("the soup was not very delicious .", -1),
        ("the soup was not bad and the waiter was kind .", 1),
        ("it was not . the view was lovely", 1),
        ("the room was ugly but the view was lovely .", 0),
        ("the room was ugly and shabby but the view was lovely .", -1),
        ("paris is a city in france .", 0),
        ("", 0),
    ],
)
def test_sentiment_is_exact(text: str, expected: int) -> None:
    assert grammar.sentiment(text) == expected


def test_lexicon_is_balanced_and_unambiguous() -> None:
    assert not lexicon.POSITIVE & lexicon.NEGATIVE
    for positive, negative in (*lexicon.ADJECTIVES.values(), *lexicon.POLAR_SLOTS.values()):
        assert len(positive) == len(negative)
    for split in grammar.SPLITS:
        assert not any(map(sum, map(grammar.sentiment_words, grammar.facts(100, 0, split))))


def test_prompts_have_the_sentiment_they_claim() -> None:
    assert not any(map(sum, map(grammar.sentiment_words, grammar.open_prompts(200, 0))))
    for sign in grammar.SIGNS:
        assert {grammar.sentiment(text) for text in grammar.context_prompts(100, sign, 0)} == {sign}


def test_contrast_pairs_differ_in_sentiment_words_alone(tokenizer: Any) -> None:
    polar = lexicon.POSITIVE | lexicon.NEGATIVE
    for pair in grammar.contrast_pairs(200, 0):
        assert (grammar.sentiment(pair.positive), grammar.sentiment(pair.negative)) == (1, -1)
        words = zip(pair.positive.split(), pair.negative.split(), strict=True)
        assert all(one == other or {one, other} <= polar for one, other in words)
        lengths = {len(ids) for ids in tokenizer([pair.positive, pair.negative])["input_ids"]}
        assert len(lengths) == 1


def test_splits_share_no_sentence_but_scenes() -> None:
    found: dict[str, set[str]] = {}
    for seed, split in enumerate(grammar.SPLITS):
        texts = [*grammar.open_prompts(200, seed, split), *grammar.facts(200, seed, split)]
        for sign in grammar.SIGNS:
            texts += grammar.context_prompts(100, sign, seed, split)
        for pair in grammar.contrast_pairs(200, seed, split):
            texts += [pair.positive, pair.negative]
        sentences = {sentence for text in texts for sentence in _sentences(text)}
        found[split] = {sentence for sentence in sentences if not _is_scene(sentence)}
    assert all(len(sentences) > 200 for sentences in found.values())
    assert not found["train"] & found["test"]
    assert not found["train"] & found["calibration"]
    assert not found["calibration"] & found["test"]


def test_grammar_recognises_its_own_sentences_only() -> None:
    sentences = [part for text in grammar.corpus(300, 5) for part in _sentences(text)]
    assert all(map(grammar.is_sentence, sentences))
    assert not grammar.is_sentence("the soup was the .")
    assert not grammar.is_sentence("the soup was good")


@pytest.mark.parametrize(
    "call",
    [
        lambda: grammar.open_prompts(10, 0, "tests"),  # type: ignore[arg-type]
        lambda: grammar.context_prompts(10, 0, 0),  # type: ignore[arg-type]
        lambda: grammar.open_prompts(10**6, 0),
    ],
)
def test_wrong_requests_are_refused_in_one_line(call: Any) -> None:
    with pytest.raises(ValueError, match=r"^\[grammar\] expected [^\n]+, got [^\n]+$"):
        call()


def test_words_are_single_pieces(tokenizer: Any) -> None:
    words = {word for text in grammar.corpus(2000, 9) for word in text.split()}
    assert {word for word in words if len(tokenizer(word)["input_ids"]) != 2} == set()
    assert tokenizer("the soup")["input_ids"][0] == BOS
    assert len(tokenizer) == VOCAB_SIZE


def test_tokenizer_is_sentencepiece_token_for_token(tokenizer: Any) -> None:
    import sentencepiece

    pieces = sentencepiece.SentencePieceProcessor(model_file=str(MODEL / "tokenizer.model"))
    for text in [*grammar.corpus(200, 21), *ODD_TEXTS]:
        ids = tokenizer(text)["input_ids"]
        assert ids == [BOS, *pieces.encode(text)], text
        if "▁" not in text:  # which SentencePiece cannot tell from a space
            assert tokenizer.decode(ids, skip_special_tokens=True) == text


@pytest.mark.llamacpp
def test_tokenizer_agrees_with_llama_cpp(tokenizer: Any) -> None:
    from cogit.backends.llama_engine import LlamaEngine

    with LlamaEngine(ASSETS / "demo-q8_0.gguf", n_ctx=64) as engine:
        texts = [*grammar.corpus(200, 31), *grammar.open_prompts(100, 0), *ODD_TEXTS]
        for text in texts:
            assert engine.tokenize(text) == tokenizer(text)["input_ids"], text


def test_assets_are_small_and_free_of_pickle() -> None:
    files = [path for path in ASSETS.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 20 * 2**20
    suffixes = {path.suffix for path in files if path.name != "__init__.py"}
    assert suffixes - {".pyc"} <= {".json", ".safetensors", ".model", ".gguf", ".md"}


def test_gguf_files_hold_the_weights_of_the_safetensors_file() -> None:
    import gguf
    from safetensors.numpy import load_file

    embedding = load_file(MODEL / "model.safetensors")["model.embed_tokens.weight"]
    # Half precision rounds to 2^-11 relative; Q8_0 to half a step of a block's largest / 127.
    allowed = {"f32": 0.0, "f16": 2**-11, "q8_0": 0.5 / 127 + 2**-11}
    for kind, tolerance in allowed.items():
        tensors = gguf.GGUFReader(ASSETS / f"demo-{kind}.gguf").tensors
        stored = next(tensor for tensor in tensors if tensor.name == "token_embd.weight")
        values = gguf.quants.dequantize(stored.data, stored.tensor_type)
        error = np.abs(values - embedding).max(axis=1)
        assert (error <= tolerance * np.abs(embedding).max(axis=1) + 1e-7 * (tolerance > 0)).all()


def test_model_is_what_the_engines_expect(model: Any) -> None:
    weights = sum(weight.numel() for weight in model.parameters())
    assert 1_200_000 <= weights <= 1_500_000
    assert model.config.max_position_embeddings == CONTEXT
    assert model.dtype == torch.float32


def test_model_passes_its_gates_on_a_small_sample(model: Any, tokenizer: Any) -> None:
    n = 48
    measured = quality.measure_quality(model, tokenizer, seed=77, n=n)
    # Three standard errors of a binomial share beyond the gate: one run in about 700 would fail
    # a model that sits on the gate, and the seed is fixed.
    assert abs(measured.open_positive - 0.5) <= 0.1 + 3 * math.sqrt(0.25 / n)
    assert measured.open_decided >= 0.95 - 3 * math.sqrt(0.05 * 0.95 / n)
    assert measured.context_followed >= 0.8 - 3 * math.sqrt(0.2 * 0.8 / (2 * n))
    assert measured.fact_sentiment <= 0.02 + 3 * math.sqrt(0.02 * 0.98 / (10 * n))
    assert measured.grammatical >= 0.95
    assert measured.perplexity <= 6


def test_missed_gates_are_named() -> None:
    bad = quality.Quality(0.7, 1.0, 0.5, 0.0, 1.0, 3.0)
    assert bad.failures() == [
        "expected open_positive in [0.4, 0.6], got 0.700",
        "expected context_followed >= 0.8, got 0.500",
    ]


def test_conversion_without_a_converter_says_so(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("COGIT_LLAMA_SOURCE", str(tmp_path))
    with pytest.raises(BackendMissingError, match=r"^\[convert\] expected [^\n]+$"):
        convert.convert_to_gguf(MODEL, tmp_path / "x.gguf")
    with pytest.raises(FileNotFoundError, match=r"^\[convert\] expected [^\n]+$"):
        convert.convert_to_gguf(tmp_path, tmp_path / "x.gguf")


@pytest.mark.slow
def test_training_is_reproducible_and_learns(tmp_path: Path) -> None:
    from cogit.demo.train import train

    torch.set_num_threads(1)
    runs = [train(tmp_path / name, seed=5, steps=60) for name in ("one", "two")]
    files = [(tmp_path / name / "model" / "model.safetensors") for name in ("one", "two")]
    assert files[0].read_bytes() == files[1].read_bytes()
    model, tokenizer = runs[0]
    # An untrained model has the size of its vocabulary, 1024.
    assert quality.perplexity(model, tokenizer, list(grammar.corpus(50, 99))) < 8
