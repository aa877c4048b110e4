"""How well names, numbers, dates and times are found: precision and recall, on our gold file and on real data.

python -m benchmarks.entities                                      the gold file, tests/unit/entities_gold.jsonl
python -m benchmarks.entities --data DIR                           and SAMSum and WebNLG, which are their own gold
python -m benchmarks.entities --data DIR --annotated samsum=FILE   and a file annotated by hand, names known from train

DIR has a folder per data set with train.jsonl.gz and validation.jsonl.gz (`document`, `reference`; `triples` for
WebNLG). A gold file has a row per text: {"text", "mentions": [[start, end, kind], ...]}, and where there is one the
`lexicon` of known name words or the `source` that the text is about. docs/entities.md says what is annotated.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.common import FOLDER, RESULTS, Record, environment, rounded, save
from homestretch.finder import Finder, build_finder, load_find
from homestretch.ops.entities import Mention
from homestretch.ops.names import speakers
from homestretch.tables import read_table
from homestretch.types import Example

GOLD = FOLDER.parent / "tests" / "unit" / "entities_gold.jsonl"
KINDS = ("name", "number", "money", "date", "time")
_MAX_TRAIN = 4000
"""The names of a data set are learnt from at most this many training rows, as the failure modes do."""
Span = tuple[int, int, str]


@dataclass
class Tally:
    """Gold mentions, found ones, and how many of each are right: to the letter, and with any overlap."""

    gold: int = 0
    found: int = 0
    exact: int = 0
    gold_touched: int = 0
    found_right: int = 0

    def record(self, *, has_precision: bool = True) -> Record:
        """The shares with their 95 % intervals (Wilson); mentions count as independent."""
        recall = share("recall", self.exact, self.gold) | {"recall_overlap": self.gold_touched / max(1, self.gold)}
        if not has_precision:
            return {"gold": self.gold, **recall}
        precision = share("precision", self.exact, self.found)
        precision |= {"precision_overlap": self.found_right / max(1, self.found)}
        return {"gold": self.gold, "found": self.found, **precision, **recall}


def share(name: str, hits: int, total: int) -> Record:
    """A share and its 95 % Wilson interval; nothing where there is nothing to count."""
    from scipy.stats import binomtest

    if not total:
        return {}
    interval = binomtest(hits, total).proportion_ci(method="wilson")
    return {name: hits / total, f"{name}_low": float(interval.low), f"{name}_high": float(interval.high)}


def tally(pairs: Iterable[tuple[Iterable[Span], Iterable[Span]]]) -> dict[str, Tally]:
    """Gold and found (start, end, kind) of each text -> the counts by kind, and those of "all"."""
    tallies = {kind: Tally() for kind in (*KINDS, "all")}
    for gold, found in pairs:
        gold_set, found_set = set(gold), set(found)
        for span in gold_set | found_set:
            for counts in (tallies[span[2]], tallies["all"]):
                counts.gold += span in gold_set
                counts.found += span in found_set
                counts.exact += span in gold_set and span in found_set
                counts.gold_touched += span in gold_set and _touches(span, found_set)
                counts.found_right += span in found_set and _touches(span, gold_set)
    return tallies


def _touches(span: Span, others: Iterable[Span]) -> bool:
    return any(span[2] == kind and span[0] < end and start < span[1] for start, end, kind in others)


def spans(found: Iterable[Mention]) -> list[Span]:
    """What `tally` compares."""
    return [(mention.start, mention.end, mention.kind) for mention in found]


# --- annotated files ------------------------------------------------------------


def read_gold(path: Path) -> list[dict[str, Any]]:
    """The rows of a gold file."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def gold_tallies(rows: Sequence[Mapping[str, Any]], finder: Finder) -> dict[str, Tally]:
    """The finder against annotated rows, each with its own lexicon or source where it has one."""

    def found(row: Mapping[str, Any]) -> list[Mention]:
        if "source" in row:
            return finder.mentions_for(Example("", row["source"], ""), row["text"])
        return finder.mentions(row["text"], also=frozenset(row.get("lexicon", ())))

    return tally((map(tuple, row["mentions"]), spans(found(row))) for row in rows)


def gold_setting(path: Path, finder: Finder) -> Record:
    """A row per kind."""
    tallies = gold_tallies(read_gold(path), finder)
    return {kind: counts.record() for kind, counts in tallies.items() if counts.gold}


# --- data that is its own gold ------------------------------------------------------------


def examples(folder: Path, split: str) -> list[Example]:
    """A split's rows that have a text to them; none where there is no such file."""
    path = folder / f"{split}.jsonl.gz"
    rows = [row.values for row in read_table(path, [])] if path.is_file() else []
    return [
        Example(str(row["id"]), row["document"], "", references=_texts(row["reference"]), facts=row) for row in rows
    ]


def _texts(reference: Any) -> tuple[str, ...]:
    return (reference,) if isinstance(reference, str) else tuple(reference)


def speakers_setting(folder: Path, name: str) -> Record:
    """Speakers named in the references of a chat must be found there: recall, by what the finder knows.

    Written as the speaker line has it, so that "Will" is not sought in "will".
    """
    blank, trained = Finder(frozenset(), load_find(name)), build_finder(name, examples(folder, "train")[:_MAX_TRAIN])
    validation = examples(folder, "validation")
    ways = {
        "nothing known": lambda example, text: blank.mentions(text),
        "names of train known": lambda example, text: trained.mentions(text),
        "names of train and source known": trained.mentions_for,
        "the same, in lower case": lambda example, text: trained.mentions_for(example, text.lower()),
    }
    setting = {}
    for label, find in ways.items():
        pairs = (
            (_occurrences(text, dict.fromkeys(speakers(e.source), "name")), spans(find(e, text)))
            for e in validation
            for text in e.references
        )
        setting[label] = tally(pairs)["name"].record(has_precision=False)
    return setting


def triples_setting(folder: Path, name: str) -> Record:
    """Recall of subjects and objects of WebNLG triples that stand literally in the text.

    Precision cannot be told: the texts name and date much that the triples say in other words.
    """
    finder = build_finder(name, examples(folder, "train")[:_MAX_TRAIN])
    pairs = []
    for example in examples(folder, "validation"):
        literals = dict(filter(None, (_literal(part) for s, _, o in example.facts["triples"] for part in (s, o))))
        for text in example.references:
            # The triples do not tell numbers, dates and money apart.
            found = [(s, e, kind if kind == "name" else "number") for s, e, kind in spans(finder.mentions(text))]
            pairs.append((_occurrences(text, literals), found))
    tallies = tally(pairs)
    labels = {"name": "name", "number, date or money": "number"}
    return {label: tallies[kind].record(has_precision=False) for label, kind in labels.items()}


def _literal(part: str) -> tuple[str, str] | None:
    """A triple's end as people would write it, and its kind; None for what is neither a name nor a number."""
    text = re.sub(r"\s*\(.*\)$", "", part.strip('"').replace("_", " "))
    if re.fullmatch(r"\d[\d.,]*(?<=\d)|\d{4}-\d\d-\d\d", text):
        return text, "number"
    words = re.findall(r"[^\W\d_]+", text)
    is_name = bool(words) and all(word[0].isupper() for word in words if len(word) > 3) and words[0][0].isupper()
    return (text, "name") if is_name else None


def _occurrences(text: str, kinds: Mapping[str, str]) -> list[Span]:
    """Where these strings stand in the text as whole words; of two that overlap the longer one."""
    taken: list[Span] = []
    for literal in sorted(kinds, key=len, reverse=True):
        for match in re.finditer(rf"(?<![\w.,-]){re.escape(literal)}(?![\w-]|[.,]\d)", text):
            if all(match.end() <= start or end <= match.start() for start, end, _ in taken):
                taken.append((match.start(), match.end(), kinds[literal]))
    return taken


# --- running ------------------------------------------------------------


def measure(args: argparse.Namespace) -> Record:
    """Every setting that the options ask for."""
    settings = {"our gold file": gold_setting(GOLD, Finder(frozenset(), load_find(args.finder)))}
    for given in args.annotated:
        name, _, file = given.partition("=")
        train = examples(args.data / name, "train")[:_MAX_TRAIN] if args.data else []
        settings[f"{Path(file).stem}, by hand"] = gold_setting(Path(file), build_finder(args.finder, train))
    if args.data:
        settings["samsum, speakers in references"] = speakers_setting(args.data / "samsum", args.finder)
        settings["webnlg, literal subjects and objects"] = triples_setting(args.data / "webnlg", args.finder)
    return settings


def main() -> None:
    """Measure, print and save."""
    from benchmarks.report import print_entities

    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--data", type=Path, help="the folder of data sets")
    options.add_argument("--annotated", action="append", default=[], metavar="NAME=FILE", help="a further gold file")
    options.add_argument("--finder", default="rules", help="as `data.entities` (default %(default)s)")
    args = options.parse_args()
    command = ["python", "-m", "benchmarks.entities", *(["--data", "DIR"] if args.data else []), *args.annotated]
    where = environment("cpu", 1) | {"command": [part.partition("=")[0] for part in command]}
    other = "" if args.finder == "rules" else f", {Path(args.finder).name}"
    result = {"environment": where, "settings": {f"{k}{other}": v for k, v in rounded(measure(args)).items()}}
    print_entities(result)
    save(RESULTS / "entities.json", result)


if __name__ == "__main__":
    main()
