"""Imports point one way, and importing cogit costs nothing."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import cogit

PACKAGE = Path(cogit.__file__).parent
# From what imports nothing of cogit to what may import everything. A module may import those of
# lower levels and of its own; within a level there may be no cycle.
LEVELS = [
    {
        "errors",
        "memory",
        "memory_free",
        "memory_log",
        "memory_model",
        "memory_operators",
        "entries",
        "figures",
        "hashing",
        "aligned",
        "layers",
        "positions",
        "progress",
        "pairs",
        "pair_sources",
        "pair_datasets",
        "data_rows",
        "dataset_rows",
        "dataset_spec",
        "disk",
        "hub_sizes",
        "packaged",
        "prompts",
        "prompt_sources",
        "presets",
        "hook_points",
        "intervals",
        "running",
        "selection",
        "run_folder",
        "text_files",
        "_core",
    },
    {
        "affine",
        "reference",
        "artefact",
        "identity",
        "sampling",
        "hermitian",
        "cayley",
        "latest",
        "projection",
        "run_inputs",
        "separation",
        "pair_groups",
        "stimuli",
        "stimulus_structure",
    },
    {
        "kernels",
        "activations",
        "activation_moments",
        "recording",
        "states",
        "states_json",
        "store",
        "sweep",
        "sweep_report",
        "sweep_result",
    },
    {"extractors", "subspace"},
    {"operators", "gates"},
    {"intervention"},
    {"devices", "interop"},
    {"backends", "gating", "memory_estimate", "memory_gguf", "verify"},
    {
        "autofit",
        "evaluation",
        "training",
        "manifest",
        "quantise",
        "quantised",
        "quantised_forms",
        "replay",
        "report",
        "reporting",
        "parity",
        "demo",
        "doctor",
        "inspection",
        "artefact_facts",
        "differences",
        "folder_facts",
    },
    {"pipeline"},
    {"cli"},
]
HEAVY = ["torch", "transformers", "llama_cpp", "scipy", "matplotlib", "rich", "typer", "pydantic"]


def modules() -> dict[str, Path]:
    """Dotted names under cogit, by file; vendored trees are not ours."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        if "_llama" not in parts and parts != ("__init__",):
            found[".".join(parts).removesuffix(".__init__")] = path
    return found


def imported(path: Path, *, only_at_run_time: bool) -> set[str]:
    """Modules of cogit that a file imports; typing-only imports count unless told otherwise."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    skipped: set[ast.AST] = set()
    if only_at_run_time:
        for node in ast.walk(tree):
            if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
                skipped |= {child for stmt in node.body for child in ast.walk(stmt)}
    names: set[str] = set()
    for node in ast.walk(tree):
        if node in skipped:
            continue
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    known = modules()
    inside = {name.removeprefix("cogit.") for name in names if name.startswith("cogit.")}
    return {name if name in known else name.rpartition(".")[0] or name for name in inside}


def level(module: str) -> int:
    top = module.split(".")[0]
    for number, members in enumerate(LEVELS):
        if top in members:
            return number
    message = f"{module} has no level: say in test_imports.py what it may import"
    raise AssertionError(message)


@pytest.mark.parametrize("module", modules())
def test_imports_point_one_way(module: str) -> None:
    for target in imported(modules()[module], only_at_run_time=True):
        if target.startswith("__version__"):
            continue
        assert level(target) <= level(module), f"{module} imports {target}"


def test_there_are_no_cycles() -> None:
    graph = {
        module: imported(path, only_at_run_time=True) & modules().keys() - {module}
        for module, path in modules().items()
    }
    while graph:
        leaves = {module for module, targets in graph.items() if not targets & graph.keys()}
        assert leaves, f"a cycle among {sorted(graph)}"
        graph = {module: targets for module, targets in graph.items() if module not in leaves}


def run(code: str) -> str:
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    )
    return result.stdout


def test_import_loads_no_framework() -> None:
    code = f"import cogit, sys; print([m for m in {[*HEAVY, 'numpy']} if m in sys.modules])"
    assert run(code).strip() == "[]"


@pytest.mark.parametrize(
    "name", ["Intervention", "Unitary", "fit_subspace", "load_backend", "record"]
)
def test_plain_names_load_no_framework(name: str) -> None:
    code = f"import cogit, sys; cogit.{name}; print([m for m in {HEAVY} if m in sys.modules])"
    assert run(code).strip() == "[]"


def test_help_is_answered_without_a_framework() -> None:
    """`--help` must not wait for torch."""
    pytest.importorskip("cogit.cli.main", reason="the command line is not there")
    code = (
        "import sys; sys.argv = ['cogit', '--help']\n"
        "from cogit.cli.main import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "print([m for m in ('torch', 'scipy', 'pydantic', 'matplotlib') if m in sys.modules])"
    )
    assert run(code).strip().endswith("[]")


def test_every_public_name_resolves() -> None:
    assert sorted(set(cogit.__all__)) == sorted(cogit.__all__)
    for name in cogit.__all__:
        assert getattr(cogit, name) is not None
    assert dir(cogit) == cogit.__all__
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        cogit.nonsense  # noqa: B018


def test_public_names_are_the_ones_that_type_checkers_see() -> None:
    tree = ast.parse((PACKAGE / "__init__.py").read_text(encoding="utf-8"))
    seen = {
        (alias.asname or alias.name)
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("cogit")
        for alias in node.names
    }
    assert seen == set(cogit.__all__) - {"__version__"}
