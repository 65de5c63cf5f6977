"""Words of a prompt: splitting it, dropping some, and telling which must stay.

The subject must never be lost ("a smiling cat" may lose "smiling", not "cat"), so the head noun is kept.
Articles and connecting words ("with", "and", "wearing") show nothing that could contradict a view: they are
kept, but where nothing is left of their phrase. The head noun is found by rule, without a parser: it is the
last word of a noun phrase, and a noun phrase ends at a preposition, a comma, a new article, or a participle
("munching", "dressed"). A participle may also stand before its noun ("a cute smiling cat"): then both
readings' nouns are kept, because keeping a word too many costs little and losing the subject costs the
object. "A DSLR photo of a dog" is a photo of its subject: the phrase after it is searched too. "A cat,
photorealistic" and "a happy, fluffy cat" read alike, so what stands before a comma or a dash is kept as well
as what stands at the end.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

ARTICLES = frozenset("a an the".split())
_BOUNDARIES = frozenset(
    "with without in on onto at of from by for to under over above below behind beside near through "
    "into like as that which who and or wearing made standing sitting".split()
)
_JOINERS = frozenset("and or".split())
_SIGNS = {"&": "and", "+": "and"}
_CHUNK = r"\S+?(?:[,;:]+(?=[^\W\d_])|(?!\S))"  # up to white space, or to a comma that a letter follows
_DANGLING = " ,;:-–—|/&+"
_POSTURES = frozenset("made standing sitting".split())
BY_THEIR_PHRASE = frozenset({"article", "connects"})  # reasons to stay that hold while their phrase does
_NOUNS_LIKE_PARTICIPLES = frozenset(
    "building painting drawing duckling gosling dumpling darling sibling viking string ceiling wedding "
    "pudding earring lightning clothing evening morning sapling fledgling starling herring steed".split()
)
_PICTURES = frozenset("photo photograph picture image render rendering painting drawing sketch".split())


@dataclass(frozen=True)
class Word:
    """One word of a prompt: its text without punctuation, lower case, and the span it stands in."""

    text: str
    start: int
    end: int
    comma_after: bool


def split_words(prompt: str) -> list[Word]:
    """Return the words of a prompt in order; apostrophes and hyphens belong to their word.

    A word's span takes the punctuation that touches it, and a dash that stands by itself after it.
    """
    words: list[Word] = []
    for chunk in re.finditer(_CHUNK, prompt):
        text = chunk.group().strip("\"“”‘’'.,;:!?()[]{}…").lower()
        text = _SIGNS.get(text, text)
        if any(character.isalnum() for character in text):
            comma = chunk.group()[-1] in ",;:."
            words.append(Word(text, chunk.start(), chunk.end(), comma))
        elif words:
            words[-1] = replace(words[-1], end=chunk.end(), comma_after=True)
    return words


def without_strays(prompt: str, dropped: set[str], needed: set[str]) -> str:
    """Return the prompt without the dropped words and without the words that they leave stray.

    "a bear wearing a backpack" without "backpack" is "a bear", not "a bear wearing a"; "a bear with big eyes"
    without "eyes" is "a bear", not "a bear with big". What goes is an "and" or "or" beside a dropped word; an
    article, a preposition or "wearing" of which nothing is left; and what describes a dropped noun. Their
    phrase ends with the prompt or at the next preposition; where a comma ends it they stay: that takes a
    parser.

    A dropped word's punctuation goes with it; the rest keeps its spelling, and no comma is left dangling.

    Args:
        dropped, needed: words that go, and words that stay in any case; lower case.
    """
    words = split_words(prompt)
    left: list[str] = []
    follows, gone_after = None, False  # the next word that stays; whether the next word of the prompt goes
    for i in reversed(range(len(words))):
        text = words[i].text
        empty = gone_after and (follows is None or follows in _BOUNDARIES)  # nothing is left of the phrase
        if text in _JOINERS:
            stray = gone_after or (i > 0 and words[i - 1].text in dropped)
        elif text in ARTICLES:
            stray = empty or (gone_after and follows in ARTICLES)
        elif text in _BOUNDARIES:
            stray = empty and text not in _POSTURES
        else:
            stray = empty and _describes(words, i, needed)
        gone_after = text in dropped or (stray and text not in needed)
        if not gone_after:
            left.insert(0, prompt[words[i].start : words[i].end])
            follows = text
    return " ".join(left).strip(_DANGLING) if dropped else prompt


def _describes(words: list[Word], i: int, needed: set[str]) -> bool:
    """Tell whether the word at i only describes a noun after it: "big" in "with big eyes".

    It does where nothing but such words stands between it and an article, a preposition or a comma. A
    participle after another word is none, as it has its own subject ("a cat with a bow chasing mice").
    """
    if words[i].comma_after or words[i + 1].text in ARTICLES | _BOUNDARIES:
        return False
    while words[i].text not in needed:
        opens = i == 0 or words[i - 1].comma_after or words[i - 1].text in ARTICLES | _BOUNDARIES
        if opens or _is_participle(words[i].text):
            return opens and i > 0
        i -= 1
    return False


def kept_words(prompt: str, extra: tuple[str, ...] = ()) -> dict[str, str]:
    """Return the words that must stay, each with the reason.

    Args:
        extra: words that the user wants kept (`--keep`); case is ignored.
    """
    words = split_words(prompt)
    kept = {w.text: "article" for w in words if w.text in ARTICLES}
    kept |= {w.text: "connects" for w in words if w.text in _BOUNDARIES - _POSTURES}
    kept |= dict.fromkeys(_subjects(words), "subject")
    wanted = {text.lower() for text in extra}
    return kept | {w.text: "kept on request" for w in words if w.text in wanted}


def _subjects(words: list[Word]) -> list[str]:
    """Return the head nouns of the first noun phrase, in all its readings."""
    readings, i = [], 0
    while i < len(words):
        while i < len(words) and words[i].text in ARTICLES:
            i += 1
        last = None
        while i < len(words):
            text = words[i].text
            if text in ARTICLES or (text in _BOUNDARIES and not _joins_adjectives(words, i)):
                break
            if _is_participle(text) and last is not None and not _is_participle(last):
                readings.append(last)
            if text not in _JOINERS:
                last = text
            i += 1
            if words[i - 1].comma_after:
                if not _goes_on_after_comma(words, i):
                    break
                if last is not None and not _is_participle(last):
                    readings.append(last)
        if last is not None and not (readings and _is_participle(last)):
            readings.append(last)
        if last not in _PICTURES:
            break
        if i < len(words) and words[i].text in _BOUNDARIES:
            i += 1
    return readings or [w.text for w in words[-1:]]


def _joins_adjectives(words: list[Word], i: int) -> bool:
    """Tell whether "and" at i stands inside a noun phrase ("cute and chubby panda")."""
    follows = words[i + 1].text if i + 1 < len(words) else ""
    return words[i].text in _JOINERS and follows not in ARTICLES | {""}


def _goes_on_after_comma(words: list[Word], i: int) -> bool:
    """Tell whether the phrase before a comma goes on at i ("a big, fluffy cat")."""
    return i < len(words) and words[i].text not in ARTICLES | _BOUNDARIES


def _is_participle(text: str) -> bool:
    if text in _NOUNS_LIKE_PARTICIPLES:
        return False
    return (text.endswith("ing") and len(text) > 5) or (text.endswith("ed") and len(text) > 4)
