"""A masked language model behind one question: how likely is each of these words in this gap?"""

from __future__ import annotations

from typing import Protocol

import numpy as np

GAP = "___"


class MaskedLM(Protocol):
    """What prompt debiasing needs of a language model."""

    def gap_log_probabilities(self, texts: list[str], words: tuple[str, ...]) -> np.ndarray:
        """Return log P(word in the gap | text), float64 [len(texts), len(words)].

        Every text holds `GAP` once. The probabilities are those over the model's whole vocabulary, so those
        of `words` sum to less than 1: who asks normalises.
        """


class Bert:
    """Wrap a BERT-format masked language model (a hub name or a local folder), on the CPU."""

    def __init__(self, name: str, local_files_only: bool = False):
        """Load the tokenizer and the model.

        Raises:
            OSError: the model is neither a local folder nor within reach of the hub.
        """
        import torch
        from transformers import AutoModelForMaskedLM, AutoTokenizer

        self._torch = torch
        try:
            self._tokenizer = AutoTokenizer.from_pretrained(name, local_files_only=local_files_only)
            self._model = AutoModelForMaskedLM.from_pretrained(
                name, local_files_only=local_files_only, use_safetensors=True
            ).float()
        except (OSError, ValueError) as error:
            raise OSError(
                "prompt debiasing needs a masked language model in BERT's format. "
                f"{name!r} is neither a folder with one nor within reach of the hub ({error}). "
                "Download it where there is a network (`hf download google-bert/bert-base-uncased`), or "
                "name a local folder with --masked_lm FOLDER."
            ) from error
        self._model.eval()

    def gap_log_probabilities(self, texts: list[str], words: tuple[str, ...]) -> np.ndarray:
        """Return log P(word in the gap | text) over the whole vocabulary: float64 [texts, words].

        A word of k word pieces gets k masks, and its probability is the product over its pieces, each
        given the pieces before it.
        """
        columns = {}
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
