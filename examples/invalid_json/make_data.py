"""Write data/{train,validation,test}.jsonl: notes for a booking, and their fields as JSON. Same seed, same files."""

from __future__ import annotations

import json
import random
from pathlib import Path

SIZES = {"train": 600, "validation": 150, "test": 200}

NAMES = [
    "Ann",
    "Ben",
    "Cleo",
    "Dan",
    "Eva",
    "Finn",
    "Gina",
    "Hugo",
    "Ida",
    "Jon",
    "Kim",
    "Leo",
    "Mia",
    "Noah",
    "Olga",
    "Paul",
]
CITIES = ["Oslo", "Lyon", "Rome", "Porto", "Graz", "Bern", "Turin", "Ghent", "Malmo", "Split"]
DAYS = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]
COUNTS = ["one", "two", "three", "four", "five", "six"]
SEATS = ("window", "aisle")

NOTES = (
    "{name} wants {count} tickets to {city} on {day}{seat}.",
    "Please book {count} for {name}, {city}, {day}{seat}.",
    "On {day} {name} goes to {city}{seat}; tickets: {count}.",
    "{name} called. Not {other} but {day}, to {city}, {count} tickets{seat}.",
    "To {city}: {count} tickets for {name}{seat}, leaving {day}.",
)


def row(rng: random.Random) -> dict[str, str]:
    """One note, and what a person would write into the form. A note without a seat gives no `seat`."""
    day, other = rng.sample(DAYS, 2)
    fields: dict[str, str | int] = {
        "name": rng.choice(NAMES), "city": rng.choice(CITIES), "day": day, "tickets": rng.randrange(1, 7)
    }  # fmt: skip
    seat = ""
    if rng.random() < 0.5:
        fields["seat"] = rng.choice(SEATS)
        seat = f", {fields['seat']} seat"
    words = fields | {"seat": seat, "other": other, "count": COUNTS[int(fields["tickets"]) - 1]}
    return {"document": rng.choice(NOTES).format(**words), "reference": json.dumps(fields)}


def main() -> None:
    """Write the three files beside this one; no note is in two of them."""
    rng, seen = random.Random(0), set()
    folder = Path(__file__).parent / "data"
    folder.mkdir(exist_ok=True)
    for split, size in SIZES.items():
        rows: list[dict[str, str]] = []
        while len(rows) < size:
            made = row(rng)
            if made["document"] not in seen:
                seen.add(made["document"])
                rows.append(made)
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows), encoding="utf-8")
        print(f"{folder / split}.jsonl: {size} rows")


if __name__ == "__main__":
    main()
