"""Do rewards rank summaries as people do? `homestretch reward-check` of several runs on public labelled sets.

python -m benchmarks.studies.human_labels dialogue=RUN [news=RUN ...] --labels DIR [--only faceval_samsum]

DIR holds the sets as NAME.jsonl[.gz], with the columns of `SETS`; none of their rows is kept. A run is given with
the kind of its documents, so that the table can say which sets are like what the reward was trained on.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.report import markdown
from benchmarks.studies import runs, tables
from homestretch.console import say
from homestretch.recipe import load_recipe
from homestretch.reward_check import SFT_LOGPROB
from homestretch.rundir import RunDir, open_finished, read_json, write_json, write_jsonl
from homestretch.tables import raise_problems, read_table
from homestretch.types import UserError

DOMAINS = ("dialogue", "news")


@dataclass(frozen=True, slots=True)
class LabelledSet:
    """How a set is read: `document`, `summary`, `label` (higher is more faithful) and, where there, `reference`."""

    domain: str
    about: str
    group: str = "document"
    """The column whose values say which rows belong together."""
    references: tuple[str, ...] = ()
    """Systems whose summaries are the references: left out, as a reward learned from references is not asked there."""
    threshold: float | None = None
    """Good from this label on; None: the highest."""
    is_pairs: bool = False
    """A group is one right and one wrong summary: scores that do not tell them apart count as half right."""


SETS: dict[str, LabelledSet] = {
    "faceval_samsum": LabelledSet(
        "dialogue", "SAMSum test; no factual error (FacEval)", group="document_id", references=("human_ref",)
    ),
    "dialsummeval": LabelledSet(  # the mean of three annotators hardly ever reaches 5; references are lower-cased
        "dialogue", "SAMSum test; mean consistency 1-5, good from 4 (DialSummEval)", group="document_id",
        references=("reference",), threshold=4.0,
    ),
    "qags_cnndm": LabelledSet("news", "CNN/DailyMail; every sentence supported (QAGS)"),
    "qags_xsum": LabelledSet("news", "XSum; supported (QAGS)"),
    "summeval": LabelledSet("news", "CNN/DailyMail; consistency 5 by all experts (SummEval)", group="document_id"),
    "entfa_xsum": LabelledSet("news", "XSum; no hallucinated entity (EntFA)"),
    "xsum_hallucination": LabelledSet(
        "news", "XSum; no word marked (Maynez et al.)", group="document_id", references=("Gold",)
    ),
    "falke_sentence_pairs": LabelledSet(  # pairs: the tau within a pair is 2 x (share of pairs ranked rightly) - 1
        "news", "CNN/DailyMail sentences, right and wrong in pairs (Falke et al.)", group="pair", is_pairs=True
    ),
}  # fmt: skip


def labelled_rows(name: str, path: Path) -> tuple[list[dict[str, Any]], int]:
    """A set's rows with the columns that reward-check takes, and how many are left out.

    Left out are rows without document or label, and summaries that are references. Raises UserError for a file that
    cannot be read or lacks a column.
    """
    about = SETS[name]
    problems: list[str] = []
    rows = [row.values for row in read_table(path, problems)]
    raise_problems(problems)
    needed = {"document", "summary", "label", about.group, *(["system"] if about.references else [])}
    if missing := sorted(needed - {column for row in rows for column in row}):
        raise UserError(f"{path}: no column {missing[0]!r}; benchmarks/studies/human_labels.py says how it is read")
    kept = [
        {"document": row["document"], "summary": row["summary"], "label": row["label"], "group": str(row[about.group])}
        | ({"reference": row["reference"]} if row.get("reference") else {})
        for row in rows
        if row["document"] and row["label"] is not None and row.get("system") not in about.references
    ]
    return kept, len(rows) - len(kept)


def set_file(name: str, folder: Path) -> Path | None:
    """The set's file in the folder, packed or not."""
    return next((path for path in (folder / f"{name}.jsonl.gz", folder / f"{name}.jsonl") if path.exists()), None)


def checked(run: RunDir, name: str, path: Path, result: Path) -> dict[str, Any]:
    """What reward-check says of a set, in `result`; computed only if that is missing or older than the reward.

    UserError if the check fails.
    """
    marker = run.path / ".done" / "reward.json"
    if result.exists() and result.stat().st_mtime > max(marker.stat().st_mtime, path.stat().st_mtime):
        return dict(read_json(result))
    rows, num_left_out = labelled_rows(name, path)
    threshold = SETS[name].threshold
    with tempfile.TemporaryDirectory() as folder:
        file, found = Path(folder) / f"{name}.jsonl", Path(folder) / "check.json"
        write_jsonl(file, rows)
        command = [sys.executable, "-m", "homestretch", "reward-check", str(run.path), str(file), "--json", str(found)]
        command += ["--group-column", "group"] + ([] if threshold is None else ["--threshold", str(threshold)])
        code = subprocess.run(command, check=False).returncode
        if code:
            raise UserError(f"{run.path}, {name}: reward-check ended with code {code}")
        write_json(result, read_json(found) | {"n_left_out": num_left_out})
    return dict(read_json(result))


def measured(check: Mapping[str, Any], name: str, domain: str) -> dict[str, Any]:
    """A check with what the table needs: the domains, the best lexical baseline, and whether all are beaten."""
    if SETS[name].is_pairs:
        baselines = {base: with_ties(found) for base, found in check["baselines"].items()}
        check = {**with_ties(check), "baselines": baselines}
    lexical = {base: found for base, found in check["baselines"].items() if base != SFT_LOGPROB}
    known = {base: found for base, found in lexical.items() if found["auc"] is not None}
    best = max(known, key=lambda base: known[base]["auc"], default=None)
    beats_all = check["low"] is not None and check["low"] > 0.5 and all(
        found["difference_low"] is not None and found["difference_low"] > 0 for found in lexical.values()
    )  # fmt: skip
    told = {"set_domain": SETS[name].domain, "in_domain": SETS[name].domain == domain, "best_lexical": best}
    return dict(check) | told | {"beats_every_lexical": beats_all}


def with_ties(found: Mapping[str, Any]) -> dict[str, Any]:
    """A score's agreement with pairs, those that it scores alike, which have no tau, counted as 0."""
    tau = found["within_document_tau"]
    share = tau["n"] / (tau["n"] + tau["left_out"]) if tau["n"] else 1.0
    scaled = {key: None if tau[key] is None else share * tau[key] for key in ("tau", "low", "high")}
    return dict(found) | {"within_document_tau": {**tau, **scaled}}


def section(setting: dict[str, Any]) -> str:
    """A run's tables: the reward beside the best lexical baseline, and all scores."""
    sets = setting["sets"]
    columns = [
        "set", "like its training data", "rows (documents)", "AUC", "Spearman", "tau within", "best lexical, AUC",
        "reward's lead", "beats every lexical",
    ]  # fmt: skip
    rows = [_set_cells(name, found) for name, found in sets.items()]
    scores = ["reward", *dict.fromkeys(base for found in sets.values() for base in found["baselines"])]
    matrix = [[score, *(_score_cell(found, score) for found in sets.values())] for score in scores]
    return "\n\n".join(
        [
            f"Reward of {setting['run']} ({setting['data']}, {setting['domain']}).",
            markdown(columns, rows),
            "All scores: AUC / Spearman / tau within a document.",
            markdown(["", *sets], matrix),
            "\n".join(f"- `{name}`: {'; '.join([SETS[name].about, *found['notes']])}." for name, found in sets.items()),
        ]
    )


def _set_cells(name: str, found: Mapping[str, Any]) -> list[str]:
    tau, best = found["within_document_tau"], found["baselines"].get(found["best_lexical"], {})
    return [
        name,
        "yes" if found["in_domain"] else "no",
        f"{found['n']} ({found['n_documents']})",
        tables.number(found["auc"]) + tables.interval(found["low"], found["high"], ".3f"),
        tables.number(found["spearman"]) + tables.interval(found["spearman_low"], found["spearman_high"], ".3f"),
        tables.number(tau["tau"]) + tables.interval(tau["low"], tau["high"], ".3f"),
        f"{found['best_lexical'] or '-'}, {tables.number(best.get('auc'))}",
        tables.number(best.get("difference"), "+.3f")
        + tables.interval(best.get("difference_low"), best.get("difference_high")),
        "yes" if found["beats_every_lexical"] else "no",
    ]


def _score_cell(found: Mapping[str, Any], score: str) -> str:
    entry = found if score == "reward" else found["baselines"].get(score)
    if entry is None:
        return "-"
    values = (entry["auc"], entry["spearman"], entry["within_document_tau"]["tau"])
    return " / ".join(tables.number(value, ".2f") for value in values)


def given_runs(arguments: Sequence[str]) -> dict[Path, str]:
    """Run -> its documents' kind. UserError for an argument of another form or a run whose reward is not there."""
    found = {}
    for argument in arguments:
        domain, equals, path = argument.partition("=")
        if not equals or domain not in DOMAINS:
            raise UserError(f"{argument!r}: say what the run's documents are, as in dialogue=runs/samsum or news=...")
        found[open_finished(Path(path), "reward", folder="reward").path] = domain
    return found


def main() -> None:
    """Check, write."""
    options = argparse.ArgumentParser(prog="human_labels", description=(__doc__ or "").splitlines()[0])
    options.add_argument("runs", nargs="+", metavar="DOMAIN=RUN", help=f"DOMAIN is one of {', '.join(DOMAINS)}")
    options.add_argument("--labels", type=Path, required=True, help="the folder of the labelled sets")
    options.add_argument("--only", nargs="+", choices=list(SETS), default=list(SETS), help="these sets")
    options.add_argument("--out", type=Path, default=Path("runs/studies/human_labels"), help="default: %(default)s")
    runs.add_result_file(options, "human_labels")
    args = options.parse_args()
    with runs.answering_mistakes():
        files = {name: path for name in args.only if (path := set_file(name, args.labels)) is not None}
        for name in args.only:
            if name not in files:
                say(f"{name}: not in {args.labels}, left out")
        if not files:
            raise UserError(f"{args.labels}: none of the labelled sets is there: {', '.join(args.only)}")
        for path, domain in given_runs(args.runs).items():
            check_run(RunDir(path), domain, files, args.out, args.json)


def check_run(run: RunDir, domain: str, files: Mapping[str, Path], out: Path, json: Path) -> None:
    """All sets of one run, into the result file under the run's name."""
    config = load_recipe(run.config_path)
    key = f"{run.path.resolve().parent.name}/{run.path.resolve().name}"
    before = read_json(json)["settings"].get(key, {}).get("sets", {}) if json.exists() else {}
    sets = {
        name: measured(checked(run, name, path, out / key / f"{name}.json"), name, domain)
        for name, path in files.items()
    }
    data = config.data.task or runs.without_folders(str(config.data.path or config.data.train))
    runs.write("human_labels", json, key, {"run": key, "data": data, "domain": domain, "sets": before | sets}, config)


if __name__ == "__main__":
    main()
