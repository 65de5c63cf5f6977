"""The embedded language model removes the words that its world contradicts.

In that world P(view word | prompt) is known: the photographer's habit (`captions.py`) is all that words and
views have to do with each other. So every removal can be held against what the exact probabilities ask for.
"""

from collections import Counter

import numpy as np
import pytest

from prompts.debias import NORMALIZED_PMI_THRESHOLD, PMI_BOUND, debias_prompt, pmi_tests
from prompts.masked_lm import Bert
from prompts.views import VIEWS
from sjc_debiased.menagerie import WEIGHTS
from sjc_debiased.menagerie.captions import P_MENTION, P_VIEW, P_VIEW_WORD, SYNONYMS
from sjc_debiased.menagerie.creatures import OWN_COLOR, Creature, random_creature

FACES, TAILS, PROPS = ("smiling", "winking", "big eyes"), ("bushy", "curly"), ("hat", "scarf", "backpack")
N_PROMPTS = 300


@pytest.fixture(scope="module")
def decisions():
    """Return, for every word of random prompts and every view, (word, removed, contradicted)."""
    shares = shares_of([random_creature(np.random.default_rng([1, i])) for i in range(4000)])
    bert = Bert(str(WEIGHTS / "mlm"))
    made = []
    for i in range(N_PROMPTS):
        creature = random_creature(np.random.default_rng([2, i]))
        said = said_of(creature)
        plan = debias_prompt(prompt_of(creature), bert)
        present = log_p_views(said, shares)
        for word, thing in said.items():
            absent = log_p_views({w: t for w, t in said.items() if w != word}, shares)
            pmi, normalized = pmi_tests(present, absent, "pmi")
            wanted = (pmi < PMI_BOUND) & (normalized < NORMALIZED_PMI_THRESHOLD)
            made += [(thing, word in plan.removed[v], bool(wanted[j])) for j, v in enumerate(VIEWS)]
    return made


def shares_of(creatures):
    """Return how often a creature has each face, tail and prop."""
    counts = Counter(t for c in creatures for t in (c.face, c.tail, c.prop))
    return {thing: counts[thing] / len(creatures) for thing in (*FACES, *TAILS, *PROPS)}


def said_of(creature: Creature) -> dict[str, str]:
    """Return what a prompt can say of a creature, by the word that stands for it."""
    said = {}
    if creature.face in FACES:
        said[creature.face.split()[-1]] = creature.face
    if creature.color != OWN_COLOR[creature.kind]:
        said[creature.color] = "color"
    if creature.tail in TAILS:
        said["tail"] = creature.tail
    if creature.prop in PROPS:
        said[creature.prop] = creature.prop
    return said


def prompt_of(creature: Creature) -> str:
    """Return the prompt that says all of it, in the grammar of the captions."""
    said = said_of(creature)
    words = [w for w in said if w in ("smiling", "winking")]
    words += [w for w, thing in said.items() if thing == "color"] + [creature.kind]
    words += ["with big eyes"] if "eyes" in said else []
    words += [f"with a {said['tail']} tail"] if "tail" in said else []
    words += [f"wearing a {creature.prop}"] if creature.prop in PROPS else []
    return " ".join(["an" if words[0][0] in "aeiou" else "a", *words])


def log_p_views(said: dict[str, str], shares: dict[str, float]) -> np.ndarray:
    """Return log P(view word, what is said) of the world, [views]; what is not said may be there unsaid."""
    p = {}
    for view, p_view in P_VIEW.items():
        p[view] = p_view
        for things, habit in ((FACES, "face"), (TAILS, "tail"), (PROPS, None)):
            mention = {t: shares[t] * P_MENTION[habit or t][view] for t in things}
            p[view] *= next((mention[t] for t in said.values() if t in things), 1 - sum(mention.values()))
    return np.log([sum(p[v] * P_VIEW_WORD[v][w] for v in p) / len(SYNONYMS[w]) for w in VIEWS])


def errors(decisions, *things):
    """Return the share of wrong removals and of wrong stays among the decisions about these things."""
    about = [(removed, wanted) for thing, removed, wanted in decisions if thing in things]
    assert len(about) > 50
    return (sum(r and not w for r, w in about) / len(about), sum(w and not r for r, w in about) / len(about))


def test_a_color_is_tied_to_no_view(decisions):
    """What is left: "a smiling gray panda wearing a backpack" loses "gray" from the back and the top."""
    assert not any(wanted for thing, _, wanted in decisions if thing == "color")
    assert errors(decisions, "color")[0] < 0.06


def test_words_of_the_face_go_from_where_no_face_is(decisions):
    wrong, missed = errors(decisions, *FACES)
    assert wrong < 0.03
    assert missed < 0.01


def test_tails_and_props_go_from_where_they_are_not_told_of(decisions):
    wrong, missed = errors(decisions, *TAILS, *PROPS)
    assert wrong < 0.05
    assert missed < 0.10
