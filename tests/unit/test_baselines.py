"""The arms beside RL: their data, their losses on a real small model, their checkpoints, and what they refuse."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from homestretch.baselines import best_of_n
from homestretch.baselines.cost import Decoding, arm_costs
from homestretch.baselines.objectives import (
    DPO,
    MaximumLikelihood,
    Unlikelihood,
    build_pairs,
    frozen_logprobs,
    summed_logprobs,
)
from homestretch.baselines.trainer import Plan, train
from homestretch.config import DPOConfig, OptimizerConfig
from homestretch.forward import response_batch, response_logprobs
from homestretch.models import load_language_model
from homestretch.recipe import load_recipe
from homestretch.rewards.judged import judged_to_row
from homestretch.rundir import STAGES, RunDir, planned_stages, write_jsonl
from homestretch.stages import baselines
from homestretch.training import MemoryBudget
from homestretch.types import Completion, Judged, ScoredCompletions, UserError
from tiny import tiny_config, tiny_examples

EXAMPLES = tiny_examples(4)
WRONG = [
    Judged("e0", Completion("Ann and Tom will meet at the cafe on Saturday at 6."), "wrong_entity", 0.0, (8, 11)),
    Judged("e1", Completion("Eva forgot the milk", terminated=False), "truncation", 0.0, (19, 19)),
    Judged("e2", Completion("the train the train", terminated=False), "on_policy", 0.0),
    Judged("e3", Completion("Max sold the bike."), "omission", 0.0, (17, 17)),
]
POSITIVES = [Judged(e.id, Completion(e.reference), "reference", 1.0) for e in EXAMPLES]


@pytest.fixture
def lm(tiny_folders: Any) -> Any:
    return load_language_model(tiny_folders["llama"], tiny_config())


@pytest.fixture
def pairs(lm: Any) -> Any:
    return build_pairs(lm.codec, EXAMPLES, [*POSITIVES, *WRONG])


# --- the recipe -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("section", "words"),
    [
        ("{arms: [dpo, ppo]}", "'ppo' is not one of|\"ppo\" is not one of"),
        ("{arms: [dpo, dpo]}", "names an arm twice"),
        ("{best_of_n: {n: 1}}", "baselines.best_of_n.n.*leaves nothing to choose from"),
        ("{dpo: {betta: 1}}", "did you mean 'beta'"),
    ],
)
def test_a_mistake_in_the_section_is_one_line(tmp_path: Any, section: str, words: str) -> None:
    (tmp_path / "x.yaml").write_text(f"data: {{task: chats}}\nmodel: {{path: ./m}}\nbaselines: {section}\n")
    with pytest.raises(UserError, match=words) as error:
        load_recipe(tmp_path / "x.yaml")
    assert "\n" not in str(error.value)


def test_a_run_without_arms_has_the_stages_it_always_had() -> None:
    assert planned_stages(with_baselines=False) == ("sft", "negatives", "reward", "rl", "evaluate", "report")
    assert planned_stages(with_baselines=True) == STAGES
    assert tiny_config().baselines.arms == ()


# --- pairs ------------------------------------------------------------------------------------------------------------


def test_a_pair_is_a_reference_and_a_negative_with_the_terminator_as_recorded(lm: Any, pairs: Any) -> None:
    eos = lm.codec.eos_id
    assert len(pairs) == len(WRONG)
    for pair, example, row in zip(pairs, EXAMPLES, WRONG, strict=True):
        assert pair.prompt == lm.codec.encode_prompt(example).ids
        assert pair.reference == lm.codec.encode_completion(Completion(example.reference))
        assert pair.negative == lm.codec.encode_completion(row.completion)
        assert (pair.negative[-1] == eos) == row.completion.terminated
    wrong = [[i for i, is_wrong in zip(p.negative, p.is_wrong, strict=True) if is_wrong] for p in pairs]
    assert lm.codec.tokenizer.decode(wrong[0]) == "Tom"
    assert wrong[1] == []  # cut short, without a terminator: no token of it is wrong
    assert wrong[2] == list(pairs[2].negative)  # no span: all of it
    assert len(wrong[3]) == 1  # the one in the place of what was left out


def test_what_is_no_pair_is_left_out(lm: Any) -> None:
    two = replace(EXAMPLES[0], references=("Ann meets Bob.", "They meet."))
    same, empty = Completion("They meet."), Completion("", terminated=False)
    rows = [Judged("e0", c, "x", 0.0) for c in (Completion("Ann eats."), same, Completion("Bob eats."), empty)]
    pairs = build_pairs(lm.codec, [two], rows)
    first = lm.codec.encode_completion(Completion(two.references[0]))
    assert [(pair.reference == first) for pair in pairs] == [True, True]  # the second turn's was the reference itself
    assert len(build_pairs(lm.codec, [two], [Judged("e0", same, "on_policy_positive", 1.0)])) == 0


# --- losses on a model ------------------------------------------------------------------------------------------------


def logprobs(lm: Any, prompt: Any, ids: Any) -> torch.Tensor:
    return response_logprobs(lm, response_batch([prompt], [ids], lm)).logprobs_BT[0, : len(ids)]


def test_dpo_begins_at_log_2_and_is_the_mean_over_pairs(lm: Any, pairs: Any) -> None:
    reference = frozen_logprobs(lm, pairs, MemoryBudget(64, "x"))
    for i, pair in enumerate(pairs):
        assert reference[0, i].item() == pytest.approx(logprobs(lm, pair.prompt, pair.reference).sum().item(), abs=1e-3)
        assert reference[1, i].item() == pytest.approx(logprobs(lm, pair.prompt, pair.negative).sum().item(), abs=1e-3)
    objective = DPO(pairs, reference, beta=0.1)
    assert objective.loss(lm, range(4), range(4)).item() == pytest.approx(math.log(2), abs=1e-4)
    with torch.no_grad():
        lm.model.get_output_embeddings().weight.mul_(1.5)
    whole = objective.loss(lm, range(4), range(4)).item()
    parts = objective.loss(lm, [2, 0], range(4)).item() + objective.loss(lm, [3, 1], range(4)).item()
    assert parts == pytest.approx(whole, abs=1e-5)
    assert abs(whole - math.log(2)) > 1e-3


def test_unlikelihood_is_recomputed_token_by_token(lm: Any, pairs: Any) -> None:
    pairs = [pair for pair in pairs if any(pair.is_wrong)]
    expected_nll = expected_wrong = 0.0
    for pair in pairs:
        expected_nll -= logprobs(lm, pair.prompt, pair.reference).sum().item()
        for value, is_wrong in zip(logprobs(lm, pair.prompt, pair.negative).tolist(), pair.is_wrong, strict=True):
            expected_wrong -= math.log1p(-math.exp(value)) if is_wrong else 0.0
    expected = expected_nll / sum(len(p.reference) for p in pairs)
    expected += 2.0 * expected_wrong / sum(sum(p.is_wrong) for p in pairs)
    objective = Unlikelihood(pairs, alpha=2.0)
    assert objective.loss(lm, range(3), range(3)).item() == pytest.approx(expected, abs=1e-4)
    parts = sum(objective.loss(lm, [i], range(3)).item() for i in range(3))
    assert parts == pytest.approx(expected, abs=1e-4)


def test_maximum_likelihood_has_the_batch_s_denominator(lm: Any, pairs: Any) -> None:
    objective = MaximumLikelihood([(pair.prompt, pair.reference) for pair in pairs])
    parts = sum(objective.loss(lm, [i], range(4)).item() for i in range(4))
    assert objective.loss(lm, range(4), range(4)).item() == pytest.approx(parts, abs=1e-5)


# --- training ---------------------------------------------------------------------------------------------------------


def plan(scores: list[float], **settings: Any) -> Plan:
    values = iter(scores)
    section = DPOConfig(batch_size=4, num_epochs=50, **settings)
    return Plan("baselines.dpo", section, OptimizerConfig(lr=3e-3), len(scores) - 1, lambda _: next(values), _ignore)


def _ignore(step: int, row: Any) -> None:
    assert all(math.isfinite(value) for value in row.values())


def test_dpo_learns_to_prefer_references_whatever_the_micro_batches(lm: Any, pairs: Any, tmp_path: Any) -> None:
    reference = frozen_logprobs(lm, pairs, MemoryBudget(8192, "x"))
    before = (reference[0] - reference[1]).mean().item()
    trained = train(
        lm, DPO(pairs, reference, 0.1), plan([0.1, 0.2], max_steps=8), tmp_path / "best", np.random.default_rng(0),
        MemoryBudget(150, "x"),
    )  # fmt: skip
    after = summed_logprobs(lm, pairs).detach()
    assert (after[0] - after[1]).mean().item() > before + 1.0
    assert (trained.steps, trained.kept_step, trained.selection) == (8, 8, 0.2)
    assert trained.trained_tokens == 8 * sum(pair.size for pair in pairs)
    assert not (tmp_path / "best").exists()


def test_where_no_step_is_better_the_sft_model_is_kept(lm: Any, pairs: Any, tmp_path: Any) -> None:
    before = {name: p.detach().clone() for name, p in lm.model.named_parameters()}
    objective = MaximumLikelihood([(pair.prompt, pair.reference) for pair in pairs])
    trained = train(
        lm, objective, plan([0.5, 0.5, 0.4], max_steps=2), tmp_path / "best", np.random.default_rng(0),
        MemoryBudget(8192, "x"),
    )  # fmt: skip
    assert (trained.steps, trained.kept_step, trained.selection) == (2, 0, 0.5)
    assert all(torch.equal(p, before[name]) for name, p in lm.model.named_parameters())


# --- the stage --------------------------------------------------------------------------------------------------------


def stage_config(arms: list[str], **model: Any) -> Any:
    data = {
        "task": "chats", "sizes": {"train": 8, "prompts": 4, "validation": 4, "test": 4}, "max_prompt_tokens": 200,
        "max_completion_tokens": 12,
    }  # fmt: skip
    section = {"arms": arms, **{arm: {"max_steps": 1, "batch_size": 4} for arm in arms if arm != "best_of_n"}}
    config = tiny_config(data=data, baselines=section, rl={"num_updates": 1, "prompts_per_update": 4})
    return config.model_copy(update={"model": config.model.model_copy(update=model)})


def stage_run(tiny_folders: Any, tmp_path: Any, config: Any) -> RunDir:
    from homestretch.data import load_splits

    rundir = RunDir(tmp_path / "run")
    rundir.path.mkdir()
    rundir.sft_dir.symlink_to(tiny_folders["llama"])
    examples = load_splits(config).train
    rows = [Judged(e.id, Completion(e.reference[::-1]), "x", 0.0, (0, 5)) for e in examples]
    write_jsonl(rundir.negatives_dir / "train.jsonl", map(judged_to_row, rows))
    return rundir


@pytest.mark.parametrize("arm", ["dpo", "unlikelihood"])
def test_an_arm_of_adapters_is_written_as_a_plain_folder(tiny_folders: Any, tmp_path: Any, arm: str) -> None:
    from homestretch.config import LoRAConfig

    config = stage_config([arm], lora=LoRAConfig(r=2, alpha=4))
    rundir = stage_run(tiny_folders, tmp_path, config)
    (rundir.baselines_dir / "left_from_before").mkdir(parents=True)
    summary = baselines.run(config, rundir)["arms"][arm]
    assert summary["steps"] == 1
    assert summary["num_items"] + summary["num_left_out"] == 8
    assert summary["trained_tokens"] > 0
    assert [path.name for path in rundir.baselines_dir.iterdir()] == [arm]
    assert {"config.json", "model.safetensors"} <= {p.name for p in (rundir.baselines_dir / arm).iterdir()}
    assert not (rundir.baselines_dir / arm / "adapter_config.json").exists()


def test_rejection_sampling_keeps_the_best_that_ended(
    lm: Any, tiny_folders: Any, tmp_path: Any, monkeypatch: Any
) -> None:
    config = stage_config(["rejection_sft"])
    rundir = stage_run(tiny_folders, tmp_path, config)

    def first_ends(config: Any, rundir: Any, examples: Any, samples: Any) -> list[Completion]:
        return [Completion("Ann eats.", terminated=i == 0) for i in range(len(examples))]

    monkeypatch.setattr(baselines, "rewarded_best", first_ends)
    from homestretch.data import load_splits

    objective, cost = baselines._rejection_sampled(config, rundir, lm, load_splits(config))
    assert (cost["num_items"], cost["num_left_out"], cost["sampled_completions"]) == (1, 3, 16)
    assert cost["sampled_tokens"] > 0
    assert objective.pairs[0][1][-1] == lm.codec.eos_id


def test_dpo_without_negatives_says_what_to_run(tiny_folders: Any, tmp_path: Any) -> None:
    config = stage_config(["dpo"])
    rundir = stage_run(tiny_folders, tmp_path, config)
    (rundir.negatives_dir / "train.jsonl").unlink()
    with pytest.raises(UserError, match=r"no negatives there for baselines.dpo; run `homestretch negatives`"):
        baselines.run(config, rundir)
    write_jsonl(rundir.negatives_dir / "train.jsonl", [judged_to_row(POSITIVES[0])])
    with pytest.raises(UserError, match=r"baselines.dpo: there is nothing to learn from"):
        baselines.run(config, rundir)


# --- best of n --------------------------------------------------------------------------------------------------------


def by_length(examples: Any, completions: Any) -> ScoredCompletions:
    return ScoredCompletions(np.array([float(len(c.text)) for c in completions]), {})


def test_the_best_of_a_prompt_s_samples_is_chosen_the_first_of_equals() -> None:
    samples = [[Completion("a"), Completion("ccc"), Completion("bb")], [Completion("dd"), Completion("ee")]]
    assert [c.text for c in best_of_n.best_of(by_length, EXAMPLES[:2], samples)] == ["ccc", "dd"]


def test_best_of_n_sees_no_reference_and_counts_every_sample(
    tiny_folders: Any, tmp_path: Any, monkeypatch: Any
) -> None:
    config = stage_config(["best_of_n"])
    rundir = stage_run(tiny_folders, tmp_path, config)
    seen = []

    def longest(config: Any, rundir: Any, examples: Any, samples: Any) -> list[Completion]:
        seen.extend(zip(examples, samples, strict=True))
        return best_of_n.best_of(by_length, examples, samples)

    monkeypatch.setattr(best_of_n, "rewarded_best", longest)
    chosen, tokens = best_of_n.decode_best_of_n(config, rundir, EXAMPLES)
    assert all(example.references == () and example.facts == {} for example, _ in seen)
    assert [len(row) for _, row in seen] == [4] * 4
    assert tokens == sum(len(c.ids) + c.terminated for _, row in seen for c in row)
    assert all(len(c.text) == max(len(other.text) for other in row) for c, (_, row) in zip(chosen, seen, strict=True))


# --- costs ------------------------------------------------------------------------------------------------------------


def test_an_arm_is_charged_what_it_needs(tmp_path: Any) -> None:
    config, rundir = stage_config(["dpo", "best_of_n"]), RunDir(tmp_path)
    for stage, seconds in {"sft": 9.0, "negatives": 10.0, "reward": 20.0, "rl": 100.0}.items():
        rundir.mark_done(stage, {"seconds": seconds, "updates": 1})
    rundir.mark_done("baselines", {"arms": {"dpo": {"seconds": 40.0, "trained_tokens": 7, "scored_tokens": 5}}})
    decodings = {name: Decoding(11, 1.0) for name in ("base", "sft", "rl", "dpo", "best_of_n")}
    costs = arm_costs(config, rundir, decodings)
    assert {arm: cost["total_seconds"] for arm, cost in costs.items()} == {
        "sft": 0.0, "rl": 130.0, "dpo": 50.0, "best_of_n": 30.0,
    }  # fmt: skip
    assert costs["rl"]["sampled_completions"] == 16
    assert costs["rl"]["trained_tokens"] is None
    assert (costs["dpo"]["trained_tokens"], costs["best_of_n"]["samples_per_output"]) == (7, 4)
