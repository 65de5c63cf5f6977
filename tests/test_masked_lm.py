"""Language models that people have: without vocabulary or head, or of other words, they are refused."""

import json

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

from prompts.hub import MissingError
from prompts.masked_lm import GAP, Bert
from prompts.views import VIEWS
from tests.small_models import write_bert


@pytest.fixture
def folder(tmp_path):
    write_bert(tmp_path / "bert")
    return tmp_path / "bert"


def ask(folder):
    log_p = Bert(str(folder)).gap_log_probabilities([f"a {GAP} view of a cat"], VIEWS)
    return np.exp(log_p) / np.exp(log_p).sum(axis=1, keepdims=True)


def test_a_whole_one_answers(folder, capfd):
    p = ask(folder)
    assert p.sum() == pytest.approx(1)
    assert not np.allclose(p, 0.25)
    assert capfd.readouterr() == ("", "")


def test_without_its_vocabulary_it_is_refused(folder):
    (folder / "tokenizer.json").unlink()
    with pytest.raises(MissingError, match=r"lacks vocab.txt; looked for in .*--masked_lm FOLDER"):
        Bert(str(folder))


def test_with_an_empty_vocabulary_it_is_refused(folder):
    (folder / "tokenizer.json").unlink()
    (folder / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\n")
    four = "front, side, back, top"
    with pytest.raises(ValueError, match=rf"must know the words {four}\. .* does not know {four}: its"):
        ask(folder)


def test_with_a_vocabulary_of_other_words_it_is_refused(folder):
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "le", "chat", "front", "side", "top"]
    (folder / "tokenizer.json").unlink()
    (folder / "vocab.txt").write_text("\n".join(words) + "\n")
    with pytest.raises(
        ValueError, match=r"does not know back: its vocabulary is missing or of another model"
    ):
        ask(folder)


def test_with_a_longer_vocabulary_than_its_own_it_is_refused(folder):
    config = json.loads((folder / "config.json").read_text())
    vocab = json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"]
    (folder / "tokenizer.json").unlink()
    more = [f"word{i}" for i in range(config["vocab_size"])]
    (folder / "vocab.txt").write_text("\n".join([*vocab, *more]) + "\n")
    with pytest.raises(ValueError, match="does not know the tokens of its tokenizer"):
        ask(folder)


def test_without_its_head_it_is_refused(folder):
    path = folder / "model.safetensors"
    kept = {k: v for k, v in load_file(path).items() if not k.startswith("cls.")}
    save_file(kept, path, {"format": "pt"})
    with pytest.raises(ValueError, match=r"must be in BERT's format and whole.*its weights lack cls\."):
        Bert(str(folder))


def test_broken_off_it_is_refused(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match="must be in BERT's format and whole"):
        Bert(str(folder))


def test_pickled_it_is_missing(folder):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(MissingError, match="lacks model.safetensors"):
        Bert(str(folder))
