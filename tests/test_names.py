"""No identifier is named after a model (row Q47)."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import cogit

PACKAGE = Path(cogit.__file__).parent
MODELS = re.compile(
    r"gpt|llama|qwen|mistral|mixtral|gemma|phi[0-9]|falcon|pythia|opt[0-9]|bloom|olmo|deepseek",
    re.IGNORECASE,
)
# Names of llama.cpp and its bindings, and of the modules and classes of ours that speak to it.
OF_LLAMA_CPP = re.compile(
    r"llamacpp|_llama|LlamaCppBackend|LlamaFileType|LlamaEngine|llama_(engine|library)"
)
OF_ITS_MODULES = re.compile(r"llama_[a-z_]+|LLAMA_[A-Z_]+|Llama[A-Z][a-z]+")
OF_TRANSFORMERS = re.compile(r"[A-Z]\w*(Config|ForCausalLM)")


def identifiers(tree: ast.AST) -> Iterator[str]:
    """Names that a file binds or uses, and its modules; texts and comments are none."""
    for node in ast.walk(tree):
        for field in ("name", "id", "attr", "arg", "asname", "module"):
            value = getattr(node, field, None)
            if isinstance(value, str):
                yield from value.split(".")


def named_after_models(source: str, file: Path) -> set[str]:
    allowed = [OF_LLAMA_CPP, OF_TRANSFORMERS]
    speaks = file.parts[0] == "backends" and file.stem.startswith("llama")
    if speaks or file.parts == ("quantise.py",):
        allowed.append(OF_ITS_MODULES)
    names = {*identifiers(ast.parse(source)), *file.with_suffix("").parts}
    return {
        name
        for name in names
        if MODELS.search(name) and not any(one.fullmatch(name) for one in allowed)
    }


def test_no_identifier_is_named_after_a_model() -> None:
    found: dict[str, set[str]] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        file = path.relative_to(PACKAGE)
        if "_llama" not in file.parts:
            found[str(file)] = named_after_models(path.read_text(encoding="utf-8"), file)
    assert {file: names for file, names in found.items() if names} == {}


@pytest.mark.parametrize(
    "source", ["gpt2_layers = 1", "def qwen(): pass", "a.mistral_head", "import cogit.gemma_fix"]
)
def test_names_of_models_are_found(source: str) -> None:
    assert named_after_models(source, Path("backends/other.py"))
    assert named_after_models("x = 1", Path("demo/qwen.py"))
    assert named_after_models("llama_size = 1", Path("subspace.py"))
