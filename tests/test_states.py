"""Complex states on disk: what is written comes back, the size, the old form, hostile files."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from cogit import artefact
from cogit.errors import ArtefactError
from cogit.separation import SeparationStatistics, biased_separation_statistics
from cogit.states import PROJECTION_FILE, STATES_FILE, StateSet
from cogit.states_json import import_states_json

if TYPE_CHECKING:
    from numpy.typing import NDArray

CONFIG = {"model": "tiny", "target_layer": 3, "quantum_dim": 24, "nested": {"seed": 7}}
WHEN = "2025-11-05T10:20:30+00:00"


def unit(seed: int, n: int = 6, width: int = 24) -> NDArray[np.complex64]:
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((n, width)) + 1j * rng.standard_normal((n, width))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.complex64)


def made(seed: int = 0, *, projection: bool = True) -> StateSet:
    return StateSet.of(
        unit(seed),
        unit(seed + 1),
        config=CONFIG,
        projection=unit(seed + 2, n=9) if projection else None,
        timestamp=WHEN,
    )


def old_form(positive: NDArray[Any], negative: NDArray[Any], **other: Any) -> dict[str, Any]:
    """What the JSON form holds of two classes."""
    stats = biased_separation_statistics(positive, negative).to_json()
    classes = {
        name: [{"real": row.real.tolist(), "imag": row.imag.tolist()} for row in rows]
        for name, rows in (("positive_states", positive), ("negative_states", negative))
    }
    return {"config": CONFIG, "separation_stats": stats, "timestamp": WHEN, **classes, **other}


def same(a: StateSet, b: StateSet) -> None:
    for name in ("positive", "negative"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name))
    assert (a.config, a.separation, a.timestamp, a.matched, a.origin) == (
        b.config,
        b.separation,
        b.timestamp,
        b.matched,
        b.origin,
    )
    assert (a.projection is None) == (b.projection is None)
    if a.projection is not None:
        np.testing.assert_array_equal(a.projection, b.projection)


# ---- the store ----


@pytest.mark.parametrize("projection", [True, False])
def test_states_come_back(tmp_path: Path, projection: bool) -> None:
    states = made(projection=projection)
    folder = states.save(tmp_path, "first")
    same(StateSet.load(folder), states)
    same(StateSet.load(tmp_path), states)
    assert (folder / PROJECTION_FILE).exists() == projection


def test_schema_of_the_store(tmp_path: Path) -> None:
    """Row Q16: states as real and imag, config, separation statistics, timestamp, projection."""
    folder = made().save(tmp_path, "first")
    tensors, data = artefact.read(folder / STATES_FILE, "states")
    assert tensors.keys() == {
        "positive.real",
        "positive.imag",
        "negative.real",
        "negative.imag",
    }
    assert {(x.dtype.name, x.shape) for x in tensors.values()} == {("float32", (6, 24))}
    assert data.keys() == {
        "config",
        "separation_stats",
        "timestamp",
        "matched",
        "origin",
        "projection_hash",
    }
    assert data["config"] == CONFIG
    assert data["timestamp"] == WHEN
    assert data["separation_stats"].keys() == SeparationStatistics.__annotations__.keys()
    parts, _ = artefact.read(folder / PROJECTION_FILE, "projection")
    assert {(name, x.shape) for name, x in parts.items()} == {
        ("projection.real", (9, 24)),
        ("projection.imag", (9, 24)),
    }
    pointer = json.loads((tmp_path / "latest-states.json").read_text())
    assert pointer == {"format": "cogit latest", "format_version": 1, "kind": "states"} | {
        "path": "first"
    }


def test_the_newest_set_is_the_latest(tmp_path: Path) -> None:
    made(0).save(tmp_path, "a")
    made(5).save(tmp_path, "b")
    same(StateSet.load(tmp_path), made(5))
    with pytest.raises(FileExistsError):
        made(9).save(tmp_path, "a")
    same(StateSet.load(tmp_path), made(5))


def test_store_is_below_15_percent_of_the_json_text(tmp_path: Path) -> None:
    """Row Q16: against the same 50 + 50 states as the older system wrote them, indented.

    Its file took 38 bytes a number, of which 4 remain. Text without any white space takes about 22.
    """
    classes = unit(0, 50, 300), unit(1, 50, 300)
    text = tmp_path / "old.json"
    text.write_text(json.dumps(old_form(*classes), indent=2))
    folder = StateSet.of(*classes, config=CONFIG).save(tmp_path, "new")
    stored = sum(path.stat().st_size for path in folder.iterdir())
    assert stored < 0.15 * text.stat().st_size


def test_a_moved_folder_still_loads(tmp_path: Path) -> None:
    """Names are relative: nothing of the old place is in the files."""
    made().save(tmp_path / "here", "first")
    shutil.move(tmp_path / "here", tmp_path / "there")
    same(StateSet.load(tmp_path / "there"), made())


def test_another_projection_is_refused(tmp_path: Path) -> None:
    first, second = made(0).save(tmp_path, "a"), made(5).save(tmp_path, "b")
    shutil.copy(second / PROJECTION_FILE, first / PROJECTION_FILE)
    with pytest.raises(ArtefactError, match="another projection"):
        StateSet.load(first)
    (first / PROJECTION_FILE).unlink()
    with pytest.raises(FileNotFoundError, match="projection"):
        StateSet.load(first)


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ({"positive": 2 * unit(0)}, "norm 1"),
        ({"positive": unit(0) * np.nan}, "norm 1"),
        ({"negative": unit(0)[:1]}, "at least 2"),
        ({"negative": unit(0, width=25)}, "one width"),
        ({"projection": unit(0, width=25)}, "one width"),
        ({"projection": unit(0)[0]}, "finite projection"),
        ({"projection": unit(0) * np.inf}, "finite projection"),
        ({"timestamp": "yesterday"}, "ISO 8601"),
        ({"negative": unit(0, n=7)}, "matched=False"),
    ],
)
def test_bad_states_are_refused(change: dict[str, Any], part: str) -> None:
    values = {"positive": unit(0), "negative": unit(1), "config": CONFIG} | change
    with pytest.raises(ValueError, match=part):
        StateSet.of(values.pop("positive"), values.pop("negative"), **values)


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/tmp/x", ".hidden"])
def test_names_stay_in_the_folder(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="plain folder name"):
        made().save(tmp_path, name)
    assert not list(tmp_path.iterdir())


def test_a_config_that_is_no_json_leaves_nothing(tmp_path: Path) -> None:
    states = StateSet.of(unit(0), unit(1), config={"x": float("nan")})
    with pytest.raises(ValueError, match="JSON"):
        states.save(tmp_path, "a")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("drop", ["positive.real", "negative.imag"])
def test_missing_parts_are_refused(tmp_path: Path, drop: str) -> None:
    file = made(projection=False).save(tmp_path, "a") / STATES_FILE
    tensors, data = artefact.read(file, "states")
    del tensors[drop]
    artefact.write(file, "states", tensors, data)
    with pytest.raises(ArtefactError, match="expected a set of states"):
        StateSet.load(tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        {"timestamp": 3},
        {"config": []},
        {"separation_stats": {}},
        {"matched": "yes"},
        {"projection_hash": "0" * 64},
    ],
)
def test_wrong_metadata_is_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    file = made().save(tmp_path, "a") / STATES_FILE
    tensors, data = artefact.read(file, "states")
    artefact.write(file, "states", tensors, data | change)
    with pytest.raises(ArtefactError):
        StateSet.load(tmp_path)


def test_wrong_dtypes_and_damaged_files_are_refused(tmp_path: Path) -> None:
    file = made(projection=False).save(tmp_path, "a") / STATES_FILE
    tensors, data = artefact.read(file, "states")
    wider = {name: value.astype(np.float64) for name, value in tensors.items()}
    artefact.write(file, "states", wider, data)
    with pytest.raises(ArtefactError, match="float32"):
        StateSet.load(tmp_path)
    save_file(load_file(file), file)
    with pytest.raises(ArtefactError, match="another origin"):
        StateSet.load(tmp_path)
    file.write_bytes(b"\x80\x04pickle")
    with pytest.raises(ArtefactError, match="whole safetensors"):
        StateSet.load(tmp_path)


# ---- the JSON form ----


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("stacked", [False, True])
def test_json_form_is_imported(tmp_path: Path, nested: bool, stacked: bool) -> None:
    """Row Q16; its own statistics stay with it as a claim, ours are computed anew."""
    classes = unit(0), unit(1)
    data = old_form(*classes)
    if stacked:
        for name, rows in zip(("positive", "negative"), classes, strict=True):
            data[f"{name}_states"] = {"real": rows.real.tolist(), "imag": rows.imag.tolist()}
    if nested:
        data["states"] = {n: data.pop(f"{n}_states") for n in ("positive", "negative")}
    file = tmp_path / "old.json"
    file.write_text(json.dumps(data))
    found = import_states_json(file, matched=True, projection=unit(2, n=9))
    expected = made()
    np.testing.assert_array_equal(found.positive, expected.positive)
    np.testing.assert_array_equal(found.negative, expected.negative)
    assert found.separation == expected.separation
    assert (found.config, found.timestamp) == (CONFIG, WHEN)
    assert found.origin["separation_stats"] == data["separation_stats"]
    assert found.origin["separation_stats"] != found.separation.to_json()
    same(StateSet.load(found.save(tmp_path, "new")), found)


STATE = {"real": [1.0, 0.0], "imag": [0.0, 0.0]}


def hostile(**change: Any) -> dict[str, Any]:
    good = {
        "config": {},
        "separation_stats": {},
        "timestamp": WHEN,
        "positive_states": [STATE, STATE],
        "negative_states": [STATE, STATE],
    }
    return {k: v for k, v in (good | change).items() if v is not None}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "3",
        '"text"',
        "[" * 100_000,
        '{"a": ' * 100_000,
        *(
            json.dumps(hostile(**change))
            for change in (
                {"config": None},
                {"timestamp": None},
                {"timestamp": 5},
                {"timestamp": "now"},
                {"separation_stats": None},
                {"separation_stats": {"gap": "large"}},
                {"separation_stats": {"gap": float("nan")}},
                {"positive_states": None},
                {"positive_states": None, "states": []},
                {"positive_states": 7},
                {"positive_states": []},
                {"positive_states": [STATE]},
                {"positive_states": [STATE, 5]},
                {"positive_states": [STATE, {"real": [1.0, 0.0]}]},
                {"positive_states": [STATE, {"real": [1.0], "imag": [0.0]}]},
                {"positive_states": [STATE, {"real": [1.0, 0.0], "imag": [0.0]}]},
                {"positive_states": [STATE, {"real": ["1.0", 0.0], "imag": [0.0, 0.0]}]},
                {"positive_states": [STATE, {"real": [True, 0.0], "imag": [0.0, 0.0]}]},
                {"positive_states": [STATE, {"real": [None, 0.0], "imag": [0.0, 0.0]}]},
                {"positive_states": [STATE, {"real": [[1.0], 0.0], "imag": [0.0, 0.0]}]},
                {"positive_states": [STATE, {"real": [2.0, 0.0], "imag": [0.0, 0.0]}]},
                {"positive_states": [STATE, {"real": [float("inf"), 0.0], "imag": [0.0, 0.0]}]},
                {"positive_states": [STATE, {"real": [10**400, 0.0], "imag": [0.0, 0.0]}]},
                {"positive_states": [STATE, {"real": [1e39, 0.0], "imag": [0.0, 0.0]}]},
                {"positive_states": [{"real": [], "imag": []}] * 2},
                {"positive_states": {"real": "1", "imag": [[0.0]]}},
                {"negative_states": [{"real": [1.0], "imag": [0.0]}] * 2},
            )
        ),
        json.dumps(hostile()).replace("1.0", "1e999"),
        json.dumps(hostile()).replace("1.0", "1" * 5000),
    ],
)
def test_hostile_json_gives_one_line(tmp_path: Path, text: str) -> None:
    """Row Q16."""
    file = tmp_path / "old.json"
    file.write_text(text)
    with pytest.raises(ArtefactError) as caught:
        import_states_json(file, matched=True)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400 + len(str(file))


def test_other_bytes_and_huge_files_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "old.json"
    with pytest.raises(FileNotFoundError, match="does not exist"):
        import_states_json(file, matched=True)
    file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ArtefactError, match="expected states as JSON"):
        import_states_json(file, matched=True)
    with file.open("wb") as stream:  # sparse: takes no room
        stream.truncate(2**30 + 1)
    with pytest.raises(ArtefactError, match="too much for JSON"):
        import_states_json(file, matched=True)
