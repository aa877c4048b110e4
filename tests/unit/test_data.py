"""Reading data: every kind of file, and every kind of bad row by its place."""

from __future__ import annotations

import csv
import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from homestretch.config import DataConfig, EvaluateConfig, ModelConfig, RunConfig
from homestretch.data import Splits, evaluation_examples, load_prompts, load_splits
from homestretch.prompts import flat, parse_template
from homestretch.types import Example, UserError

ROWS = [
    {"id": "a", "document": "Ann: tea at 4?\nBob: yes", "reference": "They have tea at 4."},
    {"id": "b", "document": "Cat: where is Dan?", "reference": "Cat looks for Dan."},
    {"id": "c", "document": "Eve: the lift is broken", "reference": "The lift is broken."},
]


def config(**data: Any) -> RunConfig:
    return RunConfig.model_validate_json(json.dumps({"data": data, "model": {"path": "unused"}}))


def jsonl(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def file_examples(setting: RunConfig, file: str, **evaluate: Any) -> list[Example]:
    """What `evaluate.split: file` gives; the splits have no say in it."""
    named = setting.model_copy(update={"evaluate": EvaluateConfig(split=file, **evaluate)})
    return evaluation_examples(named, Splits((), (), (), ()))


def refusal(**data: Any) -> list[str]:
    with pytest.raises(UserError) as caught:
        load_splits(config(**data))
    return str(caught.value).splitlines()


def write_table(path: Path) -> None:
    kind = path.name.removesuffix(".gz")
    if kind.endswith(".jsonl"):
        content = "".join(json.dumps(row) + "\n" for row in ROWS).encode()
    elif kind.endswith(".csv"):
        plain = path.parent / "plain.csv"
        with plain.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, ["id", "document", "reference"])
            writer.writeheader()
            writer.writerows(ROWS)
        content = plain.read_bytes()
    else:
        import pyarrow
        from pyarrow import parquet

        plain = path.parent / "plain.parquet"
        parquet.write_table(pyarrow.Table.from_pylist(ROWS), plain)
        content = plain.read_bytes()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet"])
@pytest.mark.parametrize("packed", ["", ".gz"])
def test_every_kind_of_file_gives_the_same_examples(tmp_path: Path, suffix: str, packed: str) -> None:
    path = tmp_path / f"test{suffix}{packed}"
    write_table(path)
    examples = file_examples(config(train=jsonl(tmp_path / "t.jsonl", ROWS)), str(path))
    assert [(e.id, e.source, e.references) for e in examples] == [
        (row["id"], row["document"], (row["reference"],)) for row in ROWS
    ]


def test_a_folder_of_splits_and_its_aliases(tmp_path: Path) -> None:
    for name, row in zip(("train.jsonl", "dev.jsonl", "test.jsonl"), ROWS, strict=True):
        jsonl(tmp_path / name, [row])
    jsonl(tmp_path / "prompts.jsonl", [{"document": "Fay: hello?"}])
    (tmp_path / "README.md").write_text("not a split")
    splits = load_splits(config(path=str(tmp_path)))
    assert [[e.id for e in s] for s in (splits.train, splits.validation, splits.test)] == [["a"], ["b"], ["c"]]
    assert [(e.id, e.references) for e in splits.prompts] == [("prompts.jsonl:1", ())]


def test_the_same_split_twice_in_a_folder_is_refused(tmp_path: Path) -> None:
    for name in ("train.jsonl", "train.csv"):
        write_table(tmp_path / name)
    assert "train.csv and train.jsonl" in refusal(path=str(tmp_path))[0]


def test_a_local_folder_read_by_the_datasets_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path / "cache"))
    (tmp_path / "set" / "data").mkdir(parents=True)
    jsonl(tmp_path / "set" / "data" / "train-00000-of-00001.jsonl", ROWS)
    jsonl(tmp_path / "set" / "data" / "test-00000-of-00001.jsonl", ROWS[:1])
    splits = load_splits(config(path=str(tmp_path / "set")))
    assert {e.id for e in (*splits.train, *splits.validation)} == {"a", "b", "c"}
    assert [e.references for e in splits.test] == [("They have tea at 4.",)]


def test_columns_by_usual_and_by_given_names(tmp_path: Path) -> None:
    rows = [{"prompt": f"p{i}", "completion": f"c{i}", "mine": f"m{i}"} for i in range(3)]
    file = jsonl(tmp_path / "train.jsonl", rows)
    usual = file_examples(config(train=file), file)
    assert [(e.source, e.reference, e.id) for e in usual][1] == ("p1", "c1", "train.jsonl:2")
    given = file_examples(config(train=file, columns={"document": "mine", "reference": "prompt", "id": "mine"}), file)
    assert [(e.source, e.reference, e.id) for e in given][1] == ("m1", "p1", "m1")


def test_several_references(tmp_path: Path) -> None:
    rows = [{"document": "d", "references": ["one", "two"]}, {"document": "e", "references": ["three"]}]
    file = jsonl(tmp_path / "train.jsonl", rows)
    assert [e.references for e in file_examples(config(train=file), file)] == [("one", "two"), ("three",)]


def test_the_document_span_is_exact(tmp_path: Path) -> None:
    rows = [{"document": "Ann: a\n  Bob: b\n", "reference": "r", "style": "short", "limit": 9}, *ROWS[1:]]
    file = jsonl(tmp_path / "train.jsonl", rows[:1])
    template = "{{x}} {style} ({limit}): {document}\nSummary:"
    example = file_examples(config(train=file, template=template, flatten_lines=True), file)[0]
    assert example.prompt == "{x} short (9): Ann: a Bob: b\nSummary:"
    start, end = example.document_span or (0, 0)
    assert example.prompt[start:end] == "Ann: a Bob: b"
    assert example.source == "Ann: a\n  Bob: b\n"


@pytest.mark.parametrize(
    "template", ["{document} {document}", "{document} {x!r}", "{document} {a.b}", "{document} {", "{}"]
)
def test_bad_templates_are_refused(template: str) -> None:
    with pytest.raises(UserError, match=r"data\.template"):
        parse_template(template)


def test_flat_keeps_words_apart() -> None:
    assert flat(" a\r\nb \n\n c  d\n") == "a b c  d"


BAD_ROWS: list[tuple[dict[str, Any], str]] = [
    ({"id": "x", "reference": "r"}, "'document' is missing"),
    ({"id": "x", "document": 3, "reference": "r"}, "document must be text, is a number"),
    ({"id": "x", "document": "d", "reference": None}, "reference must be text, is null"),
    ({"id": "x", "document": "d", "reference": "  "}, "reference is empty"),
    ({"id": "x", "document": "d", "reference": []}, "reference is an empty list"),
    ({"id": "x", "document": "d", "reference": ["good", ""]}, "reference[1] is empty"),
    ({"id": "x", "document": "d", "reference": {"a": 1}}, "is an object"),
    ({"id": True, "document": "d", "reference": "r"}, "id must be text, is a boolean"),
    ({"id": "a", "document": "d", "reference": "r"}, "the id 'a' is also that of"),
    ({"id": "x", "document": "half \ud83d", "reference": "r"}, "surrogate"),
]


@pytest.mark.parametrize(("row", "message"), BAD_ROWS)
def test_a_bad_row_is_named_by_file_and_line(tmp_path: Path, row: dict[str, Any], message: str) -> None:
    path = tmp_path / "train.jsonl"
    path.write_text("".join(json.dumps(r) + "\n" for r in [*ROWS, row]))
    lines = refusal(train=str(path))
    assert len(lines) == 1
    assert lines[0].startswith(f"{path}:4: ")
    assert message in lines[0]


def test_all_bad_rows_are_listed_then_counted(tmp_path: Path) -> None:
    rows = [*ROWS, *[{"id": f"n{i}", "document": "d", "reference": ""} for i in range(25)]]
    lines = refusal(train=jsonl(tmp_path / "train.jsonl", rows))
    assert [line.split(":")[1] for line in lines[:20]] == [str(i) for i in range(4, 24)]
    assert "5 more" in lines[20]
    assert "25 in all" in lines[20]
    assert len(lines) == 21


def test_bad_rows_of_all_splits_are_listed_together(tmp_path: Path) -> None:
    train = jsonl(tmp_path / "train.jsonl", [*ROWS, {"id": "x", "document": "", "reference": "r"}])
    test = jsonl(tmp_path / "test.jsonl", [*ROWS, {"id": "x", "document": "d", "reference": 1}])
    assert [line.split(":")[0] for line in refusal(train=train, test=test)] == [train, test]


def test_broken_json_and_bytes_that_are_not_utf8(tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    good = json.dumps(ROWS[0]).encode()
    path.write_bytes(b"\n".join([b"\xef\xbb\xbf" + good, b'{"id": "b", ', b'{"id": "caf\xe9"}', b"[1]"]))
    lines = refusal(train=str(path))
    assert len(lines) == 3
    by_line = {line.removeprefix(f"{path}:").partition(":")[0]: line for line in lines}
    assert "not valid JSON at column" in by_line["2"]
    assert "byte 0xe9 at offset 11" in by_line["3"]
    assert "must be a JSON object" in by_line["4"]


def test_bad_csv(tmp_path: Path) -> None:
    path = tmp_path / "train.csv"
    path.write_text('document,reference\n"a, b",c\nd\ne,f,g\n')
    assert [line.split(":")[1] for line in refusal(train=str(path))] == ["3", "4"]
    path.write_text("document,document\na,b\n")
    assert "there twice" in refusal(train=str(path))[0]
    path.write_bytes(b"document,reference\na,caf\xe9\n")
    assert refusal(train=str(path))[0].startswith(f"{path}:2: not UTF-8: byte 0xe9 at offset 5")


def test_a_csv_cell_may_be_longer_than_the_csv_module_expects(tmp_path: Path) -> None:
    path = tmp_path / "train.csv"
    path.write_text(f"document,reference\n{'word ' * 40_000},short\n")
    assert len(file_examples(config(train=str(path)), str(path))[0].source) == 200_000


@pytest.mark.parametrize("name", ["train.jsonl.gz", "train.parquet", "train.txt", "nowhere.jsonl"])
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if not name.startswith("nowhere"):
        path.write_bytes(b"these bytes are something else")
    lines = refusal(train=str(path))
    assert len(lines) == 1
    assert lines[0].startswith(str(path))


def test_a_missing_column_names_those_there_are(tmp_path: Path) -> None:
    line = refusal(train=jsonl(tmp_path / "train.jsonl", [{"chat": "x", "gist": "y"}]))[0]
    assert "its columns are: chat, gist" in line
    assert "data.columns.document" in line


def test_overlaps_are_dropped_and_counted(tmp_path: Path) -> None:
    rows = [{**ROWS[0], "overlaps": ["test"]}, {**ROWS[1], "overlaps": ["validation"]}, {**ROWS[2], "overlaps": None}]
    file = jsonl(tmp_path / "train.jsonl", rows)
    splits = load_splits(config(train=file, validation=jsonl(tmp_path / "v.jsonl", ROWS), drop_overlaps=["test"]))
    assert [e.id for e in splits.train] == ["b", "c"]
    assert "train: 1 of 3 rows dropped" in splits.notes[0]


def test_nothing_left_after_dropping_is_refused(tmp_path: Path) -> None:
    file = jsonl(tmp_path / "train.jsonl", [{**row, "overlaps": ["test"]} for row in ROWS])
    assert "no rows left" in refusal(train=file, drop_overlaps=["test"])[0]


def test_validation_is_held_out_once_and_disjoint(tmp_path: Path) -> None:
    rows = [{"id": str(i), "document": f"d{i}", "reference": "r"} for i in range(50)]
    file = jsonl(tmp_path / "train.jsonl", rows)

    def held_out(seed: int) -> Splits:
        base = config(train=file, validation_fraction=0.2)
        return load_splits(base.model_copy(update={"seed": seed}))

    splits = held_out(0)
    train, validation = [e.id for e in splits.train], [e.id for e in splits.validation]
    assert len(validation) == 10
    assert sorted(train + validation, key=int) == [str(i) for i in range(50)]
    assert train == sorted(train, key=int)
    assert held_out(1).validation != splits.validation


def test_max_examples_draws_with_the_seed_and_keeps_order(tmp_path: Path) -> None:
    rows = [{"id": str(i), "document": f"d{i}", "reference": "r"} for i in range(50)]
    file = jsonl(tmp_path / "train.jsonl", rows)
    cut = config(train=file, validation=file, max_examples={"train": 7})
    ids = [int(e.id) for e in load_splits(cut).train]
    assert len(ids) == 7
    assert ids == sorted(ids)
    assert ids != list(range(7))
    assert len(load_splits(cut).validation) == 50
    assert ids != [int(e.id) for e in load_splits(cut.model_copy(update={"seed": 1})).train]


def test_documents_shared_with_train_are_noted(tmp_path: Path) -> None:
    file = jsonl(tmp_path / "train.jsonl", ROWS)
    splits = load_splits(config(train=file, validation=file))
    assert "validation: 3 of 3 documents are also in train or prompts" in splits.notes


def test_a_file_changed_in_between_is_read_again(tmp_path: Path) -> None:
    file = jsonl(tmp_path / "train.jsonl", ROWS)
    setting = config(train=file, validation=file)
    first = load_splits(setting)
    assert load_splits(setting) is first
    jsonl(tmp_path / "train.jsonl", [{**row, "reference": "changed"} for row in ROWS])
    assert load_splits(setting).train[0].reference == "changed"


def test_a_builtin_task_with_and_without_a_template_of_ones_own() -> None:
    sizes = {"train": 5, "prompts": 3, "validation": 2, "test": 2}
    plain = load_splits(config(task="chats", sizes=sizes))
    assert [len(s) for s in (plain.train, plain.prompts, plain.validation, plain.test)] == [5, 3, 2, 2]
    assert all(not e.references and not e.facts for e in plain.prompts)
    own = load_splits(config(task="chats", sizes=sizes, template="Chat: {document} TL;DR", flatten_lines=True))
    for e, same in zip(own.train, plain.train, strict=True):
        start, end = e.document_span or (0, 0)
        assert (e.id, e.source, e.facts) == (same.id, same.source, same.facts)
        assert e.prompt == f"Chat: {e.prompt[start:end]} TL;DR"
        assert e.prompt[start:end] == flat(e.source)


def test_prompts_from_text_and_tables(tmp_path: Path) -> None:
    text = tmp_path / "more.txt"
    text.write_text("first\n\nsecond\n", encoding="utf-8")
    setting = config(
        train=jsonl(tmp_path / "train.jsonl", ROWS), columns={"document": "reference"}, template="S: {document}"
    )
    assert [(e.id, e.prompt) for e in load_prompts(setting, text)] == [
        ("more.txt:1", "S: first"),
        ("more.txt:3", "S: second"),
    ]
    assert load_prompts(setting, tmp_path / "train.jsonl")[0].prompt == "S: They have tea at 4."


def test_documents_of_a_file_get_a_built_in_task_s_own_prompt(tmp_path: Path) -> None:
    setting = config(task="chats", sizes={"train": 2, "prompts": 0, "validation": 1, "test": 1})
    example = load_splits(setting).train[0]
    text = tmp_path / "more.jsonl"
    jsonl(text, [{"document": example.source}])
    again = load_prompts(setting, text)[0]
    assert (again.prompt, again.document_span) == (example.prompt, example.document_span)
    assert example.prompt != example.source
    marked = config(task="chats", template="S: {document}")
    assert load_prompts(marked, text)[0].prompt == f"S: {example.source}"


def test_an_unknown_split_is_refused(tmp_path: Path) -> None:
    setting = config(train=jsonl(tmp_path / "train.jsonl", ROWS))
    with pytest.raises(UserError, match="neither a split"):
        file_examples(setting, "tset")
    with pytest.raises(UserError, match=r"evaluate\.split=validation"):
        evaluation_examples(setting, load_splits(setting))


def test_only_evaluate_max_examples_bounds_a_file_to_evaluate(tmp_path: Path) -> None:
    rows = [{"id": str(i), "document": f"d{i}", "reference": "r", "overlaps": ["test"]} for i in range(50)]
    file = jsonl(tmp_path / "other.jsonl", rows)
    setting = config(train=file, max_examples={"test": 3, "train": 3}, drop_overlaps=["test"])
    assert len(file_examples(setting, file)) == 50
    ids = [int(e.id) for e in file_examples(setting, file, max_examples=7)]
    assert len(ids) == 7
    assert ids == sorted(ids) == [int(e.id) for e in file_examples(setting, file, max_examples=7)]
    other = setting.model_copy(update={"seed": 1})
    assert ids != [int(e.id) for e in file_examples(other, file, max_examples=7)]


def test_prompts_with_the_ids_of_train_rows_are_told_apart(tmp_path: Path) -> None:
    for name, keys in (("train", ("document", "reference")), ("validation", ("document", "reference")),
                       ("prompts", ("document",))):  # fmt: skip
        rows = [{"id": str(i)} | {key: f"{name} {key} {i}" for key in keys} for i in range(3)]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = DataConfig(path=str(tmp_path), prompts=str(tmp_path / "prompts.jsonl"))
    splits = load_splits(RunConfig(name="x", data=data, model=ModelConfig(path="m")))
    assert [example.id for example in splits.train] == ["0", "1", "2"]
    assert [example.id for example in splits.prompts] == ["prompts/0", "prompts/1", "prompts/2"]


def test_dropping_overlaps_needs_a_field_that_names_them(tmp_path: Path) -> None:
    file = jsonl(tmp_path / "train.jsonl", ROWS)
    assert "no row has a field `overlaps`" in refusal(train=file, drop_overlaps=["test"])[0]
    with pytest.raises(ValidationError, match=r"'train', 'validation', 'test' or 'prompts'"):
        config(train=file, drop_overlaps=["tets"])


def test_what_cannot_be_a_value_is_told_by_its_row(tmp_path: Path) -> None:
    file = tmp_path / "train.jsonl"
    file.write_text(f'{{"document": "d", "reference": "r"}}\n{{"document": "d", "n": {"9" * 5000}}}\n')
    assert refusal(train=str(file)) == [
        f"{file}:2: a number has more digits than can be read; write it as text, in quotes"
    ]


def test_a_parquet_file_with_a_damaged_page_is_told(tmp_path: Path) -> None:
    import pyarrow
    from pyarrow import parquet

    file = tmp_path / "train.parquet"
    rows = {"document": [f"document {i}" for i in range(500)], "reference": [f"reference {i}" for i in range(500)]}
    parquet.write_table(pyarrow.table(rows), file)
    content = bytearray(file.read_bytes())
    content[30:200] = b"\xff" * 170
    file.write_bytes(content)
    assert refusal(train=str(file))[0].startswith(f"{file}: not a readable Parquet file")
