"""Recipes: YAML 1.2 habits, mistakes by place, overrides, and the way back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from homestretch.config import RunConfig
from homestretch.recipe import apply_override, differences, dump_recipe, load_recipe, parse_yaml
from homestretch.types import UserError

GOOD = "data: {task: chats}\nmodel: {path: ./m}\n"


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "x.yaml"
    path.write_text(GOOD)
    return path


def mistakes(path: Path, *overrides: str) -> list[str]:
    with pytest.raises(UserError) as caught:
        load_recipe(path, overrides)
    return str(caught.value).splitlines()


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-5", 1e-5), ("1E5", 1e5), ("-.5", -0.5), ("1.", 1.0), (".inf", float("inf")), ("010", 10), ("0o10", 8),
        ("0x1f", 31), ("1_000", "1_000"), ("12:30", "12:30"), ("no", "no"), ("on", "on"), ("y", "y"), ("True", True),
        ("null", None), ("~", None), ("2024-01-02", "2024-01-02"), ("'1e-5'", "1e-5"), ("[a, 1]", ["a", 1]),
    ],
)  # fmt: skip
def test_scalars_are_those_of_yaml_1_2(text: str, value: Any) -> None:
    read = parse_yaml(text, "here")
    assert read == value
    assert type(read) is type(value)


def test_mistakes_are_listed_one_line_each_with_place_and_nearest_key(recipe: Path) -> None:
    recipe.write_text(
        GOOD + "rl:\n  kl: {betta: 1}\n  optimizer: {lr: '1e-5'}\n  lr: 3\n  clip_range: -1\nsft: {batch_size: 1e1}\n"
        "name: 3\nevaluat: {}\n"
    )
    lines = {line.removeprefix(f"{recipe}: ").partition(": ")[0]: line for line in mistakes(recipe)}
    assert lines["rl.kl.betta"].endswith("unknown key; did you mean 'beta'?")
    assert lines["evaluat"].endswith("unknown key; did you mean 'evaluate'?")
    assert "'1e-5' is text, not a number; write it without quotes" in lines["rl.optimizer.lr"]
    assert "there is sft.optimizer.lr" in lines["rl.lr"]
    assert "greater than 0, is -1" in lines["rl.clip_range"]
    assert "write 10" in lines["sft.batch_size"]
    assert "should be text, is 3; put it in quotes" in lines["name"]
    assert len(lines) == 7


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: 2\na: 3\n", ":3: the key 'a' is given twice"),
        ("data: {task: a, task: b}\n", ":1: the key 'task' is given twice"),
        ("1: x\n", ":1: the key 1 must be text"),
        ("a: [1\nb: 2\n", ":2: "),
        ("a: !!python/object:os.system {}\n", ":1: could not determine a constructor"),
        ("- a\n", "a recipe is a mapping"),
        ("", "a recipe is a mapping"),
    ],
)
def test_what_is_no_recipe_is_refused_with_its_line(recipe: Path, text: str, message: str) -> None:
    recipe.write_text(text)
    lines = mistakes(recipe)
    assert len(lines) == 1
    assert lines[0].startswith(f"{recipe}")
    assert message in lines[0]


def test_missing_recipe_and_wrong_encoding(recipe: Path) -> None:
    assert "no such recipe" in mistakes(recipe.with_name("y.yaml"))[0]
    assert "is a directory" in mistakes(recipe.parent)[0]
    recipe.write_bytes(b"name: x\nnote: caf\xe9\n")
    assert mistakes(recipe)[0].startswith(f"{recipe}:2: not UTF-8 (byte 0xe9)")


def test_overrides_replace_and_make_sections(recipe: Path) -> None:
    config = load_recipe(
        recipe, ["rl.kl.beta=1e-2", "seed=3", "model.lora.r=4", "evaluate.primary_metrics=[a, b]", "name=on"]
    )
    assert (config.rl.kl.beta, config.seed, config.name) == (0.01, 3, "on")
    assert config.model.lora is not None
    assert config.model.lora.r == 4
    assert config.evaluate.primary_metrics == ("a", "b")


@pytest.mark.parametrize("name", ["ppo", "rloo", "grpo", "reinforce_pp"])
def test_one_line_selects_the_algorithm_in_yaml_and_behind_the_command(recipe: Path, name: str) -> None:
    assert load_recipe(recipe).rl.algorithm == "ppo"
    assert load_recipe(recipe, [f"rl.algorithm={name}", "rl.kl.beta=0.2"]).rl.algorithm == name
    recipe.write_text(GOOD + f"rl: {{algorithm: {name}, num_updates: 7}}\n")
    config = load_recipe(recipe)
    assert (config.rl.algorithm, config.rl.num_updates) == (name, 7)
    recipe.write_text(dump_recipe(config))
    assert load_recipe(recipe) == config


@pytest.mark.parametrize(
    ("overrides", "key", "message"),
    [
        (["algorithm=grpo", "value_lr=1e-3"], "value_lr",
         "is a key of ppo, not of grpo; take it out, or use rl.algorithm=ppo"),
        (["divide_by_std=true"], "divide_by_std",
         "is a key of grpo, not of ppo; take it out, or use rl.algorithm=grpo"),
        (["algorithm=grpo", "divide_by_sdt=true"], "divide_by_sdt", "unknown key; did you mean 'divide_by_std'?"),
        (["algorithm=rloo", "kl.betta=1"], "kl.betta", "unknown key; did you mean 'beta'?"),
        (["algorithm=gpro"], "algorithm", '"gpro" is not one of ppo, rloo, grpo, reinforce_pp; did you mean \'grpo\'?'),
        (["algorithm=null"], "algorithm", "null is not one of ppo, rloo, grpo, reinforce_pp"),
        (["algorithm=rloo", "completions_per_prompt=1"], "completions_per_prompt",
         "a single completion has no others to be compared with; use 2 or more, or algorithm ppo"),
        (["algorithm=grpo", "completions_per_prompt=0"], "completions_per_prompt",
         "should be greater than or equal to 2, is 0"),
    ],
)  # fmt: skip
def test_mistakes_about_the_algorithm_come_with_the_way_out(
    recipe: Path, overrides: list[str], key: str, message: str
) -> None:
    lines = mistakes(recipe, *[f"rl.{override}" for override in overrides])
    assert lines == [f"command line: rl.{key}: {message}"]


def test_a_section_of_another_algorithm_is_refused_with_its_place(recipe: Path) -> None:
    recipe.write_text(GOOD + "rl: {critic_warmup_updates: 0}\n")
    assert mistakes(recipe, "rl.algorithm=rloo") == [
        f"{recipe}: rl.critic_warmup_updates: is a key of ppo, not of rloo; take it out, or use rl.algorithm=ppo"
    ]
    recipe.write_text(GOOD + "rl: {algorithm: grpo, divide_by_length: true, token_denominator: 9}\n")
    assert mistakes(recipe) == [f"{recipe}: rl: give `token_denominator` or `divide_by_length: true`, and not both"]
    recipe.write_text(GOOD + "rl: 3\n")
    assert mistakes(recipe) == [f"{recipe}: rl: should be an object, is 3"]


def test_ppo_with_one_completion_per_prompt_is_fine(recipe: Path) -> None:
    assert load_recipe(recipe, ["rl.completions_per_prompt=1"]).rl.completions_per_prompt == 1


def test_in_the_schema_only_ppo_may_leave_the_algorithm_out() -> None:
    schema = RunConfig.model_json_schema()
    members = [schema["$defs"][ref["$ref"].rpartition("/")[2]] for ref in schema["properties"]["rl"]["oneOf"]]
    is_required = {m["properties"]["algorithm"]["const"]: "algorithm" in m.get("required", []) for m in members}
    assert is_required == {"ppo": False, "rloo": True, "grpo": True, "reinforce_pp": True}


def test_the_last_override_wins(recipe: Path) -> None:
    assert load_recipe(recipe, ["seed=3", "seed=4"]).seed == 4


def test_a_text_with_a_colon_stays_text() -> None:
    values: dict[str, Any] = {}
    apply_override(values, "data.template=Summarize: {document}")
    assert values == {"data": {"template": "Summarize: {document}"}}


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("seed", "not of the form a.b=value"), (".a=1", "not of the form"), ("seed=", "has no value"),
        ("name.x=1", "name is \"run\", not a section"), ("rl.kl.betta=1", "rl.kl.betta: unknown key"),
        ("data.template={document}", "should be text"), ("data.template={document} x", "double quotes"),
        ("seed=-1", "greater than or equal to 0"), ("name=a/b", "name: "),
    ],
)  # fmt: skip
def test_a_bad_override_is_named(recipe: Path, override: str, message: str) -> None:
    recipe.write_text("name: run\n" + GOOD)
    lines = mistakes(recipe, override)
    assert len(lines) == 1
    assert lines[0].startswith("command line: ")
    assert message in lines[0]


def test_rival_keys_come_with_the_way_out(recipe: Path) -> None:
    assert "add `data.task=null`" in mistakes(recipe, "data.path=./d")[0]
    assert load_recipe(recipe, ["data.path=./d", "data.task=null"]).data.path == "./d"
    assert "add `model.path=null`" in mistakes(recipe, "model.new={}")[0]


def test_the_dump_reads_back_equal_and_holds_every_value(recipe: Path) -> None:
    config = load_recipe(recipe, ["data.template='1e-5 {document} #x'", "model.path=on", "rl.optimizer.lr=3e-7"])
    recipe.write_text(dump_recipe(config))
    assert load_recipe(recipe) == config
    assert yaml.safe_load(recipe.read_text()) == config.model_dump(mode="json")


@settings(deadline=None)  # a busy machine is no failure
@given(
    st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=12)
    | st.sampled_from(["1e-5", "no", "~", "0o7"])
)
def test_any_text_survives_the_dump(text: str) -> None:
    config = RunConfig.model_validate({"data": {"task": text}, "model": {"path": "m", "revision": text}})
    assert parse_yaml(dump_recipe(config), "here") == config.model_dump(mode="json")


def test_differences_name_the_leaves_and_not_the_place(recipe: Path) -> None:
    old = load_recipe(recipe)
    new = load_recipe(recipe, ["rl.kl.beta=0.1", "name=other", "output_dir=elsewhere", "model.lora={r: 8}"])
    lines = differences(old, new)
    assert lines[0] == "rl.kl.beta: 0.05 -> 0.1"
    assert "model.lora.r: unset -> 8" in lines
    assert not [line for line in lines if line.startswith(("name", "output_dir"))]
    assert differences(old, load_recipe(recipe)) == []


def test_adapters_of_the_reward_are_for_the_sft_model(recipe: Path) -> None:
    lora = load_recipe(recipe, ["reward.lora={r: 4}"]).reward.lora
    assert lora is not None
    assert lora.r == 4
    with pytest.raises(UserError, match=r"reward.*`lora` is for `backbone: sft`"):
        load_recipe(recipe, ["reward.lora={r: 4}", "reward.backbone=some/encoder"])


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("9" * 5000, "a number has more digits than can be read"),
        ("!!timestamp 2024-01-02", "a recipe has no use for !!timestamp; write it as text"),
        ("!!set {a, b}", "a recipe has no use for !!set"),
        ("!!binary aGk=", "a recipe has no use for !!binary"),
    ],
)
def test_values_that_json_does_not_have_are_one_line(recipe: Path, value: str, said: str) -> None:
    recipe.write_text(f"{GOOD}seed: {value}\n")
    (line,) = mistakes(recipe)
    assert line.startswith(f"{recipe}:3: {said}")


def test_bounds_that_only_harm_can_lie_beyond(recipe: Path) -> None:
    for override in ("num_threads=100000", "evaluate.primary_metrics=[]", "evaluate.selection_metrics=[]"):
        (line,) = mistakes(recipe, override)
        assert line.startswith(f"command line: {override.partition('=')[0]}: ")
