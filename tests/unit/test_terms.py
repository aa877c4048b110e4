"""`rl.terms`: which scorers there are, what they add, which signs and faults are refused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from homestretch.config import LengthConfig
from homestretch.recipe import load_recipe
from homestretch.rewards.composition import RewardComposition
from homestretch.rewards.length import LengthModel
from homestretch.rewards.terms import RewardTerm
from homestretch.scorers import build_terms, lost_judges
from homestretch.training import TrainingError
from homestretch.types import Completion, UserError
from tiny import tiny_config, tiny_examples

EXAMPLES = tiny_examples(4)
REFERENCES = [Completion(e.reference) for e in EXAMPLES]
HERE = "unit.test_terms"


def shouting(examples, completions):
    return np.array([float(c.text.isupper()) for c in completions])


def fails_on_a_colon(examples, completions):
    if any(":" in c.text for c in completions):
        raise KeyError("colon")
    return np.zeros(len(examples))


NOT_A_FUNCTION = 3


def config(*terms, **rl):
    return tiny_config(rl={"terms": [{"scorer": name, "weight": weight} for name, weight in terms], **rl})


def built(*terms):
    return build_terms(config(*terms), EXAMPLES)


def composition(*terms, weight=1.0, learned=0.5, floor=-4.0, shaping="none"):
    return RewardComposition(
        lambda examples, completions: np.full(len(examples), learned),
        floor, LengthModel(0.0, 0.0), LengthConfig(coefficient=0.0), shaping, weight=weight, terms=terms,
    )  # fmt: skip


def test_metrics_detectors_and_functions_are_scorers():
    terms = built(("rouge_l", 0.5), ("fact_f1", 1.0), ("repetition_3", -1.0), ("echo", -1.0), ("density", 0.1),
                  (f"{HERE}:shouting", 2.0))  # fmt: skip
    by_name = {term.name: term(EXAMPLES, REFERENCES) for term in terms if term.name != "fact_f1"}
    assert by_name["rouge_l"].tolist() == [1.0] * 4
    assert by_name["repetition_3"].tolist() == by_name[f"{HERE}:shouting"].tolist() == [0.0] * 4
    assert (by_name["density"] > 0).all()
    copies = [Completion(e.source) for e in EXAMPLES]
    echo = next(term for term in terms if term.name == "echo")
    assert (echo(EXAMPLES, copies) > echo(EXAMPLES, REFERENCES)).all()
    assert [term.weight for term in terms] == [0.5, 1.0, -1.0, -1.0, 0.1, 2.0]


@pytest.mark.parametrize(
    ("name", "weight", "message"),
    [
        ("rouge_ll", 1.0, "unknown scorer 'rouge_ll': did you mean 'rouge_l'?"),
        ("repetition_3", 0.5, "repetition_3: lower is better, and a weight of 0.5 pays for the other end; use -0.5"),
        ("rouge_l", -1.0, "rouge_l: higher is better"),
        ("echo", 1.0, "use -1"),
        ("negation", -1.0, "no detector"),
        (f"{HERE}:NOT_A_FUNCTION", 1.0, "no function"),
        ("no_such_package.rules:x", 1.0, "no module"),
    ],
)
def test_what_cannot_be_a_term_is_refused_in_one_line(name, weight, message):
    with pytest.raises(UserError) as caught:
        built((name, weight))
    assert str(caught.value).startswith("rl.terms: ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_mistake_in_the_list_names_its_place(tmp_path):
    recipe = tmp_path / "x.yaml"
    head = "data: {task: chats}\nmodel: {path: m}\n"
    for terms, message in (
        ("[{scorer: rouge_l, wieght: 1.0}]", "rl.terms.0.wieght: unknown key; did you mean 'weight'?"),
        ("[{scorer: rouge_l, weight: 1.0}, {scorer: rouge_l, weight: 2.0}]", "names 'rouge_l' twice"),
    ):
        recipe.write_text(f"{head}rl: {{terms: {terms}}}\n")
        with pytest.raises(UserError, match=message):
            load_recipe(recipe)
    recipe.write_text(f"{head}rl: {{reward_weight: 0}}\n")
    with pytest.raises(UserError, match="nothing is rewarded"):
        load_recipe(recipe)


def test_terms_add_to_the_score_and_are_logged_before_their_weights():
    half = RewardTerm("half", lambda e, c: np.full(len(e), 0.5), -3.0)
    scored = composition(half, weight=2.0)(EXAMPLES, REFERENCES)
    assert scored.scores.tolist() == [2.0 * 0.5 - 3.0 * 0.5] * 4
    assert scored.terms["term/half"].tolist() == [0.5] * 4
    assert scored.terms["reward_model"].tolist() == [0.5] * 4
    plain = composition()(EXAMPLES, REFERENCES)
    assert plain.scores.tolist() == [0.5] * 4
    assert set(plain.terms) == {"reward_model", "shaped", "length_penalty"}


@pytest.mark.parametrize(("weight", "value"), [(1.0, 5.0), (3.0, -0.2), (0.0, -9.0)])
def test_not_ending_never_pays(weight, value):
    term = RewardTerm("t", lambda e, c: np.full(len(e), value), 2.0)
    reward = composition(term, weight=weight, learned=-4.0)
    ended = reward(EXAMPLES[:1], [Completion("x")]).scores[0]
    cut = reward(EXAMPLES[:1], [Completion("x", terminated=False)]).scores[0]
    assert cut <= ended
    assert cut == max(1.0, weight) * -4.0 + min(0.0, 2.0 * value)


def test_not_ending_never_pays_under_shaping_either():
    """A good reference makes the shaped reward of a bad completion lower than the floor."""

    def learned(examples, completions):
        return np.array([2.5 if c.text == e.reference else -2.0 for e, c in zip(examples, completions, strict=True)])

    reward = replace(composition(shaping="log_sigmoid"), reward=learned, floor=-4.0)
    ended, cut = (reward(EXAMPLES[:1], [Completion("x", terminated=t)]).scores[0] for t in (True, False))
    assert ended < -4.0
    assert cut <= ended


def test_undefined_counts_as_nothing_but_not_for_the_learned_reward():
    term = RewardTerm("t", lambda e, c: np.array([np.nan, 1.0, np.nan, 1.0]), 2.0)
    scored = composition(term)(EXAMPLES, REFERENCES)
    assert scored.scores.tolist() == [0.5, 2.5, 0.5, 2.5]
    assert np.isnan(scored.terms["term/t"]).tolist() == [True, False, True, False]
    with pytest.raises(TrainingError, match="rl/reward_model is not finite"):
        composition(term, weight=0.0, learned=float("nan"))(EXAMPLES, REFERENCES)


@pytest.mark.parametrize(
    ("scorer", "message"),
    [
        (fails_on_a_colon, "rl.terms: mine failed: KeyError: 'colon' ("),
        (lambda e, c: np.zeros((len(e), 1)), "rl.terms: mine returned shape (4, 1) for 4 completions"),
        (lambda e, c: 0.0, "rl.terms: mine returned shape () for 4 completions"),
        (lambda e, c: ["good"] * len(e), "rl.terms: mine failed: ValueError"),
        (lambda e, c: np.array([0, 0, 0, np.inf]), "rl.terms: mine is infinite (example 'e3')"),
    ],
)
def test_a_scorer_at_fault_is_named_in_one_line(scorer, message):
    completions = [*REFERENCES[:2], Completion("a: b"), REFERENCES[3]]
    with pytest.raises(TrainingError) as caught:
        composition(RewardTerm("mine", scorer, 1.0))(EXAMPLES, completions)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_a_scorer_that_raises_is_told_its_line_and_the_example():
    completions = [*REFERENCES[:2], Completion("a: b"), REFERENCES[3]]
    with pytest.raises(TrainingError, match=r"\(.*test_terms\.py:\d+\) \(example 'e2'\)$"):
        composition(RewardTerm("mine", fails_on_a_colon, 1.0))(EXAMPLES, completions)


def test_judges_that_are_paid_for_are_warned_of():
    assert list(lost_judges(config(("repetition_3", -1.0)), EXAMPLES)) == []
    warnings = list(lost_judges(config(("fact_f1", 1.0), ("rouge_l", 1.0)), EXAMPLES))
    assert [" ".join(w.split()[:9]) for w in warnings] == [
        "rl.terms: fact_f1 is in the reward and is a",
        "rl.terms: fact_f1 is in the reward and is a",
        "rl.terms: rouge_l is in the reward and is a",
    ]
    assert "evaluate.selection_metrics" in warnings[0]
