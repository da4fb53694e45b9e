"""What the documents say of layers in an earlier system is marked as that system's claim."""

from __future__ import annotations

from pathlib import Path

import pytest

PAGE = Path(__file__).parent.parent / "docs" / "layer-claims.md"


def test_layer_figures_are_cited_as_claims_only() -> None:
    """Row Q19: every figure, the two documents' disagreement, and whose claims they are."""
    if not PAGE.parent.is_dir():
        pytest.skip("an installed wheel carries no docs folder")
    page = " ".join(PAGE.read_text(encoding="utf-8").split())
    assert "claims of an earlier system" in page
    assert "not reproduced here" in page
    for figures in ("0.66, 0.40, 1.11, 1.59, 5.41", "0.52, 0.80, 1.32, 11.10, 6.50, 7.24"):
        assert figures in page
    assert "4.84 where 5.41 stands" in page
    assert "layer 22" in page
