"""Failure modes of the user's own: found by module or entry point, known by their name, watched; and the example's."""

from __future__ import annotations

import ast
import json
import re
import sys
from collections.abc import Callable
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from example_mode import EXAMPLE, load_example
from homestretch import registry
from homestretch.config import NegativesConfig
from homestretch.failures import build_modes, mode_class, mode_classes, mode_names, post_process
from homestretch.failures.plugin import guarded
from homestretch.rewards.judged import judged_to_row, negative
from homestretch.types import Completion, Corpus, Edit, Example, FailureMode, UserError

NAME = "invalid_json:InvalidJSON"
InvalidJSON: type[FailureMode] = load_example("invalid_json").InvalidJSON
EXAMPLES = tuple(
    Example(f"e{i}", f"{who} to {city}", f"{who} to {city}", references=(json.dumps({"name": who, "city": city}),))
    for i, (who, city) in enumerate([("Ann", "Oslo"), ("Ben", "Rome"), ("Cleo", "Bern")])
)
CORPUS = Corpus(EXAMPLES)


@pytest.fixture
def on_path(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], None]:
    """Make a folder's modules importable for one test; none of them stays imported."""
    before = set(sys.modules)

    def add(folder: Path) -> None:
        monkeypatch.syspath_prepend(folder)

    monkeypatch.setattr(sys, "path", list(sys.path))
    yield add  # type: ignore[misc]
    for name in set(sys.modules) - before:
        del sys.modules[name]


def write_mode(folder: Path, body: str, *, name: str = "own") -> str:
    """A module with the class Own; the name that a recipe gives it."""
    text = "from homestretch.types import *\nfrom homestretch.types import FailureMode\n\n\nclass Own(FailureMode):\n"
    (folder / f"{name}.py").write_text(text + "".join(f"    {line}\n" for line in body.splitlines()))
    return f"{name}:Own"


# --- the example's class ---


def test_the_example_class_is_under_25_lines() -> None:
    (found,) = [
        node for node in ast.parse((EXAMPLE / "invalid_json.py").read_text()).body if isinstance(node, ast.ClassDef)
    ]
    assert found.end_lineno is not None
    assert found.end_lineno - found.lineno + 1 < 25
    assert InvalidJSON.faces() == {"corrupt", "detect", "repair"}


def test_the_docs_show_the_example_as_it_is() -> None:
    source = (EXAMPLE / "invalid_json.py").read_text()
    page = (Path(__file__).parents[3] / "docs" / "failures" / "README.md").read_text()
    assert source[source.index("import json") :].strip() in page


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.id)
def test_corrupt_breaks_what_detect_finds_and_repair_mends(example: Example, seed: int) -> None:
    mode = InvalidJSON()
    edit = mode.corrupt(example, np.random.default_rng(seed))
    assert edit is not None
    assert edit == mode.corrupt(example, np.random.default_rng(seed))
    assert len(edit.completion.text) == len(example.reference) - 1
    assert mode.detect(example, edit.completion) == 1.0
    assert mode.detect(example, Completion(example.reference)) == 0.0
    after = mode.repair(example, edit.completion)
    assert after == edit.completion or mode.detect(example, after) == 0.0
    assert edit.note == "without {" or mode.detect(example, after) == 0.0


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ('{"a": 1}', '{"a": 1}'),
        ('{"a": 1, "b": ', '{"a": 1}'),
        ('{"a": "Os', '{"a": "Os"}'),
        ('{"a": 1}}', '{"a": 1}'),
        ('{"a": 1} thank you', '{"a": 1}'),
        ("{", "{}"),
        ("no object", "no object"),
        ("", ""),
    ],
)
def test_repair_of_the_example(before: str, after: str) -> None:
    assert InvalidJSON().repair(EXAMPLES[0], Completion(before)).text == after


@settings(deadline=None)
@given(text=st.text(max_size=40) | st.text(alphabet='{}[]":, a1', max_size=40), terminated=st.booleans())
def test_the_example_mode_takes_any_text(text: str, terminated: bool) -> None:
    mode, completion = guarded(InvalidJSON)(), Completion(text, terminated=terminated)
    once = mode.repair(EXAMPLES[0], completion)
    assert mode.repair(EXAMPLES[0], once) == once
    assert once == completion or mode.detect(EXAMPLES[0], once) == 0.0
    edit = mode.corrupt(Example("x", "", "", references=(text,)), np.random.default_rng(0))
    assert edit is None or mode.detect(EXAMPLES[0], edit.completion) == 1.0


def test_the_data_script_writes_what_the_mode_is_about() -> None:
    import random

    rows = [load_example("make_data").row(random.Random(seed)) for seed in range(20)]
    for row in rows:
        fields = json.loads(row["reference"])
        assert all(str(fields[key]) in row["document"] for key in ("name", "city", "day"))


# --- found by module, by entry point; known by the class's name ---


def test_by_module_and_class(on_path: Callable[[Path], None]) -> None:
    on_path(EXAMPLE)
    (mode,) = build_modes([NAME], CORPUS)
    assert mode.name == "invalid_json"
    assert mode.faces() == {"corrupt", "detect", "repair"}
    row = negative(EXAMPLES[0], mode, seed=0)
    assert row is not None
    assert judged_to_row(row)["mode"] == "invalid_json"
    assert post_process([mode], EXAMPLES[0], Completion('{"a": 1')).text == '{"a": 1}'


def test_by_entry_point(on_path: Callable[[Path], None], monkeypatch: pytest.MonkeyPatch) -> None:
    on_path(EXAMPLE)
    points = {"homestretch.failure_modes": [EntryPoint("json_form", NAME, "homestretch.failure_modes")]}
    monkeypatch.setattr(registry, "entry_points", lambda group: points.get(group, []))
    (mode,) = build_modes(["json_form"], CORPUS)
    assert mode.name == "invalid_json"
    with pytest.raises(UserError, match="did you mean 'json_form'"):
        build_modes(["json_from"], CORPUS)


def test_the_recipes_folder_is_looked_in_last(on_path: Callable[[Path], None], tmp_path: Path) -> None:
    (tmp_path / "json.py").write_text("raise SystemError('not this one')\n")
    name = write_mode(tmp_path, "name = 'own'\ndef detect(self, example, completion): return 0", name="beside")
    with pytest.raises(UserError, match=r"no module 'beside' .*in the recipe's folder"):
        mode_class(name)
    registry.look_in(tmp_path, tmp_path)
    assert sys.path.count(str(tmp_path)) == 1
    assert sys.path[-1] == str(tmp_path)
    assert mode_class(name).name == "own"


def test_exclude_knows_it_by_both_names(on_path: Callable[[Path], None]) -> None:
    on_path(EXAMPLE)
    for excluded in (NAME, "invalid_json"):
        config = NegativesConfig(preset="paper", include=(NAME,), exclude=(excluded, "echo"))
        assert mode_names(config) == ("random_tokens", "irrelevant", "shuffled", "repetition")
    with pytest.raises(UserError, match=r"'invalid_jsom' is not among .*, invalid_json\)"):
        mode_names(NegativesConfig(preset="paper", include=(NAME,), exclude=("invalid_jsom",)))


DETECT = "def detect(self, example, completion): return 0.0"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (f"name = 'echo'\n{DETECT}", "'own:Own': its name 'echo' is that of a mode of ours"),
        (DETECT, "the class has no name"),
        (f"name = ' '\n{DETECT}", "the class has no name"),
        ("name = 'own'\ndef detects(self): pass", "none of corrupt, detect and repair"),
        ("name = 'own'\nthis is no Python", r"cannot be imported: SyntaxError: invalid syntax \(own\.py, line 7\)"),
        ("name = 'own'\nfail = 1 / 0", r"cannot be imported: ZeroDivisionError: division by zero \(.*own\.py:7\)$"),
        ("import not_there_at_all", "no module 'not_there_at_all'"),
        ("from json import not_there", "cannot be imported: ImportError: cannot import name 'not_there'"),
    ],
)
def test_a_class_that_cannot_be_used(on_path: Callable[[Path], None], tmp_path: Path, body: str, message: str) -> None:
    on_path(tmp_path)
    with pytest.raises(UserError, match=message) as caught:
        mode_class(write_mode(tmp_path, body))
    assert "\n" not in str(caught.value)


def test_every_mistake_is_told_and_two_of_one_name_are_one(on_path: Callable[[Path], None], tmp_path: Path) -> None:
    on_path(tmp_path)
    names = [write_mode(tmp_path, f"name = 'twin'\n{DETECT}", name=module) for module in ("one", "two")]
    with pytest.raises(UserError) as caught:
        mode_classes([*names, "negatoin", "one:Missing"])
    twins, unknown, missing = str(caught.value).splitlines()
    assert twins == "failure mode 'two:Own': its name 'twin' is also that of 'one:Own'; change one"
    assert "did you mean 'negation'" in unknown
    assert "has no 'Missing'" in missing


# --- watched ---


class Bad(FailureMode):
    """A mode whose faces do what the test says."""

    name = "bad"
    does: Callable[[], Any] = staticmethod(lambda: None)

    def fit(self, corpus: Corpus) -> None:
        self.does()

    def corrupt(self, example: Example, rng: np.random.Generator) -> Edit | None:
        return self.does()  # type: ignore[no-any-return]

    def detect(self, example: Example, completion: Completion) -> float | None:
        return self.does()  # type: ignore[no-any-return]

    def repair(self, example: Example, completion: Completion) -> Completion:
        return self.does()  # type: ignore[no-any-return]


def bad(does: Callable[[], Any]) -> FailureMode:
    return guarded(type("Bad", (Bad,), {"does": staticmethod(does)}))()


def call(mode: FailureMode, face: str) -> Any:
    arguments = {"corrupt": np.random.default_rng(0)}
    return getattr(mode, face)(EXAMPLES[1], arguments.get(face, Completion("text")))


@pytest.mark.parametrize("face", ["corrupt", "detect", "repair"])
def test_an_exception_names_mode_face_example_and_line(face: str) -> None:
    mode = bad(lambda: json.loads("{\n"))
    with pytest.raises(UserError) as caught:
        call(mode, face)
    said = str(caught.value)
    assert said.startswith(f"failure mode 'bad': {face} of example 'e1' failed: JSONDecodeError: Expecting property")
    assert re.search(rf"\({re.escape(__file__)}:\d+\)$", said)
    assert isinstance(caught.value.__cause__, json.JSONDecodeError)


def test_fit_and_making_it_are_watched_too() -> None:
    with pytest.raises(UserError, match=r"^failure mode 'bad': fit failed: ZeroDivisionError: .*test_plugins\.py:\d+"):
        bad(lambda: 1 / 0).fit(CORPUS)
    needy = type("Needy", (Bad,), {"__init__": lambda self, size: None})
    with pytest.raises(UserError, match=r"^failure mode 'bad': making it failed: TypeError: .*'size'$"):
        guarded(needy)()


def test_a_users_own_message_passes() -> None:
    def refuse() -> None:
        raise UserError("no reference has a bracket; is this the right data?")

    with pytest.raises(UserError, match=r"^no reference has a bracket"):
        bad(refuse).fit(CORPUS)


@pytest.mark.parametrize(
    ("face", "result", "message"),
    [
        ("corrupt", "a text", r"returned 'a text' \(str\); return an Edit, or None"),
        ("corrupt", Edit("a text", (0, 1)), "return a Completion"),  # type: ignore[arg-type]
        ("corrupt", Edit(Completion(b"x"), (0, 1)), "give a str"),  # type: ignore[arg-type]
        ("corrupt", Edit(Completion("x"), None), "returned the span None"),  # type: ignore[arg-type]
        ("corrupt", Edit(Completion("x"), (0, 1, 2)), "two whole numbers"),  # type: ignore[arg-type]
        ("corrupt", Edit(Completion("x"), (0, 1), 3), "the note 3"),  # type: ignore[arg-type]
        ("detect", 3.0, r"returned 3\.0 \(float\); return a severity in 0\.\.1, or None"),
        ("detect", float("nan"), "returned nan"),
        ("detect", "1", "returned '1'"),
        ("detect", np.ones(2), "returned array"),
        ("repair", None, r"returned None \(NoneType\); return a Completion"),
        ("repair", Completion("x", terminated=1), "`terminated` is 1"),  # type: ignore[arg-type]
    ],
)
def test_what_is_not_a_faces_result_is_refused(face: str, result: Any, message: str) -> None:
    with pytest.raises(UserError, match=rf"^failure mode 'bad': {face} of example 'e1': .*{message}") as caught:
        call(bad(lambda: result), face)
    assert "\n" not in str(caught.value)


def test_numbers_of_numpy_become_pythons() -> None:
    edit = Edit(Completion("text", terminated=np.bool_(False)), (np.int64(1), np.int64(2)))  # type: ignore[arg-type]
    json.dumps(judged_to_row(negative(EXAMPLES[0], bad(lambda: edit), seed=0)))  # type: ignore[arg-type]
    assert type(call(bad(lambda: np.float32(0.5)), "detect")) is float
    assert call(bad(lambda: True), "detect") == 1.0
    assert call(bad(lambda: None), "detect") is call(bad(lambda: None), "corrupt") is None


def test_a_watched_mode_has_the_faces_of_its_class_and_may_call_itself() -> None:
    class Half(FailureMode):
        name = "half"

        def detect(self, example: Example, completion: Completion) -> float:
            return 0.25

        def corrupt(self, example: Example, rng: np.random.Generator) -> Edit | None:
            severity = self.detect(example=example, completion=Completion("x"))
            return Edit(Completion(f"severity {severity}"), (0, 1))

    mode = guarded(Half)()
    assert mode.faces() == type(mode).faces() == {"corrupt", "detect"}
    made = mode.corrupt(EXAMPLES[0], np.random.default_rng(0))
    assert made is not None
    assert made.completion.text == "severity 0.25"
    completion = Completion("as it was")
    assert mode.repair(EXAMPLES[0], completion) is completion
