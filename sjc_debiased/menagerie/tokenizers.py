"""The tokenizers, made from the grammar: every known word is one token, other words fall apart.

All are written in the formats of the models they stand for: CLIP's byte-pair encoding, T5's unigrams and
BERT's WordPiece, so that the code that loads them is the code that loads the real ones.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import BertTokenizerFast, CLIPTokenizer, T5Tokenizer  # pyright: ignore[reportAttributeAccessIssue]  # lazy

from prompts import debias
from prompts.masked_lm import GAP
from sjc_debiased.menagerie.captions import known_words

CONTEXT = 24
SENTENCE = debias.SENTENCE.partition(GAP)[0].rstrip()


def clip_tokenizer() -> CLIPTokenizer:
    """Return a CLIP tokenizer of `CONTEXT` positions that has each known word as one token."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    bpe = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    bpe.pre_tokenizer = pre_tokenizers.Whitespace()
    trainer = trainers.BpeTrainer(
        vocab_size=10_000,
        end_of_word_suffix="</w>",
        initial_alphabet=alphabet,
        special_tokens=[a + "</w>" for a in alphabet],  # else numbered at random, and merged so
        show_progress=False,
    )
    bpe.train_from_iterator([[word] * 10 for word in [*known_words(), ","]], trainer)
    with tempfile.TemporaryDirectory() as folder:
        vocab_file, merges_file = bpe.model.save(folder)
        merges: Any = [tuple(line.split()) for line in Path(merges_file).read_text().splitlines()[1:]]
    tokens = [*alphabet, *(a + "</w>" for a in alphabet), *("".join(m) for m in merges)]
    vocab = {token: i for i, token in enumerate(dict.fromkeys(tokens))}
    vocab |= {"<|startoftext|>": len(vocab), "<|endoftext|>": len(vocab) + 1}
    return CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=CONTEXT)


def t5_tokenizer() -> T5Tokenizer:
    """Return a tokenizer in T5's form that has each known word as one token."""
    letters = [chr(c) for c in range(ord("!"), ord("~") + 1)]
    special = ["<pad>", "</s>", "<unk>"]
    vocab = [(token, 0.0) for token in special]
    vocab += [(token, -9.0) for token in ["\u2581", *letters]]  # log probabilities: words before letters
    vocab += [(f"\u2581{word}", -1.0) for word in known_words()]
    vocab += [(f"<extra_id_{i}>", 0.0) for i in range(99, -1, -1)]
    return T5Tokenizer(vocab=vocab)


def bert_tokenizer() -> BertTokenizerFast:
    """Return an uncased BERT tokenizer that has each known word as one token."""
    letters = [chr(c) for c in range(ord("a"), ord("z") + 1)] + [str(d) for d in range(10)]
    words = dict.fromkeys([*SENTENCE.lower().split(), *known_words(), *letters, ",", ".", "'", "-"])
    vocab = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words, *("##" + a for a in letters)]
    return BertTokenizerFast(
        vocab={token: i for i, token in enumerate(vocab)}, do_lower_case=True, model_max_length=64
    )
