"""The verdict in one sentence and its tone, for every way the contrasts can fall."""

from __future__ import annotations

from typing import Any

import pytest

from homestretch.report.verdict import tone, verdict
from report_run import ARMS, DOWN, NULL, UP, contrast


def scores_of(*contrasts: dict[str, Any], higher: bool = True) -> dict[str, Any]:
    metrics = {row["metric"]: {"mean": 0.5, "higher_is_better": higher} for row in contrasts}
    return {"schema": 1, "arms": {arm: {"metrics": metrics} for arm in ARMS}, "contrasts": list(contrasts)}


def one(c1: tuple[float, float], c2: tuple[float, float] | None, c3: tuple[float, float] | None) -> dict[str, Any]:
    given = zip(("C1", "C2", "C3"), (c1, c2, c3), strict=True)
    return scores_of(*(contrast(name, "fact_f1", *pair) for name, pair in given if pair))


def test_verdict_better_and_the_gain_remains() -> None:
    text = verdict(one(UP, UP, UP))
    assert text.startswith(
        "RL improved raw outputs over SFT on fact_f1 by +0.041 [0.021, 0.061] (Holm p = .003), "
        "and the gain on fact_f1 remains after post-processing both"
    )
    assert "would have done" not in text
    assert "though" not in text


@pytest.mark.parametrize(
    ("c2", "c3", "words"),
    [
        (NULL, NULL, "post-processing alone would have done on fact_f1: raw RL is not significantly better"),
        (NULL, None, "post-processing alone would have done on fact_f1"),
        (DOWN, NULL, "post-processing alone would have done better on fact_f1: raw RL is worse"),
        (UP, NULL, "no significant difference is left once both are post-processed"),
        (UP, None, "and raw RL is better than post-processed SFT on fact_f1 too"),
        (NULL, UP, "though raw RL is not significantly better than post-processed SFT"),
        (UP, DOWN, "but RL is worse on fact_f1 after post-processing both"),
        (None, UP, "remains after post-processing both"),
        (None, NULL, "no significant difference on fact_f1 is left after post-processing both"),
        (None, None, "whether post-processing would have done on fact_f1 was not tested"),
    ],
)
def test_verdict_says_what_post_processing_makes_of_a_gain(c2: Any, c3: Any, words: str) -> None:
    text = verdict(one(UP, c2, c3))
    assert text.startswith("RL improved raw outputs over SFT on fact_f1")
    assert words in text
    assert text.endswith(".")


def test_verdict_equal_is_not_called_equal() -> None:
    text = verdict(one(NULL, NULL, NULL))
    assert text.startswith("No significant difference between RL and SFT was found on raw outputs (fact_f1 +0.002")
    assert "nor was one on fact_f1 after post-processing both" in text
    assert "better" not in text


def test_verdict_equal_raw_but_different_after_post_processing() -> None:
    assert "while RL is better on fact_f1 after post-processing both" in verdict(one(NULL, NULL, UP))
    assert "while RL is worse on fact_f1 after post-processing both" in verdict(one(NULL, NULL, DOWN))


def test_verdict_worse() -> None:
    assert verdict(one(DOWN, DOWN, DOWN)).startswith("RL made raw outputs worse than SFT on fact_f1 by -0.041")
    assert "stays worse on fact_f1" in verdict(one(DOWN, DOWN, DOWN))
    assert "is left after post-processing both" in verdict(one(DOWN, DOWN, NULL))
    assert verdict(one(DOWN, None, None)).endswith("(Holm p = .003).")


def test_verdict_mixed_metrics() -> None:
    rows = [contrast(name, "fact_f1", *UP) for name in ("C1", "C2", "C3")]
    rows += [contrast(name, "rouge_l", *DOWN) for name in ("C1", "C2", "C3")]
    text = verdict(scores_of(*rows))
    assert text.startswith("RL is a trade on raw outputs: better than SFT on fact_f1")
    assert "but worse on rouge_l by -0.041" in text
    assert tone(scores_of(*rows)) == "mixed"


def test_verdict_better_on_one_and_undecided_on_the_other() -> None:
    rows = [contrast(name, "fact_f1", *UP) for name in ("C1", "C2", "C3")]
    rows += [contrast(name, "rouge_l", *NULL) for name in ("C1", "C2", "C3")]
    text = verdict(scores_of(*rows))
    assert "improved raw outputs over SFT on fact_f1" in text
    assert "with no significant difference on rouge_l (+0.002" in text
    assert "nor was one" not in text


def test_verdict_groups_metrics_with_the_same_fate() -> None:
    rows = [contrast(name, metric, *UP) for metric in ("fact_f1", "rouge_l") for name in ("C1", "C2", "C3")]
    assert verdict(scores_of(*rows)).count("remains after post-processing both") == 1
    assert "the gain on fact_f1 and rouge_l remains" in verdict(scores_of(*rows))


def test_verdict_knows_metrics_where_lower_is_better() -> None:
    rows = [contrast(name, "wrong_speaker_rate", *DOWN) for name in ("C1", "C2", "C3")]
    text = verdict(scores_of(*rows, higher=False))
    assert text.startswith("RL improved raw outputs over SFT on wrong_speaker_rate by -0.041")
    assert "lower is better" in text


def test_verdict_uses_the_corrected_p_and_primaries_only() -> None:
    corrected = scores_of(contrast("C1", "fact_f1", 0.04, 0.01, p_holm=0.2))
    assert verdict(corrected).startswith("No significant difference")
    secondary = scores_of(contrast("C1", "fact_f1", *UP, primary=False))
    assert verdict(secondary).startswith("No verdict: there is no tested primary contrast")


def test_verdict_of_missing_parts() -> None:
    assert verdict(None) == "No verdict: the evaluation has not been run."
    assert "(arms evaluated: sft/raw)" in verdict({"arms": {"sft/raw": {}}, "contrasts": []})
    assert verdict(scores_of(contrast("C1", "fact_f1", 0.1, None))).startswith("No verdict")
    assert tone(None) == "unknown"


@pytest.mark.parametrize(
    ("contrasts", "expected"),
    [
        ((UP, UP, UP), "better"),
        ((UP, None, None), "better"),
        ((UP, NULL, NULL), "mixed"),
        ((UP, UP, DOWN), "mixed"),
        ((DOWN, NULL, NULL), "worse"),
        ((NULL, UP, UP), "equal"),
    ],
)
def test_tone_is_no_rosier_than_the_verdict(contrasts: Any, expected: str) -> None:
    assert tone(one(*contrasts)) == expected


def beside(arms: dict[str, tuple[float, float]], costs: dict[str, Any] | None = None) -> dict[str, Any]:
    """Scores of a run whose RL gained on SFT, with C4 of each arm by one metric."""
    rows = [{**contrast("C1", "fact_f1", *pair), "name": "C4", "b": f"{arm}/raw"} for arm, pair in arms.items()]
    return one(UP, UP, UP) | {"baseline_contrasts": rows} | ({"costs": costs} if costs else {})


COSTS = {
    "rl": {"total_seconds": 200.0, "decoded_tokens": 100},
    "dpo": {"total_seconds": 90.0, "decoded_tokens": 110},
    "best_of_n": {"total_seconds": 30.0, "decoded_tokens": 400, "samples_per_output": 4},
}


def test_the_verdict_ends_with_the_cheapest_alternative() -> None:
    text = verdict(beside({"dpo": UP, "best_of_n": NULL}, COSTS))
    assert text.startswith(verdict(one(UP, UP, UP)))
    assert text.endswith(
        "The cheapest alternative was the best of 4 samples by the same reward (30.0 s of training beyond SFT, RL 3 "
        "min 20 s; 4.0 times RL's tokens to decode): RL was not significantly different (fact_f1 +0.002 [-0.018, "
        "0.022], Holm p = .600); against DPO on the same negatives it was better on fact_f1 by +0.041 "
        "[0.021, 0.061] (Holm p = .003)."
    )


def test_arms_without_a_difference_are_named_together_and_not_called_equal() -> None:
    text = verdict(beside({"best_of_n": DOWN, "unlikelihood": NULL, "rejection_sft": NULL}, COSTS))
    assert "RL was worse on fact_f1 by -0.041 [-0.061, -0.021] (Holm p = .003); no significant difference to " in text
    assert text.endswith("to unlikelihood on the same negatives or rejection-sampling SFT was found either way.")


@pytest.mark.parametrize(("pair", "words"), [(UP, "RL was better on fact_f1"), (DOWN, "RL was worse on fact_f1")])
def test_the_verdict_takes_no_side(pair: tuple[float, float], words: str) -> None:
    text = verdict(beside({"dpo": pair}))
    assert f"The cheapest alternative was DPO on the same negatives: {words} by" in text
    assert "alternative" not in verdict(one(UP, UP, UP))


def test_the_verdict_says_when_the_policy_is_the_sft_model() -> None:
    scores = one(NULL, NULL, NULL)
    assert verdict(scores, kept_sft=True).startswith("RL ended with the SFT model itself")
    assert verdict(scores, kept_sft=True).endswith(verdict(scores))
