"""Operator files of the older torch form: read without running what they hold."""

from __future__ import annotations

import io
import pickle
import warnings
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from _unitaries import close, dense_cayley, gaussian
from cogit.errors import ArtefactError
from cogit.training.operator_file import OperatorFile
from cogit.training.operator_import import import_torch

if TYPE_CHECKING:
    from collections.abc import Callable

Q = 6


def older(**changes: Any) -> dict[str, Any]:
    """A file as the earlier system wrote it."""
    squares = [0.3 * gaussian(Q, Q, seed=seed, dtype=torch.float32) for seed in (1, 2)]
    return {
        "model_state_dict": OrderedDict(
            [("unitary_layer.A_upper", squares[0]), ("unitary_layer.B_upper", squares[1])]
        ),
        "config": {
            "model_name": "a model",
            "model_identifier": "a-model",
            "quantum_dim": Q,
            "input_dim": 4,
            "preset": "unknown",
        },
        "training_history": {"loss_history": [0.5, 0.1], "fidelity_history": [0.5, 0.9]},
        "timestamp": "20251101_120000",
    } | changes


def written(path: Path, document: object) -> Path:
    torch.save(document, path)
    return path


def test_an_older_file_gives_its_unitary(tmp_path: Path) -> None:
    """Row Q15: H = A + iB from the upper triangles of two squares."""
    document = older()
    file = import_torch(
        written(tmp_path / "u.pt", document), layer=5, direction="positive_to_negative"
    )
    a, b = (value.double().numpy() for value in document["model_state_dict"].values())
    generator = np.triu(a) + np.triu(a, 1).T + 1j * (np.triu(b, 1) - np.triu(b, 1).T)
    # complex64 against complex128.
    close(torch.from_numpy(file.unitary()), dense_cayley(generator), 1e-5)
    assert (file.config.layer, file.config.direction) == (5, "positive_to_negative")
    assert (file.config.quantum_dim, file.config.input_dim) == (Q, 4)
    assert (file.config.preset, file.config.model_name) == ("unknown", "a model")
    assert file.loss_history == (0.5, 0.1)
    assert file.fidelity_history == (0.5, 0.9)
    assert file.timestamp == "20251101_120000"
    again = OperatorFile.load(file.save(tmp_path / "u.safetensors"))
    assert np.array_equal(again.unitary(), file.unitary())


def test_older_files_differ_a_little(tmp_path: Path) -> None:
    document = older()
    plain = import_torch(written(tmp_path / "u.pt", document)).unitary()
    as_parameters = {
        name.split(".")[-1]: torch.nn.Parameter(value)
        for name, value in document["model_state_dict"].items()
    }
    changed = older(model_state_dict=as_parameters)
    changed["config"] |= {"preset": "qwen_local", "layer": 31, "more": "text"}
    file = import_torch(written(tmp_path / "v.pt", changed))
    assert np.array_equal(file.unitary(), plain)
    # What a file claims about its layer is not known to be 0-based.
    assert (file.config.preset, file.config.layer) == ("qwen_local", None)
    double = {k: v.double() for k, v in document["model_state_dict"].items()}
    file = import_torch(written(tmp_path / "w.pt", older(model_state_dict=double)))
    assert file.unitary().dtype == np.complex128


class Hostile:
    """Runs something when it is unpickled."""

    def __init__(self, call: Callable[..., object], *arguments: object) -> None:
        self.call, self.arguments = call, arguments

    def __reduce__(self) -> tuple[Any, ...]:
        return self.call, self.arguments


def test_a_file_that_would_run_code_is_refused(tmp_path: Path) -> None:
    """Row Q15: named, and nothing runs."""
    import os

    marker = tmp_path / "ran"
    for place in ("config", "model_state_dict", "timestamp"):
        hostile = Hostile(os.mkdir, str(marker))
        path = written(tmp_path / "u.pt", older(**{place: hostile}))
        with pytest.raises(ArtefactError, match=r"reference to (posix|os|nt)\.mkdir, which could"):
            import_torch(path)
        assert not marker.exists()
    path = written(tmp_path / "u.pt", Hostile(eval, "1 + 1"))
    with pytest.raises(ArtefactError, match=r"a reference to (builtins|__builtin__)\.eval"):
        import_torch(path)


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_other_protocols_of_pickle_are_refused_where_they_name_objects(
    tmp_path: Path, protocol: int
) -> None:
    path = tmp_path / "u.pt"
    torch.save(Hostile(print, "ran"), path, pickle_protocol=protocol)
    with pytest.raises(ArtefactError, match=r"^\[import\] expected tensors alone in .*run code$"):
        import_torch(path)


def test_a_bare_pickle_is_refused(tmp_path: Path) -> None:
    """The form before torch 1.6, which declares sizes that nothing bounds."""
    path = tmp_path / "u.pt"
    path.write_bytes(pickle.dumps({"a": 1}))
    with pytest.raises(ArtefactError, match=r"expected a whole torch file \(a zip archive\)"):
        import_torch(path)
    torch.save(older(), path, _use_new_zipfile_serialization=False)
    with pytest.raises(ArtefactError, match=r"expected a whole torch file \(a zip archive\)"):
        import_torch(path)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 0.99])
def test_a_truncated_file_is_refused(tmp_path: Path, share: float) -> None:
    path = written(tmp_path / "u.pt", older())
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    with pytest.raises(ArtefactError, match=r"^\[import\] expected a whole torch file [^\n]*$"):
        import_torch(path)


def test_bytes_changed_at_random_are_refused_or_harmless(tmp_path: Path) -> None:
    data = written(tmp_path / "u.pt", older()).read_bytes()
    rng = np.random.default_rng(0)
    path = tmp_path / "v.pt"
    refused = 0
    for _ in range(150):
        changed = bytearray(data)
        for place in rng.integers(0, len(data), 4):
            changed[place] = rng.integers(256)
        path.write_bytes(bytes(changed))
        try:
            import_torch(path).unitary()
        except ArtefactError:
            refused += 1
    assert refused > 10


def repacked(path: Path, change: Callable[[str, bytes], bytes], **settings: Any) -> Path:
    """The archive written again, with parts changed."""
    with zipfile.ZipFile(path) as archive:
        parts = [(part.filename, archive.read(part)) for part in archive.infolist()]
    with zipfile.ZipFile(path, "w", **settings) as archive:
        for name, data in parts:
            archive.writestr(name, change(name, data))
    return path


def test_archives_that_unpack_to_more_are_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "u.pt", older())
    repacked(path, lambda name, data: data, compression=zipfile.ZIP_DEFLATED)
    with pytest.raises(ArtefactError, match="expected an uncompressed archive"):
        import_torch(path)
    with pytest.raises(ArtefactError, match=r"^\[load\] expected at most 64 bytes"):
        import_torch(path, max_bytes=64)
    with pytest.raises(FileNotFoundError, match=r"^\[load\] expected a file"):
        import_torch(tmp_path / "absent")


def test_a_second_pickle_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "u.pt", older())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # zipfile's word on the name that is there twice
        for name in ("u/data.pkl", "other/data.pkl", "u/constants.pkl"):
            data = path.read_bytes()
            with zipfile.ZipFile(path, "a") as archive:
                archive.writestr(name, pickle.dumps({}))
            with pytest.raises(ArtefactError, match=r"expected one data\.pkl"):
                import_torch(path)
            path.write_bytes(data)


@pytest.mark.parametrize("claimed", [b"J\x00\xe1\xf5\x05", b"J\xff\xff\xff\x7f"])
def test_a_storage_that_claims_more_than_it_has_is_refused(tmp_path: Path, claimed: bytes) -> None:
    """36 numbers are stored; the pickle speaks of 10^8 or 2^31 - 1, and of a shape to match."""
    path = written(tmp_path / "u.pt", older(**with_config(quantum_dim=10_000)))

    def claim(name: str, part: bytes) -> bytes:
        if not name.endswith("data.pkl"):
            return part
        # The number 36, the size of the storage, and the pair (6, 6), the tensor's shape.
        assert part.count(b"K$") == part.count(b"K\x06K\x06\x86") == 2
        large = b"M\x10\x27M\x10\x27\x86"
        return part.replace(b"K$", claimed).replace(b"K\x06K\x06\x86", large)

    repacked(path, claim)
    with pytest.raises(ArtefactError, match=r"expected a whole torch file of plain tensors in"):
        import_torch(path)


def squares(first: torch.Tensor, second: torch.Tensor | None = None) -> dict[str, Any]:
    other = first if second is None else second
    return {"unitary_layer.A_upper": first, "unitary_layer.B_upper": other}


def with_config(**changes: Any) -> dict[str, Any]:
    return {"config": older()["config"] | changes}


GOOD = torch.zeros(Q, Q)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_state_dict": squares(torch.zeros(Q, 5))}, r"A_upper of shape \(6, 6\).*\(6, 5\)"),
        ({"model_state_dict": squares(GOOD, torch.zeros(3))}, r"B_upper of shape \(6, 6\)"),
        ({"model_state_dict": {"A_upper": GOOD}}, r"A_upper and unitary_layer.B_upper"),
        ({"model_state_dict": squares(GOOD) | {"more": GOOD}}, r"A_upper and unitary_layer.B_up"),
        ({"model_state_dict": [GOOD, GOOD]}, r"a dictionary of tensors"),
        ({"model_state_dict": squares(GOOD.half())}, r"run code|float32 or float64"),
        ({"model_state_dict": squares(GOOD.long())}, r"run code|float32 or float64"),
        ({"model_state_dict": squares(GOOD, GOOD.double())}, r"both squares of one dtype"),
        ({"model_state_dict": squares(GOOD / 0)}, r"expected parameters to be finite"),
        ({"model_state_dict": squares(GOOD + torch.inf)}, r"expected parameters to be finite"),
        ({"model_state_dict": {"A_upper": "x", "B_upper": GOOD}}, r"a plain tensor as A_upper"),
        (with_config(quantum_dim=7), r"A_upper of shape \(7, 7\)"),
        (with_config(quantum_dim=0), r"a whole number of 1 or more as quantum_dim"),
        (with_config(quantum_dim=True), r"a whole number of 1 or more as quantum_dim"),
        (with_config(quantum_dim=2**80), r"A_upper of shape|whole torch file"),
        (with_config(input_dim=-4), r"expected input_dim to be a whole number"),
        (with_config(input_dim="4"), r"expected input_dim to be a whole number"),
        (with_config(model_name=None), r"expected model_name to be a short text"),
        ({"config": ["a"]}, r"a dictionary as config"),
        ({"training_history": {"loss_history": []}}, r"fidelity_history"),
        ({"training_history": {"loss_history": [float("nan")], "fidelity_history": []}}, r"finite"),
        ({"timestamp": 5.0}, r"timestamp"),
    ],
)
def test_entries_of_older_files_that_do_not_fit(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ArtefactError, match=message) as caught:
        import_torch(written(tmp_path / "u.pt", older(**changes)))
    assert str(caught.value).startswith("[")
    assert "\n" not in str(caught.value)


def test_a_tensor_that_repeats_its_storage_is_refused(tmp_path: Path) -> None:
    """One number that claims a shape of a gigabyte when it is copied."""
    wide = torch.zeros(1).expand(16_000, 16_000)
    document = older(model_state_dict=squares(wide), **with_config(quantum_dim=16_000))
    path = written(tmp_path / "u.pt", document)
    assert path.stat().st_size < 10_000
    with pytest.raises(ArtefactError, match="A_upper in float32 or float64, stored in full"):
        import_torch(path)


def test_things_that_are_no_dictionary_are_refused(tmp_path: Path) -> None:
    missing = {k: v for k, v in older().items() if k != "timestamp"}
    for document in (GOOD, [1, 2], "text", {}, missing):
        with pytest.raises(ArtefactError, match=r"expected a dictionary of model_state_dict, "):
            import_torch(written(tmp_path / "u.pt", document))


def test_torchscript_is_refused(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("u/data.pkl", pickle.dumps({}, protocol=2))
        archive.writestr("u/constants.pkl", pickle.dumps((), protocol=2))
        archive.writestr("u/version", "3\n")
    (tmp_path / "u.pt").write_bytes(buffer.getvalue())
    with pytest.raises(ArtefactError, match=r"expected one data\.pkl"):
        import_torch(tmp_path / "u.pt")
