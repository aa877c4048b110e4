"""What is found before weights are loaded, check by check."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from homestretch.config import RunConfig
from homestretch.inspection import check_model_folder, generating_family
from homestretch.recipe import dump_recipe
from homestretch.rundir import RunDir
from homestretch.types import Metric, UserError
from homestretch.validation import changed_recipe, split_lengths, validate
from tiny import NEW_MODELS

HERE = "unit.test_validation"


def raises(context: Any) -> Metric:
    return Metric("raises", lambda examples, completions: {}["a"])


def no_metric(context: Any) -> int:
    return 3


def one_number(context: Any) -> Metric:
    return Metric("one_number", lambda examples, completions: 0.5)  # type: ignore[arg-type, return-value]


def refuses_empty(examples: Any, completions: Any) -> list[int]:
    return [len(completion.text) // len(completion.text) for completion in completions]


SIZES = {"train": 12, "prompts": 4, "validation": 4, "test": 4}


def config(tmp_path: Path, model: dict[str, Any], **sections: Any) -> RunConfig:
    data = {"task": "chats", "sizes": SIZES, "max_prompt_tokens": 200, "max_completion_tokens": 40}
    values = {"output_dir": str(tmp_path), "data": data | sections.pop("data", {}), "model": model} | sections
    return RunConfig.model_validate_json(json.dumps(values))


def new(kind: str = "llama", **fields: Any) -> dict[str, Any]:
    made = NEW_MODELS[kind].model_dump(mode="json")
    return {"new": made | {"config": made["config"] | fields}}


@pytest.fixture
def llama(tmp_path: Path, tiny_folders: dict[str, Path]) -> Path:
    """A copy of a whole model folder, to be spoilt."""
    return Path(shutil.copytree(tiny_folders["llama"], tmp_path / "llama"))


@pytest.mark.parametrize("kind", list(NEW_MODELS))
def test_a_good_model_of_every_kind_passes(tmp_path: Path, tiny_folders: dict[str, Path], kind: str) -> None:
    assert validate(config(tmp_path, {"path": str(tiny_folders[kind])})) == []


@pytest.mark.parametrize("kind", ["llama", "t5"])
def test_a_model_to_be_made_passes(tmp_path: Path, kind: str) -> None:
    assert validate(config(tmp_path, new(kind))) == []


@pytest.mark.parametrize(
    ("finder", "message"), [("nltk", "no finder"), ("spacy:no_such", "pip install|spacy download")]
)
def test_a_finder_that_cannot_be_had_is_one_problem(tmp_path: Path, finder: str, message: str) -> None:
    (problem,) = validate(config(tmp_path, new(), data={"entities": finder}))
    assert problem.startswith("data.entities: ")
    assert re.search(message, problem)


def test_families() -> None:
    from transformers import AutoConfig

    def family(model_type: str, **fields: Any) -> str | None:
        return generating_family(AutoConfig.for_model(model_type, **fields))

    assert [family(t) for t in ("llama", "qwen2", "gpt2", "opt")] == ["causal"] * 4
    assert [family(t) for t in ("t5", "bart", "pegasus")] == ["seq2seq"] * 3
    assert [family(t) for t in ("bert", "roberta", "electra", "modernbert", "deberta-v2", "vit")] == [None] * 6
    assert family("bert", is_decoder=True) == "causal"


def test_every_fault_of_a_folder_is_told(llama: Path) -> None:
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        (llama / name).unlink()
    with pytest.raises(UserError) as caught:
        check_model_folder("model.path", str(llama))
    lines = str(caught.value).splitlines()
    assert ["config.json" in lines[0], "weights" in lines[1], "tokenizer" in lines[2]] == [True] * 3


def test_a_missing_shard_is_named(llama: Path) -> None:
    (llama / "model.safetensors").rename(llama / "model-00001-of-00002.safetensors")
    index = {"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}
    (llama / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(UserError, match=r"has no model-00002-of-00002\.safetensors"):
        check_model_folder("model.path", str(llama))


def only(problems: list[str]) -> str:
    assert len(problems) == 1, problems
    return problems[0]


def test_a_tokenizer_of_another_model(tmp_path: Path, llama: Path) -> None:
    settings = json.loads((llama / "config.json").read_text())
    (llama / "config.json").write_text(json.dumps(settings | {"vocab_size": 10}))
    problem = only(validate(config(tmp_path, {"path": str(llama)})))
    assert "they do not belong together" in problem


@pytest.mark.parametrize(("prompt", "completion", "expected"), [
    (200, 56, "data.max_prompt_tokens=199 or less"),
    (200, 55, None),
])  # fmt: skip
def test_positions_of_a_causal_model(tmp_path: Path, prompt: int, completion: int, expected: str | None) -> None:
    lengths = {"max_prompt_tokens": prompt, "max_completion_tokens": completion}
    problems = validate(config(tmp_path, new("llama"), data=lengths))
    assert ([] if expected is None else [True]) == [str(expected) in problem for problem in problems]


def test_positions_of_an_encoder_decoder_count_each_side(tmp_path: Path) -> None:
    fits = {"max_prompt_tokens": 256, "max_completion_tokens": 255}
    assert validate(config(tmp_path, new("bart"), data=fits)) == []
    assert "data.max_completion_tokens + 1 = 258" in only(
        validate(config(tmp_path, new("bart"), data=fits | {"max_completion_tokens": 257}))
    )
    assert validate(config(tmp_path, new("t5"), data={"max_prompt_tokens": 5000})) == []


def test_a_template_longer_than_the_prompt(tmp_path: Path) -> None:
    data = {"template": "word " * 30 + "{document}", "max_prompt_tokens": 20}
    assert "the prompt without its document" in only(validate(config(tmp_path, new(), data=data)))


def test_a_chat_template_that_is_not_there(tmp_path: Path, llama: Path) -> None:
    problem = only(validate(config(tmp_path, {"path": str(llama)}, data={"chat_template": True})))
    assert problem.startswith("data.chat_template: ")


@pytest.mark.parametrize(
    ("sections", "expected"),
    [
        ({"negatives": {"include": ["trunkation"]}}, "did you mean 'truncation'?"),
        ({"negatives": {"include": ["no_such_package:Mode"]}}, "no module 'no_such_package'"),
        ({"evaluate": {"selection_metrics": ["rouge_x"]}}, "unknown metric 'rouge_x'"),
        ({"evaluate": {"primary_metrics": ["chrff"]}}, "did you mean 'chrf'?"),
        ({"evaluate": {"split": "tset"}}, "'tset' is neither a split"),
        ({"data": {"task": "chat"}}, "did you mean 'chats'?"),
        ({"evaluate": {"primary_metrics": [f"{HERE}:raises"]}}, f"metric '{HERE}:raises' failed: KeyError: 'a'"),
        ({"evaluate": {"primary_metrics": [f"{HERE}:no_metric"]}}, "returned a int, no homestretch.types.Metric"),
        ({"evaluate": {"selection_metrics": [f"{HERE}:one_number"]}}, "returned shape () for 12 completions"),
        ({"rl": {"terms": [{"scorer": f"{HERE}:refuses_empty", "weight": 1.0}]}}, "(example 'chats-train-0')"),
        ({"reward": {"backbone": "./nowhere"}}, "reward.backbone: ./nowhere: no such folder"),
    ],
)
def test_unknown_names(tmp_path: Path, sections: dict[str, Any], expected: str) -> None:
    assert expected in only(validate(config(tmp_path, new(), **sections)))


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"num_attention_heads": 5}, "model.new.config: transformers refuses it: The hidden size"),
        ({"num_hidden_layers": 2_000, "hidden_size": 40_000}, "output_dir: "),
    ],
)
def test_a_config_that_cannot_be(tmp_path: Path, fields: dict[str, Any], expected: str) -> None:
    assert only(validate(config(tmp_path, new("llama", **fields)))).startswith(expected)


def test_an_unknown_model_type(tmp_path: Path) -> None:
    assert "did you mean 'llama'?" in only(validate(config(tmp_path, {"new": {"model_type": "lama"}})))


def test_problems_of_different_kinds_are_all_told(tmp_path: Path) -> None:
    broken = config(
        tmp_path, {"path": "./nowhere"}, negatives={"include": ["a", "b"]}, evaluate={"primary_metrics": ["c"]}
    )
    assert len(validate(broken)) == 4


def test_a_changed_recipe(tmp_path: Path) -> None:
    old, changed = config(tmp_path, new()), config(tmp_path, new(), rl={"kl": {"beta": 0.5}})
    assert changed_recipe(changed) == []
    rundir = RunDir(old.run_dir)
    rundir.path.mkdir()
    rundir.config_path.write_text(dump_recipe(old))
    assert changed_recipe(old) == []
    assert "rl.kl.beta: 0.05 -> 0.5" in only(changed_recipe(changed))
    assert changed_recipe(changed, ("rl.",)) == []
    assert "rl.kl.beta" in only(changed_recipe(changed, ("evaluate.",)))
    assert "make that stage again" not in only(changed_recipe(changed)), "it was not made yet"
    rundir.mark_done("rl", {})
    assert "or make that stage again (`homestretch rl`), or" in only(changed_recipe(changed))
    rundir.mark_undone("rl")
    both = config(tmp_path, new(), rl={"kl": {"beta": 0.5}}, seed=3)
    assert "make that stage again" not in only(changed_recipe(both))
    rundir.config_path.write_text("what: ever\n")
    assert "this version cannot read" in only(changed_recipe(old))
    rundir.config_path.unlink()
    assert changed_recipe(old) == []
    rundir.mark_done("sft", {})
    assert "nobody knows what recipe sft here were made with; put it back" in only(changed_recipe(old))


def test_a_run_directory_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("")
    assert "run is a file" in validate(config(tmp_path, new()))[0]


def test_lengths_count_what_is_cut(tmp_path: Path) -> None:
    free = {row.split: row for row in split_lengths(config(tmp_path, new()))}
    assert {split: row.num_examples for split, row in free.items()} == SIZES
    assert {row.num_cut_prompts for row in free.values()} == {0}
    assert free["prompts"].reference_tokens is None
    longest_prompt = free["train"].prompt_tokens[2]  # type: ignore[index]
    longest_reference = free["train"].reference_tokens[2]  # type: ignore[index]
    caps = {"max_prompt_tokens": longest_prompt - 1, "max_completion_tokens": longest_reference - 1}
    tight = {row.split: row for row in split_lengths(config(tmp_path, new(), data=caps))}
    assert 1 <= tight["train"].num_cut_prompts < SIZES["train"]
    assert 1 <= tight["train"].num_cut_references < SIZES["train"]
    assert tight["train"].prompt_tokens[2] == longest_prompt - 1  # type: ignore[index]
