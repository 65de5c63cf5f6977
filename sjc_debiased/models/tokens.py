"""What a tokenizer must be, and what a prompt, so that a text encoder reads all of it."""

from __future__ import annotations


def check_length(tokenizer, prompt: str) -> None:
    """Refuse a prompt that the text encoder would cut.

    Raises:
        ValueError: says which words would be cut.
    """
    limit = tokenizer.model_max_length
    ids = tokenizer(prompt, truncation=False, verbose=False).input_ids
    if len(ids) > limit:
        cut = tokenizer.decode(ids[limit - 1 : -1])
        raise ValueError(
            f"a view prompt must fit the text encoder's {limit} tokens. {prompt!r} has {len(ids)}: it "
            f"would lose {cut!r}. Shorten the prompt."
        )


def check_vocabulary(tokenizer, size: int) -> None:
    """Refuse a tokenizer that is not its text encoder's, as transformers makes where a vocabulary is missing.

    Args:
        size: tokens that the text encoder knows.

    Raises:
        ValueError: gives both numbers.
    """
    if len(tokenizer) != size:
        raise ValueError(
            f"the tokenizer must have the text encoder's {size} tokens. It has {len(tokenizer)}: its "
            "vocabulary is missing, cut or of another model. Download the model's tokenizer/ again."
        )
