"""Stage 3: a small BERT on the captions, in the sentence that prompt debiasing asks about."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import nn
from transformers import BertConfig, BertForMaskedLM

from sjc_debiased.menagerie.captions import caption_parts, draw_pose, lose_word, view_of
from sjc_debiased.menagerie.creatures import random_creature
from sjc_debiased.menagerie.tokenizers import SENTENCE, bert_tokenizer
from sjc_debiased.menagerie.training import SEED, device, fit

_BATCH = 128
_CORPUS = 160_000
_P_MASK = 0.15


def train(work: Path, out: Path, n_steps: int) -> None:
    """Train on captions that say a view, with the view word masked and others now and then."""
    tokenizer = bert_tokenizer()
    torch.manual_seed(0)
    model = BertForMaskedLM(
        BertConfig(
            vocab_size=len(tokenizer),
            hidden_size=128,
            num_hidden_layers=2,
            num_attention_heads=4,
            intermediate_size=256,
            max_position_embeddings=64,
            pad_token_id=tokenizer.pad_token_id,
        )
    ).to(device())
    loss_fn = nn.CrossEntropyLoss()
    rng = np.random.default_rng([SEED, 3])
    corpus = tokenizer([_sentence(rng) for _ in range(_CORPUS)], padding=True, return_tensors="pt")

    def loss_at(step: int) -> torch.Tensor:
        rng = np.random.default_rng([SEED, 3, step])
        torch.manual_seed(step)  # dropout
        picks = torch.from_numpy(rng.integers(_CORPUS, size=_BATCH))
        ids, attention_mask = corpus.input_ids[picks], corpus.attention_mask[picks]
        open_words = ids > tokenizer.mask_token_id
        masked = torch.from_numpy(rng.random(ids.shape) < _P_MASK) & open_words
        masked[:, 1 + len(SENTENCE.split())] = True  # the view word
        labels = torch.where(masked, ids, -100)
        inputs = torch.where(masked, tokenizer.mask_token_id, ids)
        logits = model(input_ids=inputs.to(device()), attention_mask=attention_mask.to(device())).logits
        return loss_fn(logits.flatten(0, 1), labels.flatten().to(device()))

    fit("masked_lm", work, model, loss_at, n_steps, lr=1e-3)
    model.to("cpu", torch.float16).save_pretrained(out)
    tokenizer.save_pretrained(out)


def _sentence(rng: np.random.Generator) -> str:
    while True:
        creature, view = random_creature(rng), view_of(*draw_pose(rng))
        word, phrase = caption_parts(creature, view, rng)
        if word:
            phrase = lose_word(phrase, rng) if rng.random() < 0.2 else phrase
            return f"{SENTENCE} {word} view of {phrase}"
