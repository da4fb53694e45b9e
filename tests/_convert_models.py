"""Converts tiny checkpoints without tokenizers to GGUF, many in one process.

Run as ``python _convert_models.py CONVERTER_FOLDER MODEL_FOLDER...``; writes MODEL_FOLDER.gguf.
A process of its own, because the converter brings its own gguf package; one for all models, because
importing torch and transformers takes longer than converting.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any


def no_vocabulary(model: Any) -> None:
    """In place of the converter's ``set_vocab``: the size and nothing else."""
    model._set_vocab_none()
    model.gguf_writer.add_vocab_size(model.hparams["vocab_size"])


def read_config(folder: Path, is_mistral_format: bool) -> dict[str, Any]:
    config: dict[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return config


def main(converter_folder: str, folders: list[str]) -> None:
    sys.path[:0] = [converter_folder, f"{converter_folder}/gguf-py"]
    import convert_hf_to_gguf as converter

    find_class = converter.get_model_class

    def without_vocabulary(*args: Any, **options: Any) -> Any:
        found = find_class(*args, **options)
        found.set_vocab = no_vocabulary
        return found

    converter.get_model_class = without_vocabulary
    # As written in config.json: transformers' own reading leaves out what it no longer uses.
    converter.ModelBase.load_hparams = staticmethod(read_config)
    for folder in folders:
        sys.argv = ["convert", folder, "--outtype", "f32", "--outfile", f"{folder}.gguf"]
        converter.main()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
