"""The classifier judge: a tiny classifier with known weights, and folders that are none."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from transformers.utils import logging

from _judges import samples
from _planted import IDS, NEGATIVE, PLAIN, POSITIVE, WORDS, word_tokenizer
from cogit.errors import ArtefactError
from cogit.evaluation.judges import labels, make_judge
from cogit.evaluation.judges.classifier import ClassifierJudge

TEXTS = ("word1 good0", "word2 word3 good3", "bad1", "word1 good1 word2 bad2", "word5")
NAMES = {0: "NEGATIVE", 1: "neutral", 2: "POSITIVE"}
LOGITS = {1: [-1.0, 0.5, 2.0], -1: [2.0, 0.5, -1.0], 0: [0.0, 1.5, 0.0]}


def softmax(values: list[float]) -> Any:
    return np.exp(values) / np.exp(values).sum()


def classifier(names: dict[int, str]) -> Any:
    """A decoder that passes the last word on; its class decides the logits, exactly."""
    config = transformers.LlamaConfig(
        vocab_size=len(WORDS),
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=32,
        pad_token_id=IDS["</s>"],
        num_labels=len(names),
        id2label=names,
        label2id={name: i for i, name in names.items()},
    )
    model = transformers.LlamaForSequenceClassification(config)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            weight.fill_(1.0 if "norm" in name else 0.0)
        for word, index in IDS.items():
            kind = (word in POSITIVE) - (word in NEGATIVE)
            # One dimension for each kind: the norm makes it √16 long.
            model.model.embed_tokens.weight[index, kind + 1] = 1.0
        for kind, values in LOGITS.items():
            columns = torch.tensor(values)[: len(names)] / 4
            model.score.weight[:, kind + 1] = columns
    return model.eval()


def tokenizer(**more: Any) -> Any:
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=word_tokenizer().backend_tokenizer, unk_token="<unk>", **more
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    logging.disable_progress_bar()
    path = tmp_path_factory.mktemp("classifier") / "tiny"
    classifier(NAMES).save_pretrained(path)
    tokenizer(pad_token="</s>", bos_token="<s>").save_pretrained(path)
    return path


@pytest.fixture
def copy(folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(folder, tmp_path / "copy"))


def configure(path: Path, **more: Any) -> None:
    file = path / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **more}))


def test_scores_by_hand(folder: Path) -> None:
    """Q49: p(positive) − p(negative), softmax over all three labels."""
    judge = make_judge(f"classifier:{folder}")
    scores = judge.scores(samples(*TEXTS, "", "  "))
    p = softmax(LOGITS[1])
    up = p[2] - p[0]
    # Float32 logits of about 2.
    assert scores.tolist() == pytest.approx([up, up, -up, -up, 0, 0, 0], abs=1e-5)
    assert labels(scores[:4]).tolist() == [1, 1, -1, -1]


def test_the_score_knows_the_label(folder: Path) -> None:
    """Q49: the source averaged the confidence of either label; a sure *negative* is −, never +."""
    judge = make_judge(f"classifier:{folder}")
    negative = judge.scores(samples(*NEGATIVE))
    assert (negative < 0).all()
    assert (judge.scores(samples(*POSITIVE)) > 0).all()
    turned = make_judge(f"classifier:{folder}?positive=NEGATIVE&negative=POSITIVE")
    assert turned.scores(samples(*NEGATIVE)).tolist() == (-negative).tolist()


@pytest.mark.parametrize(
    "options", ["positive=2&negative=0", "positive=positive&negative=negative"]
)
def test_labels_by_number_or_name(folder: Path, options: str) -> None:
    judge = make_judge(f"classifier:{folder}?{options}")
    assert judge.describe()["positive"] == "POSITIVE"
    assert judge.scores(samples("good0"))[0] > 0


def test_batches_do_not_matter(folder: Path) -> None:
    rng = np.random.default_rng(0)
    texts = [" ".join(rng.choice(WORDS[3:], rng.integers(1, 12))) for _ in range(40)]
    found = [
        make_judge(f"classifier:{folder}?batch={n}").scores(samples(*texts)) for n in (1, 7, 64)
    ]
    assert found[1].tolist() == pytest.approx(found[0].tolist(), abs=1e-5)
    assert found[2].tolist() == pytest.approx(found[0].tolist(), abs=1e-5)


def test_a_tokenizer_without_padding_judges_one_by_one(folder: Path) -> None:
    model = ClassifierJudge(classifier(NAMES), tokenizer(), source="mine")
    assert labels(model.scores(samples(*TEXTS[:4]))).tolist() == [1, 1, -1, -1]


def test_long_texts_are_cut_and_counted(folder: Path) -> None:
    judge = ClassifierJudge.load(folder)
    long = f"{' '.join(PLAIN * 3)} good0"
    scores = judge.scores(samples("good0", long))
    assert judge.n_cut == 1
    assert judge.describe()["max_tokens"] == 30
    assert labels(scores).tolist() == [1, 0]  # its last word was not read


def test_the_description_says_what_decides(folder: Path, copy: Path) -> None:
    found = make_judge(f"classifier:{folder}").describe()
    assert found["labels"] == list(NAMES.values())
    assert (found["model"], found["positive"], found["negative"]) == (
        "tiny",
        "POSITIVE",
        "NEGATIVE",
    )
    model = classifier(NAMES)
    with torch.no_grad():
        model.score.weight += 1
    model.save_pretrained(copy)
    assert make_judge(f"classifier:{copy}").describe()["fingerprint"] != found["fingerprint"]


def test_labels_without_a_meaning_must_be_mapped(copy: Path) -> None:
    configure(copy, id2label={0: "LABEL_0", 1: "LABEL_1", 2: "LABEL_2"})
    with pytest.raises(ValueError, match=r"expected both .* among the labels 0 LABEL_0, 1 LABEL_1"):
        make_judge(f"classifier:{copy}")
    judge = make_judge(f"classifier:{copy}?positive=LABEL_2&negative=label_0")
    assert judge.scores(samples("good0"))[0] > 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("positive=POSITIVE", "expected both"),
        ("positive=good&negative=NEGATIVE", "expected one of the labels .* got 'good'"),
        ("positive=7&negative=0", "expected one of the labels"),
        ("positive=-1&negative=0", "expected one of the labels"),
        ("positive=2&negative=POSITIVE", "expected two different labels"),
        ("batch=0", "expected a batch"),
        ("max_tokens=0", "expected a batch"),
        ("device=tpu7", "expected auto, cpu"),
    ],
)
def test_options_are_checked(folder: Path, options: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_judge(f"classifier:{folder}?{options}")


@pytest.mark.parametrize("kind", ["multi_label_classification", "regression"])
def test_classes_must_exclude_each_other(copy: Path, kind: str) -> None:
    configure(copy, problem_type=kind)
    with pytest.raises(ValueError, match="classes exclude each other"):
        make_judge(f"classifier:{copy}")


def test_one_output_is_no_classifier(folder: Path) -> None:
    with pytest.raises(ValueError, match="1 outputs"):
        ClassifierJudge(classifier({0: "POSITIVE"}), tokenizer(), source="mine")


def test_a_model_without_a_trained_head_is_refused(folder: Path, tmp_path: Path) -> None:
    """transformers would make one up at random, and it would judge."""
    path = tmp_path / "headless"
    shutil.copytree(folder, path)
    classifier(NAMES).model.save_pretrained(path)
    configure(path, id2label=NAMES, architectures=["LlamaForSequenceClassification"])
    with pytest.raises(ArtefactError, match=r"expected a trained classifier .* score.weight"):
        make_judge(f"classifier:{path}")


def test_damaged_files_are_refused(copy: Path) -> None:
    weights = copy / "model.safetensors"
    data = weights.read_bytes()
    for content in (data[: len(data) // 2], b"", b"\xff" * 100):
        weights.write_bytes(content)
        with pytest.raises(ArtefactError, match=r"^\[judge classifier\] expected") as caught:
            make_judge(f"classifier:{copy}")
        assert "\n" not in str(caught.value)


def test_pickles_are_not_read(copy: Path) -> None:
    model = classifier(NAMES)
    (copy / "model.safetensors").unlink()
    torch.save(model.state_dict(), copy / "pytorch_model.bin")
    with pytest.raises(OSError, match=r"^\[judge classifier\] expected a classifier in"):
        make_judge(f"classifier:{copy}")


def test_code_in_the_folder_does_not_run(copy: Path, tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    (copy / "evil.py").write_text(f"open({str(mark)!r}, 'w').write('x')\nclass Evil: pass\n")
    configure(
        copy,
        model_type="evil",
        auto_map={
            "AutoConfig": "evil.Evil",
            "AutoModelForSequenceClassification": "evil.Evil",
        },
    )
    with pytest.raises(ArtefactError, match=r"^\[judge classifier\] expected a classifier in"):
        make_judge(f"classifier:{copy}")
    assert not mark.exists()


@pytest.mark.parametrize("config", ["", "{", "[]", '{"model_type": "none"}', "\xff"])
def test_bad_configurations_are_refused(copy: Path, config: str) -> None:
    (copy / "config.json").write_bytes(config.encode("latin-1"))
    with pytest.raises((ArtefactError, OSError), match=r"^\[judge classifier\]") as caught:
        make_judge(f"classifier:{copy}")
    assert "\n" not in str(caught.value)


def test_what_is_not_there_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The variable is read on import, which came before any fixture.
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    (tmp_path / "file").write_text("")
    for source in (tmp_path, tmp_path / "none", tmp_path / "file", "../x", "a/b/c", "-x"):
        with pytest.raises(FileNotFoundError, match=r"^\[judge classifier\] expected a"):
            make_judge(f"classifier:{source}")
    with pytest.raises(OSError, match=r"^\[judge classifier\] expected a classifier in no-such"):
        make_judge("classifier:no-such/classifier-here")
