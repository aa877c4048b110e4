"""The tables of README.md, and those that belong to other pages, from the result files.

python -m benchmarks.report                 print them
python -m benchmarks.report --only arms     one benchmark's or study's
python -m benchmarks.report --write         put them into README.md and the pages
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from benchmarks.common import FOLDER, RESULTS
from homestretch.console import table

STUDIES: dict[str, str] = {
    "arms": "docs/stages/baselines.md",
    "full_vs_paper": "recipes/README.md",
    "human_labels": "docs/trust.md",
    "label_fraction": "recipes/README.md",
    "over_optimisation": "docs/guard.md",
}
"""Study, a module of benchmarks/studies -> the page that its tables go to."""

PAGES = {"entities": "docs/entities.md", "slots": "docs/failures/slots.md"}
"""Benchmark -> its page; all others go to README.md."""

FIGURES = {"over_optimisation": "over_optimisation"}
"""Study that draws -> its picture, beside the page, one for each setting."""

Row = list[str]


def throughput_rows(setting: Mapping[str, Mapping[str, Any]]) -> tuple[Row, list[Row]]:
    """A setting's contenders; the ratios are to the fastest of TRL's in completions per second."""
    columns = ["", "s/update", "cpu s", "completions/s", "peak MB", "tokens out", "steps", "speed x", "memory x"]
    theirs = [entry for name, entry in setting.items() if name.startswith("trl")]
    best = max(theirs, key=lambda entry: float(entry["completions_per_second"]), default=None)
    rows = []
    for name, entry in setting.items():
        ratios = ["", ""]
        if best is not None:
            ratios = [
                f"{entry['completions_per_second'] / best['completions_per_second']:.2f}",
                f"{entry['peak_mb'] / best['peak_mb']:.2f}",
            ]
        rows.append(
            [
                name, f"{entry['seconds_per_update']:.2f}", f"{entry['cpu_seconds']:.2f}",
                f"{entry['completions_per_second']:.1f}",
                f"{entry['peak_mb']:.0f}", f"{entry['mean_completion_tokens']:.1f}", f"{entry['optimizer_steps']:.0f}",
                *ratios,
            ]
        )  # fmt: skip
    return columns, rows


def rollout_rows(setting: Mapping[str, Mapping[str, Any]]) -> tuple[Row, list[Row]]:
    """A rollout setting's engines; the ratio is ours over each."""
    columns = ["", "s", "cpu s", "completions/s", "tokens/s", "tokens out", "ours is x faster"]
    ours = setting.get("ours", {}).get("completions_per_second")
    rows = []
    for name, entry in setting.items():
        ratio = f"{ours / entry['completions_per_second']:.2f}" if ours else ""
        rows.append(
            [
                name, f"{entry['seconds']:.2f}", f"{entry['cpu_seconds']:.2f}",
                f"{entry['completions_per_second']:.1f}",
                f"{entry['tokens_per_second']:.0f}", f"{entry['mean_completion_tokens']:.1f}", ratio,
            ]
        )  # fmt: skip
    return columns, rows


def scaling_rows(axis: Mapping[str, Any]) -> tuple[Row, list[Row]]:
    """An axis's points: the parts' seconds, and the floor's share of the whole."""
    parts = ("rollout", "scoring", "log_probs", "training", "update")
    columns = [axis["axis"], *(f"{part} s" for part in parts), "floor s", "floor / measured"]
    rows = []
    for point in axis["points"]:
        seconds, floor = point["seconds"], point["floor_seconds"]
        cells = [f"{seconds[part]:.3f}" for part in parts]
        rows.append([str(point[axis["axis"]]), *cells, f"{floor['update']:.3f}", f"{point['share']['update']:.0%}"])
    return columns, rows


def entities_rows(setting: Mapping[str, Mapping[str, Any]]) -> tuple[Row, list[Row]]:
    """A data set's kinds of mention: exact precision and recall with their intervals, and with any overlap."""
    columns = ["", "gold", "found", "precision", "recall", "precision, overlap", "recall, overlap"]

    def cells(entry: Mapping[str, Any], name: str) -> str:
        if name not in entry:
            return ""
        return f"{entry[name]:.2f} ({entry[f'{name}_low']:.2f} to {entry[f'{name}_high']:.2f})"

    def overlap(entry: Mapping[str, Any], name: str) -> str:
        return f"{entry[f'{name}_overlap']:.2f}" if f"{name}_overlap" in entry else ""

    names = ("precision", "recall")
    rows = [
        [kind, str(entry["gold"]), str(entry.get("found", "")), *(cells(entry, n) for n in names),
         *(overlap(entry, n) for n in names)]
        for kind, entry in setting.items()
    ]  # fmt: skip
    return columns, rows


def slots_rows(setting: Mapping[str, Any]) -> tuple[Row, list[Row]]:
    """A data set's slot modes."""
    columns = ["", "applies", "found of its own edits", "error that no reference has", "references flagged"]
    keys = ("applies", "recall", "unlike_every_reference", "flagged_references")
    return columns, [[mode, *(f"{found[key]:.1%}" for key in keys)] for mode, found in setting["modes"].items()]


def slots_line(setting: Mapping[str, Any]) -> str:
    """What a data set's slots are, and its references' own errors."""
    return (
        f"{setting['train_documents']:,} documents to fit on ({setting['fit_cpu_seconds']:.0f} CPU seconds), "
        f"{setting['validation_documents']:,} with {setting['validation_references']:,} references to measure on. "
        f"{setting['slots']} slots (a triple's subject is one of its own): {setting['slots_not_used']} neither "
        f"corrupted nor checked, {setting['slots_mostly_reworded']} mostly reworded; {setting['values_checkable']:.0%} "
        f"of the values can be checked for being missing. `slot_error_rate` of the references: "
        f"{setting['slot_error_rate_of_references']:.3f}."
    )


def fit_line(axis: Mapping[str, Any]) -> str:
    """The linear fit in words."""
    fits = (f"{part}: R^2 {fit['r_squared']:.4f}" for part, fit in axis["fits"].items())
    return f"linear in {axis['fitted_in']}: " + ", ".join(fits)


def plane_line(name: str, fits: Mapping[str, Any]) -> str:
    """The joint fit of an update in words."""
    fit = fits["update"]
    k_r, p = fit["slopes"]
    terms = f"{fit['constant']:.3g} s + {1000 * k_r:.3g} ms x k*R + {1000 * p:.3g} ms x P"
    return f"{name}: update = {terms}, R^2 {fit['r_squared']:.4f}"


def print_throughput(result: Mapping[str, Any]) -> None:
    """Tables on the terminal."""
    for name, setting in result["settings"].items():
        table(f"{name} (x: against the fastest of TRL's)", *throughput_rows(setting))


def print_rollout(result: Mapping[str, Any]) -> None:
    """Tables on the terminal."""
    for name, setting in result["settings"].items():
        table(name, *rollout_rows(setting))


def print_scaling(result: Mapping[str, Any]) -> None:
    """Tables on the terminal."""
    for name, axis in result["settings"].items():
        table(name, *scaling_rows(axis))
        print(fit_line(axis))
    for line in joint_lines(result):
        print(line)


def print_entities(result: Mapping[str, Any]) -> None:
    """Tables on the terminal."""
    for name, setting in result["settings"].items():
        table(name, *entities_rows(setting))


def joint_lines(result: Mapping[str, Any]) -> list[str]:
    """One line for every joint fit."""
    return [plane_line(name, fits) for name, fits in result.items() if name.startswith("joint_fit")]


def markdown(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [columns, ["---", *["---:"] * (len(columns) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def where(ran: Mapping[str, Any]) -> str:
    """What a setting was measured on."""
    machine = ran["gpu"] if ran["device"] == "cuda" else f"{ran['cpu']}, {ran['threads']} threads"
    return f"{machine}; commit {str(ran['git_commit'])[:7]}; {ran['date']}"


def section(name: str, result: Mapping[str, Any]) -> str:
    """A benchmark's result file as Markdown."""
    makers = {
        "entities": entities_rows,
        "rl_throughput": throughput_rows,
        "rollout": rollout_rows,
        "scaling": scaling_rows,
        "slots": slots_rows,
    }
    maker = makers[name.split("-")[0]]
    parts = [f"### {name}.json"]
    for key, setting in result["settings"].items():
        parts += [f"**{key}** ({where(result['runs'][key])})", markdown(*maker(setting))]
        if maker is scaling_rows:
            parts.append(fit_line(setting))
        if maker is slots_rows:
            parts.append(slots_line(setting))
    parts += joint_lines(result)
    return "\n\n".join(parts)


def study_section(name: str, result: Mapping[str, Any]) -> str:
    """A study's result as Markdown, its settings one after another."""
    study, parts = import_module(f"benchmarks.studies.{name}"), []
    for key, setting in result["settings"].items():
        parts.append(f"**{key}** ({where(result['runs'][key])})")
        if overrides := setting.get("set"):
            parts.append(f"The recipe with `{' '.join(overrides)}`.")
        if name in FIGURES:
            parts.append(f"![{name} on {key}]({figure_name(name, key)})")
        parts.append(study.section(setting))
    return "\n\n".join(parts)


def figure_name(name: str, key: str) -> str:
    """The file of a setting's picture."""
    return f"{FIGURES[name]}_{key.replace('/', '_')}.svg"


def results(name: str | None = None) -> dict[str, Any]:
    """The result files by their names, or the one of this name."""
    from homestretch.rundir import read_json

    return {path.stem: read_json(path) for path in sorted(RESULTS.glob("*.json")) if name in (None, path.stem)}


def put(page: Path, name: str, text: str) -> None:
    """Replace what stands in a page between the marks of a name. ValueError if it does not have them once."""
    from homestretch.rundir import write_text

    start, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    content = page.read_text(encoding="utf-8")
    if content.count(start) != 1 or content.count(end) != 1:
        raise ValueError(f"{page}: needs {start} and {end}, each once")
    before, rest = content.split(start)
    write_text(page, f"{before}{start}\n\n{text}\n\n{end}{rest.split(end)[1]}")


def write_pages() -> None:
    """All tables and pictures into their pages."""
    found = results()
    pages: dict[str, list[str]] = {"benchmarks/README.md": [], **{page: [] for page in PAGES.values()}}
    for name, result in found.items():
        if name not in STUDIES:
            pages[PAGES.get(name, "benchmarks/README.md")].append(section(name, result))
    for place, sections in pages.items():
        put(FOLDER.parent / place, "results", "\n\n".join(sections) or "Nothing has been measured yet.")
    for name, place in STUDIES.items():
        page = FOLDER.parent / place
        missing = f"Not measured yet: `make study STUDY={name}` ([how](../benchmarks/README.md#studies))."
        missing = missing.replace("../", "../" * place.count("/"))
        put(page, f"results: {name}", study_section(name, found[name]) if name in found else missing)
        if name in FIGURES and name in found:
            draw = import_module(f"benchmarks.studies.{name}").draw
            for key, setting in found[name]["settings"].items():
                draw(setting, page.parent / figure_name(name, key))


def main() -> None:
    """Print the tables, or write them."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--write", action="store_true")
    options.add_argument("--only", metavar="NAME", help="print this one")
    args = options.parse_args()
    if args.write:
        write_pages()
        return
    sections = [
        study_section(name, result) if name in STUDIES else section(name, result)
        for name, result in results(args.only).items()
    ]
    print("\n\n".join(sections) or "Nothing has been measured yet.")


if __name__ == "__main__":
    main()
