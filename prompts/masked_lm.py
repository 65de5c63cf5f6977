"""A masked language model behind one question: how likely is each of these words in this gap?"""

from __future__ import annotations

from collections.abc import Collection
from fnmatch import fnmatch
from pathlib import Path
from typing import Protocol

import numpy as np

from prompts.hub import download_command, gather
from prompts.quiet import quiet

GAP = "___"
DEFAULT_MASKED_LM = "google-bert/bert-base-uncased"


class MaskedLM(Protocol):
    """What prompt debiasing needs of a language model."""

    def gap_log_probabilities(self, texts: list[str], words: tuple[str, ...]) -> np.ndarray:
        """Return log P(word in the gap | text), float64 [len(texts), len(words)].

        Every text holds `GAP` once. The probabilities are those over the model's whole vocabulary, so those
        of `words` sum to less than 1: who asks normalises.
        """
        ...


PATTERNS = ("*.json", "vocab.txt", "model.safetensors")
"""What `hf download --include` takes to fetch no more than this needs: 440 MB of BERT."""

_TOKENIZERS = ("tokenizer.json", "vocab.txt")


def find_masked_lm(name: str, local_files_only: bool = False) -> Path:
    """Return a folder with a language model's files: the one that is named, or from the cache or the hub.

    Raises:
        MissingError: lists what is missing, and where it was looked for.
    """

    def lacking(files: Collection[str]) -> list[str]:
        missing = [file for file in ("config.json", "model.safetensors") if file not in files]
        return missing + ([] if any(file in files for file in _TOKENIZERS) else ["vocab.txt"])

    def chosen(files: Collection[str]) -> list[str]:
        return [f for f in files if "/" not in f and any(fnmatch(f, pattern) for pattern in PATTERNS)]

    remedy = (
        "Prompt debiasing needs a masked language model in BERT's format. Download it where there is a "
        f"network ({download_command(DEFAULT_MASKED_LM, PATTERNS)}), or name a local folder: --masked_lm "
        "FOLDER."
    )
    return gather(name, lacking, chosen, remedy, local_files_only)


class Bert:
    """Wrap a BERT-format masked language model (a hub name or a local folder), on the CPU."""

    def __init__(self, name: str, local_files_only: bool = False):
        """Load the tokenizer and the model.

        Raises:
            MissingError: the model is neither a local folder nor within reach of the hub.
            ValueError: it cannot be read, or has no head that predicts masked words.
        """
        import torch

        folder = find_masked_lm(name, local_files_only)
        from transformers import AutoModelForMaskedLM, AutoTokenizer

        self._torch, self._name = torch, name
        try:
            with quiet("transformers"):
                self._tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
                model, report = AutoModelForMaskedLM.from_pretrained(
                    folder, local_files_only=True, use_safetensors=True, output_loading_info=True
                )
            if report["missing_keys"]:
                raise ValueError(f"its weights lack {min(report['missing_keys'])}")
            if self._tokenizer.mask_token_id is None:
                raise ValueError("its tokenizer has no mask")
        except Exception as error:  # a damaged file fails in the way of whichever library reads it
            raise ValueError(
                f"a masked language model must be in BERT's format and whole. {name!r} is not ({error}). "
                "Download it again, or name another folder with --masked_lm FOLDER."
            ) from error
        self._model = model.float().eval()

    def gap_log_probabilities(self, texts: list[str], words: tuple[str, ...]) -> np.ndarray:
        """Return log P(word in the gap | text) over the whole vocabulary: float64 [texts, words].

        A word of k word pieces gets k masks, and its probability is the product over its pieces, each
        given the pieces before it.
        """
        columns = {}
        self._check_known(words)
        pieces = {w: self._tokenizer.encode(w, add_special_tokens=False) for w in words}
        for length in sorted({len(p) for p in pieces.values()}):
            group = [w for w in words if len(pieces[w]) == length]
            first = self._log_probabilities(texts, [], length)
            for word in group:
                log_p = first[:, pieces[word][0]]
                for i in range(1, length):
                    log_p = (
                        log_p + self._log_probabilities(texts, pieces[word][:i], length)[:, pieces[word][i]]
                    )
                columns[word] = log_p
        return np.stack([columns[w] for w in words], axis=1)

    def knows(self, word: str) -> bool:
        """Tell whether the vocabulary can spell a word in other pieces than its single letters."""
        pieces = self._tokenizer.tokenize(word)
        return self._tokenizer.unk_token not in pieces and (
            len(word) == 1 or any(len(p.removeprefix("##")) > 1 for p in pieces)
        )

    def _check_known(self, words: tuple[str, ...]) -> None:
        """Refuse a vocabulary without these words: every answer about them would be the same.

        Raises:
            ValueError: names the words.
        """
        unknown_id = self._tokenizer.unk_token_id
        unknown = [w for w in words if unknown_id in self._tokenizer.encode(w, add_special_tokens=False)]
        if unknown or len(self._tokenizer) > self._model.config.vocab_size:
            raise ValueError(
                f"the language model must know the words {', '.join(words)}. {self._name!r} does not know "
                f"{', '.join(unknown) or 'the tokens of its tokenizer'}: its vocabulary is missing or of "
                "another model. Download it again, or name another folder with --masked_lm FOLDER."
            )

    def _log_probabilities(self, texts: list[str], filled: list[int], n_pieces: int) -> np.ndarray:
        """Return log P over the vocabulary of the first open piece of the gap: [texts, vocab]."""
        tokenizer, torch = self._tokenizer, self._torch
        gap = [*filled, *[tokenizer.mask_token_id] * (n_pieces - len(filled))]
        rows = []
        for text in texts:
            before, after = text.split(GAP, 1)
            ids = [tokenizer.encode(part.strip(), add_special_tokens=False) for part in (before, after)]
            rows.append([tokenizer.cls_token_id, *ids[0], *gap, *ids[1], tokenizer.sep_token_id])
        longest, limit = max(map(len, rows)), self._model.config.max_position_embeddings
        if longest > limit:
            raise ValueError(
                f"the prompt must fit the language model's {limit} word pieces. With its sentence it has "
                f"{longest}. Shorten the prompt."
            )
        ids = torch.full((len(rows), longest), tokenizer.pad_token_id)
        for row, tokens in zip(ids, rows):
            row[: len(tokens)] = torch.tensor(tokens)
        attention = torch.tensor([[i < len(r) for i in range(longest)] for r in rows]).long()
        at = torch.tensor([r.index(tokenizer.mask_token_id) for r in rows])
        with torch.inference_mode():
            logits = self._model(input_ids=ids, attention_mask=attention).logits
        picked = logits[torch.arange(len(rows)), at].double()
        return picked.log_softmax(-1).numpy()
