"""The demo model's vocabulary: SentencePiece BPE, the same ids in transformers and llama.cpp.

llama.cpp merges by piece scores as SentencePiece BPE does, so the one ``tokenizer.model`` serves
the GGUF converter and, converted to ``tokenizer.json``, the fast tokenizer of transformers.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from io import BytesIO
from pathlib import Path
from typing import Any

VOCAB_SIZE = 1024
CONTEXT = 256
UNKNOWN, BOS, EOS = 0, 1, 2


def train_tokenizer(texts: Iterable[str], vocab_size: int = VOCAB_SIZE) -> bytes:
    """A SentencePiece BPE model of lower-case text, as the bytes of ``tokenizer.model``.

    Text is taken as it is (no normalisation, llama.cpp has none); what the pieces do not cover
    falls back to bytes.
    """
    import sentencepiece

    model = BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts),
        model_writer=model,
        vocab_size=vocab_size,
        model_type="bpe",
        byte_fallback=True,
        character_coverage=1.0,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        unk_id=UNKNOWN,
        bos_id=BOS,
        eos_id=EOS,
        pad_id=-1,
        hard_vocab_limit=True,
        num_threads=1,
        minloglevel=2,
    )
    return model.getvalue()


def save_tokenizer(model: bytes, directory: str | Path) -> None:
    """Write tokenizer.model, tokenizer.json and tokenizer_config.json into ``directory``."""
    from transformers import PreTrainedTokenizerFast

    target = Path(directory)
    target.mkdir(parents=True, exist_ok=True)
    (target / "tokenizer.model").write_bytes(model)
    # The generic class: the Llama class would rebuild the pipeline by rules of its own, in which
    # a leading space is not a piece.
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=_fast_tokenizer(model),
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        model_max_length=CONTEXT,
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )
    tokenizer.save_pretrained(target)
    config = target / "tokenizer_config.json"
    settings = json.loads(config.read_text(encoding="utf-8"))
    # The name that every release of transformers since 4 knows.
    settings["tokenizer_class"] = "PreTrainedTokenizerFast"
    config.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")


def load_tokenizer(directory: str | Path) -> Any:
    """The fast tokenizer saved in ``directory``; nothing is fetched."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(str(directory), local_files_only=True)


def _fast_tokenizer(model: bytes) -> Any:
    """SentencePiece's rules in the terms of the tokenizers library, with BOS in front."""
    import sentencepiece
    from tokenizers import Tokenizer, decoders, models, normalizers, processors

    pieces = sentencepiece.SentencePieceProcessor(model_proto=model)
    names = [pieces.id_to_piece(index) for index in range(pieces.get_piece_size())]
    ids = {name: index for index, name in enumerate(names)}
    bpe = models.BPE(
        vocab=ids,
        merges=_merges(names, ids),
        unk_token="<unk>",
        fuse_unk=True,
        byte_fallback=True,
    )
    tokenizer = Tokenizer(bpe)
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(content=" ", left=1),
        ]
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", BOS)]
    )
    return tokenizer


def _merges(names: list[str], ids: dict[str, int]) -> list[tuple[str, str]]:
    """Merges in the order of the pieces they make, which is the order of falling score."""
    return [
        (name[:cut], name[cut:])
        for name in names
        for cut in range(1, len(name))
        if name[:cut] in ids and name[cut:] in ids
    ]
