"""Views, words, the masked language model and prompt debiasing."""

import numpy as np
import pytest
import torch

from prompts.debias import SENTENCE, debias_prompt, plain_prompts
from prompts.masked_lm import GAP, Bert
from prompts.views import DSDS_VIEWS, SJC_VIEWS, TOP_ABOVE_DEG, VIEWS
from prompts.words import kept_words, split_words, without_strays


@pytest.mark.parametrize(
    ("azimuth", "sjc", "dsds"),
    [
        (0, "front", "front"),
        (22.4, "front", "front"),
        (22.5, "front", "side"),
        (44.9, "front", "side"),
        (45, "side", "side"),
        (134.9, "side", "side"),
        (135, "back", "back"),
        (180, "back", "back"),
        (224.9, "back", "back"),
        (225, "side", "side"),
        (314.9, "side", "side"),
        (315, "front", "side"),
        (337.4, "front", "side"),
        (337.5, "front", "front"),
        (359.9, "front", "front"),
        (-1, "front", "front"),
        (720 + 180, "back", "back"),
    ],
)
def test_borders_of_the_views(azimuth, sjc, dsds):
    assert SJC_VIEWS.view(azimuth, 0.0) == sjc
    assert DSDS_VIEWS.view(azimuth, 0.0) == dsds
    assert SJC_VIEWS.view(azimuth, TOP_ABOVE_DEG + 1e-6) == "top"
    assert DSDS_VIEWS.view(azimuth, TOP_ABOVE_DEG) == dsds


def test_top_begins_where_sjc_says_overhead():
    assert pytest.approx(41.8103, abs=1e-4) == TOP_ABOVE_DEG


def test_view_labels_change_at_the_declared_borders_only():
    for scheme, borders in ((SJC_VIEWS, {45, 135, 225, 315}), (DSDS_VIEWS, {22.5, 135, 225, 337.5})):
        grid = np.arange(0, 360, 0.5)
        labels = [scheme.view(a, 10.0) for a in grid]
        changes = {a for a, before, now in zip(grid[1:], labels, labels[1:]) if before != now}
        assert changes == borders


def test_view_prompts():
    assert SJC_VIEWS.prompt("back", "a cat") == "backside view of a cat"
    assert DSDS_VIEWS.prompt("back", "a cat") == "back view a cat"
    assert plain_prompts("a cat", SJC_VIEWS).sent["top"] == "overhead view of a cat"


@pytest.mark.parametrize(
    ("prompt", "subjects"),
    [
        ("a smiling cat", {"cat"}),
        ("a cute smiling cat", {"cute", "cat"}),
        ("a cute and chubby panda munching on bamboo", {"panda"}),
        ("a monkey eating ramen", {"monkey", "ramen"}),
        ("an unicorn with a rainbow horn", {"unicorn"}),
        ("a DSLR photo of a squirrel", {"photo", "squirrel"}),
        ("A zoomed out photo a small castle", {"photo", "castle"}),
        ("a baby bunny, sitting on top of a stack of pancakes", {"bunny"}),
        ("a tiger dressed as a doctor", {"tiger"}),
        ("A pig.", {"pig"}),
        ("a big, fluffy cat", {"cat"}),
        ("a smiling, happy cat", {"cat"}),
        ("a tall building", {"building"}),
        ("a cute duckling", {"duckling"}),
        ("smiling", {"smiling"}),
        ("with", {"with"}),
        ("a smiling cat, photorealistic, 8k", {"cat"}),
        ("a smiling cat - plush toy", {"cat"}),
        ("a cat – white and fluffy", {"cat"}),
        ("a cat & a dog", {"cat"}),
        ("a cat,smiling", {"cat"}),
        ("- a cat", {"cat"}),
    ],
)
def test_the_subject_is_kept(prompt, subjects):
    kept = kept_words(prompt)
    assert subjects <= {w for w, why in kept.items() if why == "subject"}
    assert {w for w in ("munching", "dressed", "horn", "bamboo") if w in kept} == set()
    assert "smiling" not in kept or prompt == "smiling"


def test_keep_adds_words_whatever_their_case():
    assert kept_words("a smiling cat", ("Smiling",))["smiling"] == "kept on request"


@pytest.mark.parametrize(
    ("prompt", "dropped", "left"),
    [
        ("A Smiling, happy cat.", {"smiling"}, "A happy cat."),
        ("a cat, smiling", {"smiling"}, "a cat"),
        ("a big big cat", {"big"}, "a cat"),
        ("a wide-eyed  cat", {"wide-eyed"}, "a cat"),
        ("a lion's mane", set(), "a lion's mane"),
        ("a bear wearing a backpack", {"wearing", "backpack"}, "a bear"),
        ("a bear wearing a backpack in the snow", {"wearing", "backpack"}, "a bear in the snow"),
        ("a bear wearing a backpack in the snow", {"backpack"}, "a bear in the snow"),
        ("a bear with big eyes wearing a hat", {"eyes"}, "a bear wearing a hat"),
        ("a fox with a bushy tail", {"bushy", "tail"}, "a fox"),
        ("a fox with a bushy tail", {"bushy"}, "a fox with a tail"),
        ("a smiling cat", {"smiling"}, "a cat"),
        ("a bear with big eyes", {"big"}, "a bear with eyes"),
        ("a panda wearing a scarf", {"scarf"}, "a panda"),
        ("a playful and cuddly kitten", {"playful"}, "a cuddly kitten"),
        ("a cute and chubby panda munching on bamboo", {"cute", "chubby"}, "a panda munching on bamboo"),
        ("a cute and chubby panda", {"chubby"}, "a cute panda"),
        ("a cat wearing a hat and a scarf", {"hat"}, "a cat wearing a scarf"),
        ("a cat wearing a hat and a scarf", {"scarf"}, "a cat wearing a hat"),
        ("a flamingo standing on one leg in water", {"one", "leg"}, "a flamingo standing in water"),
        ("a flamingo standing on one leg", {"one", "leg"}, "a flamingo standing"),
        ("a bunny, sitting on top of a stack", {"top"}, "a bunny, sitting of a stack"),
        ("a cat that is with a", set(), "a cat that is with a"),
        ("a bear with big eyes", {"eyes"}, "a bear"),
        ("a cat with big shiny eyes", {"eyes"}, "a cat"),
        ("a bulldog wearing a black pirate hat", {"hat"}, "a bulldog"),
        ("a frog with a crown and big eyes", {"eyes"}, "a frog with a crown"),
        ("a cat eating fish", {"fish"}, "a cat eating"),
        ("a dog with a bow chasing mice", {"mice"}, "a dog with a bow chasing"),
        ("a robot, brown ears", {"ears"}, "a robot"),
        ("very fluffy dogs", {"dogs"}, "very fluffy"),
        ("a cat,smiling", {"smiling"}, "a cat"),
        ("a cat - smiling", {"smiling"}, "a cat"),
        ("a cat - white - and smiling", {"smiling"}, "a cat - white"),
        ("a cat & dog at 12:30", {"dog"}, "a cat at 12:30"),
    ],
)
def test_what_a_dropped_word_leaves_stray_goes_too(prompt, dropped, left):
    assert without_strays(prompt, dropped, needed={"cat"}) == left


def test_needed_words_are_never_stray():
    assert without_strays("a cat with eyes", {"eyes"}, needed={"cat"}) == "a cat"
    assert without_strays("a cat with eyes", {"eyes"}, needed={"cat", "with"}) == "a cat with"


def test_words_lose_punctuation_and_case():
    assert [w.text for w in split_words('A "smiling" Cat, (happy)!')] == ["a", "smiling", "cat", "happy"]


class TableLM:
    """A language model that is a table: which words make which views unlikely."""

    def __init__(self, contradicts):
        self.contradicts = contradicts

    def gap_log_probabilities(self, texts, words):
        rows = []
        for text in texts:
            assert text.count(GAP) == 1
            p = np.ones(len(words))
            for word, factors in self.contradicts.items():
                if word in text.lower():
                    p *= [factors.get(w, 1.0) for w in words]
            rows.append(p / p.sum())
        return np.log(rows)


def test_a_contradicting_word_is_removed_from_that_view_alone():
    lm = TableLM({"smiling": {"back": 0.2}})
    plan = debias_prompt("a smiling cat", lm)
    assert plan.removed == {"front": (), "side": (), "back": ("smiling",), "top": ()}
    assert plan.sent["back"] == "back view a cat"
    assert plan.sent["front"] == "front view a smiling cat"
    assert plan.pmi["cat"] == dict.fromkeys(VIEWS, 1.0)


def test_pmi_by_hand():
    """P(back|u) = .2/3.2 = .0625, P(back|not u) = .25: pmi = .0625 / .15625 = 0.4."""
    plan = debias_prompt("a smiling cat", TableLM({"smiling": {"back": 0.2}}))
    assert plan.pmi["smiling"]["back"] == pytest.approx(0.4)
    assert plan.pmi["smiling"]["front"] == pytest.approx(0.3125 / 0.28125)
    mean = (0.4 + 3 * 0.3125 / 0.28125) / 4
    assert plan.normalized_pmi["smiling"]["back"] == pytest.approx(0.4 / mean)


def test_what_is_left_stray_is_not_sent():
    lm = TableLM({"backpack": {"front": 0.1}})
    plan = debias_prompt("a bear wearing a backpack", lm)
    assert plan.removed["front"] == ("backpack",)
    assert plan.sent["front"] == "front view a bear"
    assert plan.sent["back"] == "back view a bear wearing a backpack"
    kept = debias_prompt("a bear wearing a backpack", lm, keep=("wearing",))
    assert kept.sent["front"] == "front view a bear wearing"


def test_a_word_is_judged_against_the_prompt_that_is_sent_without_it():
    """Without "eyes" the prompt is "a bear": "with big" alone would still tell of eyes."""
    plan = debias_prompt("a bear with big eyes", TableLM({"big": {"back": 0.2}}))
    assert plan.pmi["eyes"]["back"] == plan.pmi["big"]["back"] == pytest.approx(0.4)
    assert plan.sent["back"] == "back view a bear"


def test_connecting_words_are_not_judged_but_go_with_their_phrase():
    lm = TableLM({"with": {"back": 0.1}, "hat": {"top": 0.1}, "wearing": {"front": 0.1}})
    plan = debias_prompt("a cat with a tail wearing a hat", lm)
    assert plan.removed == {"front": ("hat",), "side": (), "back": ("tail",), "top": ("hat",)}
    assert plan.kept == {"a": "article", "with": "connects", "wearing": "connects", "cat": "subject"}


def test_a_faint_contradiction_stays():
    plan = debias_prompt("a smiling cat", TableLM({"smiling": {"back": 0.95}}))
    assert plan.pmi["smiling"]["back"] < 1
    assert plan.normalized_pmi["smiling"]["back"] > 0.95
    assert plan.removed["back"] == ()


def test_kept_words_are_never_removed():
    lm = TableLM({"smiling": {"back": 0.01}, "cat": {"back": 0.01}})
    plan = debias_prompt("a smiling cat", lm, keep=("smiling",))
    assert plan.removed["back"] == ()
    assert plan.pmi["smiling"]["back"] == 1.0


def test_repeated_words_go_everywhere_and_the_prompt_is_never_empty():
    lm = TableLM({"smiling": dict.fromkeys(("front", "side", "back"), 0.01)})
    plan = debias_prompt("Smiling, smiling", lm)
    assert all(text.split()[-1].lower().startswith("smiling") for text in plan.sent.values())
    plan = debias_prompt("a Smiling smiling cat", lm)
    assert plan.sent["back"] == "back view a cat"


def test_the_table_names_what_was_removed():
    table = debias_prompt("a smiling cat", TableLM({"smiling": {"back": 0.2}})).table()
    assert "back view a cat" in table
    assert "removed: smiling" in table
    assert "cat (subject)" in table
    assert "0.40" in table


def test_bert_equals_a_direct_forward(bert_folder):
    bert = Bert(str(bert_folder))
    text = SENTENCE + "a smiling cat"
    ours = bert.gap_log_probabilities([text, SENTENCE + "a cat"], VIEWS)
    assert ours.shape == (2, 4)
    assert (np.exp(ours).sum(1) < 1).all()  # the rest of the vocabulary has its share
    tokenizer, model = bert._tokenizer, bert._model
    batch = tokenizer(text.replace(GAP, "[MASK]"), return_tensors="pt")
    with torch.no_grad():
        logits = model(**batch).logits
    at = (batch.input_ids[0] == tokenizer.mask_token_id).nonzero().item()
    p = logits[0, at].softmax(-1)[tokenizer.convert_tokens_to_ids(list(VIEWS))].double()
    np.testing.assert_allclose(np.exp(ours[0]), p.numpy(), rtol=1e-4)


def test_a_view_word_of_several_pieces_is_a_product(bert_folder):
    bert = Bert(str(bert_folder))
    word = "bz"  # b, ##z
    pieces = bert._tokenizer.encode(word, add_special_tokens=False)
    assert len(pieces) == 2
    text = SENTENCE + "a cat"
    log_p = bert.gap_log_probabilities([text], ("front", "back", word))[0]
    first = bert._log_probabilities([text], [], 2)[0, pieces[0]]
    second = bert._log_probabilities([text], pieces[:1], 2)[0, pieces[1]]
    front = bert._log_probabilities([text], [], 1)[0, bert._tokenizer.convert_tokens_to_ids("front")]
    assert log_p[[0, 2]] == pytest.approx([front, first + second], rel=1e-5)


def test_words_that_the_tokenizer_splits_are_still_words(bert_folder):
    plan = debias_prompt("a Flibbertigibbety cat", Bert(str(bert_folder)))
    assert "flibbertigibbety" in plan.pmi
    assert set(plan.sent) == set(VIEWS)


def test_a_language_model_out_of_reach_names_the_way_out():
    with pytest.raises(OSError, match="--masked_lm FOLDER"):
        Bert("nobody/no-such-bert", local_files_only=True)


def test_a_prompt_too_long_for_the_language_model(bert_folder):
    with pytest.raises(ValueError, match="64 word pieces"):
        debias_prompt("a cat " * 40, Bert(str(bert_folder)))
