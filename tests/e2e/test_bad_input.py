"""A user's mistakes through the command line: one line each with file, row or key; exit code 2; nothing lost."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROWS = [
    {"id": f"{n}", "document": f"{a} : the {thing} is here", "reference": f"the {thing} of {a}", "overlaps": ["test"]}
    for n, (a, thing) in enumerate([("ann", "lamp"), ("bob", "map"), ("cat", "bike"), ("dan", "key")])
]


def homestretch(*arguments: str, cwd: Path, limit_bytes: int | None = None) -> subprocess.CompletedProcess[str]:
    def limited() -> None:
        if limit_bytes is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, limit_bytes))

    command = [sys.executable, "-m", "homestretch", *arguments]
    environment = os.environ | {"HF_HUB_OFFLINE": "1"}
    return subprocess.run(
        command, cwd=cwd, preexec_fn=limited, capture_output=True, text=True, check=False, env=environment
    )


def errors(done: subprocess.CompletedProcess[str]) -> list[str]:
    """The error lines of a command that must have refused its input."""
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    return [line.removeprefix("error: ") for line in done.stderr.splitlines() if line.startswith("error: ")]


def make_model(folder: Path, *, kind: str = "llama", eos: bool = True, width: int = 8) -> Path:
    """A very small model with random weights, and a tokenizer of whole words."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import BertConfig, BertModel, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    words = sorted({word for row in ROWS for text in (row["document"], row["reference"]) for word in str(text).split()})
    vocabulary = {word: i for i, word in enumerate(["<pad>", "<s>", "</s>", "<unk>", *words])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    special = {"pad_token": "<pad>", "bos_token": "<s>", "unk_token": "<unk>"} | ({"eos_token": "</s>"} if eos else {})
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special).save_pretrained(folder)
    size = {"hidden_size": width, "intermediate_size": width, "num_hidden_layers": 1, "num_attention_heads": 1}
    shared = size | {"vocab_size": len(vocabulary), "max_position_embeddings": 64}
    if kind == "bert":
        BertModel(BertConfig(**shared)).save_pretrained(folder)
    else:
        LlamaForCausalLM(LlamaConfig(**shared, bos_token_id=1, eos_token_id=2, pad_token_id=0)).save_pretrained(folder)
    return folder


def write_rows(path: Path, rows: list[dict[str, object]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder with a recipe, data and a model that have nothing wrong with them."""
    for split in ("train", "validation", "test"):
        write_rows(tmp_path / "data" / f"{split}.jsonl", ROWS)
    make_model(tmp_path / "model")
    (tmp_path / "x.yaml").write_text(
        "name: small\ndata: {path: ./data, max_prompt_tokens: 40, max_completion_tokens: 20}\nmodel: {path: ./model}\n"
    )
    return tmp_path


def test_nothing_is_wrong_with_the_project_itself(project: Path) -> None:
    done = homestretch("validate", "x.yaml", cwd=project)
    assert done.returncode == 0, done.stderr
    assert "no problems found" in done.stdout
    assert not (project / "runs").exists()


def test_all_bad_rows_of_all_files_are_listed_by_validate_and_run(project: Path) -> None:
    write_rows(
        project / "data" / "train.jsonl",
        [ROWS[0], {"id": "x", "reference": "r"}, {"id": "y", "document": 3, "reference": "r"},
         {"id": "z", "document": "d", "reference": ""}],
    )  # fmt: skip
    (project / "data" / "test.jsonl").write_bytes(b'{"document": "caf\xe9", "reference": "r"}\n{"document": \n')
    for verb in ("validate", "run"):
        lines = errors(homestretch(verb, "x.yaml", cwd=project))
        assert [line.split(": ")[0] for line in lines] == [
            "data/train.jsonl:2", "data/train.jsonl:3", "data/train.jsonl:4", "data/test.jsonl:1", "data/test.jsonl:2",
        ]  # fmt: skip
        for line, message in zip(lines, ("missing", "a number", "empty", "0xe9", "not valid JSON"), strict=True):
            assert message in line
        assert not (project / "runs").exists()


def test_mistakes_of_the_recipe(project: Path) -> None:
    (project / "y.yaml").write_text((project / "x.yaml").read_text() + "sft: {optimizer: {lr: '1e-5'}, epochs: 3}\n")
    lines = errors(homestretch("run", "y.yaml", "rl.kl.betta=1", cwd=project))
    assert len(lines) == 3
    assert any(line.startswith("y.yaml: sft.optimizer.lr: '1e-5' is text") for line in lines)
    assert any(line.startswith("y.yaml: sft.epochs: unknown key; did you mean 'num_epochs'?") for line in lines)
    assert any(line.startswith("command line: rl.kl.betta: unknown key; did you mean 'beta'?") for line in lines)


def drop_weights(project: Path) -> None:
    (project / "model" / "model.safetensors").unlink()


def encoder_only(project: Path) -> None:
    make_model(project / "model", kind="bert")


def no_eos(project: Path) -> None:
    make_model(project / "model", eos=False)


@pytest.mark.parametrize(
    ("spoil", "overrides", "expected"),
    [
        (drop_weights, (), "model.path: ./model has no weights"),
        (encoder_only, (), "model.path: ./model is an encoder-only model (bert)"),
        (no_eos, (), "model.path: ./model: the tokenizer has no EOS token"),
        (
            None,
            ("data.max_prompt_tokens=60",),
            "data.max_prompt_tokens + data.max_completion_tokens + 1 = 81 is more than",
        ),
        (None, ("data.drop_overlaps=[test]",), "data/train.jsonl: no rows left"),
        (None, ("model.path=./elsewhere",), "model.path: ./elsewhere: no such folder"),
    ],
    ids=["no-weights", "encoder-only", "no-eos", "too-long", "nothing-left", "no-folder"],
)
def test_what_cannot_work_is_told_before_any_work(
    project: Path, spoil: Callable[[Path], None] | None, overrides: tuple[str, ...], expected: str
) -> None:
    if spoil is not None:
        spoil(project)
    lines = errors(homestretch("run", "x.yaml", *overrides, cwd=project))
    assert len(lines) == 1
    assert lines[0].startswith(expected)
    assert not (project / "runs").exists()


def test_a_run_directory_of_another_recipe_is_left_as_it_is(project: Path) -> None:
    from homestretch.recipe import dump_recipe, load_recipe
    from homestretch.rundir import RunDir

    rundir = RunDir(project / "runs" / "small")
    rundir.path.mkdir(parents=True)
    rundir.config_path.write_text(dump_recipe(load_recipe(project / "x.yaml", ["rl.kl.beta=0.2"])))
    rundir.mark_done("sft", {"validation_loss": 1.0})
    before = {path: path.read_bytes() for path in rundir.path.rglob("*") if path.is_file()}
    lines = errors(homestretch("run", "x.yaml", cwd=project))
    assert len(lines) == 1
    assert "rl.kl.beta: 0.2 -> 0.05" in lines[0]
    assert "name=..." in lines[0]
    assert {path: path.read_bytes() for path in rundir.path.rglob("*") if path.is_file()} == before


def test_a_full_disk_in_the_middle_keeps_what_was_written(project: Path) -> None:
    """The recipe and the environment fit under the limit, the first checkpoint does not."""
    make_model(project / "model", width=64)
    done = homestretch("run", "x.yaml", "sft.num_epochs=1", cwd=project, limit_bytes=20_000)
    lines = errors(done)
    assert len(lines) == 1
    assert "the disk is full" in lines[0]
    run = project / "runs" / "small"
    assert (run / "config.yaml").is_file()
    assert (run / "environment.json").is_file()
    assert not (run / ".done" / "sft.json").exists()
    assert not list(run.rglob("*.safetensors"))
