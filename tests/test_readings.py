"""The two readings of the paper's second PMI test: hand numbers, closed forms, and the table of both."""

import json

import numpy as np
import pytest

from prompts import compare_readings
from prompts.compare_readings import decisions, table
from prompts.debias import NORMALIZED_PMI_THRESHOLD, PMI_BOUND, SENTENCE, debias_prompt, pmi_tests
from prompts.masked_lm import Bert
from prompts.suites import SuiteError
from prompts.views import VIEWS
from sjc_debiased.making.prepare import plan_prompts
from sjc_debiased.menagerie import WEIGHTS
from sjc_debiased.models.choose import choose_model
from sjc_debiased.options.config import resolve
from tests.options import options

PRESENT, ABSENT = (0.85, 0.10, 0.03, 0.02), (0.80, 0.12, 0.05, 0.03)


class TwoRows:
    """A language model that knows "a smiling cat" and "a cat"; `share` of the mass is the views'."""

    def __init__(self, present, absent, share=(1.0, 1.0)):
        rows = np.array([present, absent]) / np.sum([present, absent], axis=1, keepdims=True)
        self.rows = dict(zip(("a smiling cat", "a cat"), rows * np.array(share)[:, None]))

    def gap_log_probabilities(self, texts, words):
        assert words == VIEWS
        return np.log([self.rows[text.removeprefix(SENTENCE)] for text in texts])


def removed(lm, normalized):
    """Return the views whose prompts lose "smiling"."""
    plan = debias_prompt("a smiling cat", lm, normalized=normalized)
    return {view for view, words in plan.removed.items() if words}


def fails(present, absent, normalized):
    """Return for tables [n, 4] where a word goes, [n, 4]."""
    tests = np.stack([pmi_tests(f, r, normalized) for f, r in zip(np.log(present), np.log(absent))], axis=1)
    return (tests[0] < PMI_BOUND) & (tests[1] < NORMALIZED_PMI_THRESHOLD)


def test_both_readings_by_hand():
    """PMI is .85/.825, .10/.11, .03/.04, .02/.025; its mean over the views is 0.8724."""
    ratios = np.array([0.85 / 0.825, 0.10 / 0.11, 0.75, 0.8])
    first, second = pmi_tests(np.log(PRESENT), np.log(ABSENT), "pmi")
    np.testing.assert_allclose(first, ratios)
    np.testing.assert_allclose(second, ratios / 0.8723485, rtol=1e-6)
    np.testing.assert_allclose(second, [1.18106, 1.04212, 0.85975, 0.91706], atol=1e-5)
    first, second = pmi_tests(np.log(PRESENT), np.log(ABSENT), "probabilities")
    np.testing.assert_allclose(first, ratios)
    np.testing.assert_allclose(second, ratios)


def test_where_the_readings_differ():
    """The side's PMI is below 0.95 but above the mean: a word that the default keeps."""
    lm = TwoRows(PRESENT, ABSENT)
    assert removed(lm, "pmi") == {"back", "top"}
    assert removed(lm, "probabilities") == {"side", "back", "top"}
    plan = debias_prompt("a smiling cat", lm, normalized="probabilities")
    assert plan.sent["side"] == "side view a cat"
    assert plan.normalized_pmi["smiling"]["side"] == pytest.approx(0.10 / 0.11)
    assert plan.pmi["cat"] == plan.normalized_pmi["cat"] == dict.fromkeys(VIEWS, 1.0)
    assert debias_prompt("a smiling cat", lm) == debias_prompt("a smiling cat", lm, normalized="pmi")


def test_only_the_second_reading_asks_for_probabilities_over_the_whole_vocabulary():
    """With "smiling" the four words are twice as likely, so P(side | u) = .05 > P(side | not u) = .03."""
    lm = TwoRows(PRESENT, ABSENT, share=(0.5, 0.25))
    assert removed(lm, "pmi") == {"back", "top"}
    assert removed(lm, "probabilities") == set()
    plan = debias_prompt("a smiling cat", lm, normalized="probabilities")
    assert plan.pmi["smiling"]["side"] == pytest.approx(0.05 / 0.04)
    assert plan.normalized_pmi["smiling"]["side"] == pytest.approx(0.10 / 0.11)
    assert removed(TwoRows(PRESENT, ABSENT, share=(0.25, 0.5)), "probabilities") == {"side", "back", "top"}


def random_tables(spread):
    """Return P(v | u), P(v | not u): uniform tables, logs N(0, spread) apart, or unrelated for None."""
    rng = np.random.default_rng(0)
    absent = rng.dirichlet(np.ones(4), 20_000)
    if spread is None:
        return rng.dirichlet(np.ones(4), 20_000), absent
    present = absent * np.exp(spread * rng.normal(size=absent.shape))
    return present / present.sum(1, keepdims=True), absent


@pytest.fixture
def tables():
    return random_tables(0.5)


def test_the_second_reading_has_a_closed_form(tables):
    """P(v | u) < 0.90476 P(v | not u), both normalised: pmi = 2 f / (f + r) < 0.95 is f < 0.95 / 1.05 r."""
    present, absent = tables
    assert (fails(present, absent, "probabilities") == (present < 0.95 / 1.05 * absent)).all()


def test_the_first_reading_against_a_loop(tables):
    present, absent = (t[:500] for t in tables)
    ours = fails(present, absent, "pmi")
    for f_row, r_row, decided in zip(present, absent, ours):
        ratios = [f / (0.5 * f + 0.5 * r) for f, r in zip(f_row, r_row)]
        mean = sum(ratios) / 4
        assert list(decided) == [r < 1 and r / mean < 0.95 for r in ratios]


@pytest.mark.parametrize(("spread", "agreement"), [(0.2, 0.91), (0.5, 0.91), (1.0, 0.92), (None, 0.96)])
def test_the_readings_agree_on_most_random_tables(spread, agreement):
    """The shares of docs/deviations.md; neither reading contains the other, and none takes what gains."""
    tables = random_tables(spread)
    one, two = (fails(*tables, reading) for reading in ("pmi", "probabilities"))
    assert (one == two).mean() == pytest.approx(agreement, abs=0.005)
    assert (one & ~two).any()
    assert (two & ~one).any()
    assert not (one | two)[tables[0] >= tables[1]].any()
    assert not fails(tables[1], tables[1], "pmi").any()
    assert not fails(tables[1], tables[1], "probabilities").any()


def test_an_unknown_reading_is_refused():
    with pytest.raises(
        ValueError, match=r"normalized must be pmi or probabilities. It is 'both'. Choose one"
    ):
        debias_prompt("a smiling cat", TwoRows(PRESENT, ABSENT), normalized="both")


def test_the_table_of_both_readings():
    made = decisions("a smiling cat", TwoRows(PRESENT, ABSENT))
    assert [(d.word, d.view) for d in made] == [("smiling", view) for view in VIEWS]
    lines = table(made).splitlines()
    assert lines[0].split() == "| prompt | word | view | pmi | probabilities |".split()
    assert lines[2].split() == "| a smiling cat | smiling | side | kept | removed |".split()
    assert [line.split()[-4] for line in lines[3:5]] == ["removed", "removed"]
    assert len(lines) == 7
    assert lines[-1] == (
        "4 decisions, of which the readings agree on 3 (75.0 %): removed by both 2, by pmi alone 0, by "
        "probabilities alone 1."
    )
    assert table([]).endswith("alone 0.")


def test_the_command_compares_a_suite(tmp_path, capsys):
    """On the menagerie a panda's scarf goes from the top by one reading alone; ramen is unknown."""
    suite = tmp_path / "mine.json"
    texts = ("a panda wearing a scarf", "a monkey eating ramen")
    suite.write_text(json.dumps({"prompts": [{"prompt": t, "face": True} for t in texts]}))
    compare_readings.main(str(suite), str(WEIGHTS / "mlm"), local_files_only=True)
    lines = capsys.readouterr().out.splitlines()
    found = [line.split()[1:-1] for line in lines if "scarf" in line]
    assert found == [
        "a panda wearing a scarf | scarf | back | removed | removed".split(),
        "a panda wearing a scarf | scarf | top | kept | removed".split(),
    ]
    assert lines[-1] == "1 of 2 prompts; the language model does not know the others' words."
    with pytest.raises(SuiteError, match="--suite must be"):
        compare_readings.main("nonsense", str(WEIGHTS / "mlm"))


@pytest.mark.parametrize(
    ("reading", "top"),
    [("pmi", "top view a panda wearing a scarf"), ("probabilities", "top view a panda")],
)
def test_a_run_sends_what_its_reading_leaves(reading, top):
    choice = choose_model("menagerie", "cpu")
    given = options(prompt=("a panda wearing a scarf",), preset="dsds", pmi_normalized=reading)
    (run,) = resolve(given, choice.profile, choice.name, "weights")
    assert plan_prompts(run, choice, local_files_only=True).sent["top"] == top


def test_known_words():
    bert = Bert(str(WEIGHTS / "mlm"))
    assert bert.knows("smiling")
    assert bert.knows("a")
    assert not bert.knows("ramen")
    assert not bert.knows("猫")
