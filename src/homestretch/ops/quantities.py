"""Numbers, money, dates and times as people write them, and their normal forms: the rules behind `ops/entities.py`.

`PATTERNS` is a table of (kind, pattern, normaliser) in order of precedence: the first to take a character keeps it.
The rules are for English; digits, clock times and ISO dates are found in any language.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Literal

QuantityKind = Literal["number", "money", "date", "time"]


def _split(items: str) -> tuple[str, ...]:
    return tuple(items.split())


_UNITS = {
    word: value
    for value, word in enumerate(
        _split(
            "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
            "seventeen eighteen nineteen"
        )
    )
}
_TENS = {
    word: 10 * value for value, word in enumerate(_split("twenty thirty forty fifty sixty seventy eighty ninety"), 2)
}
NUMBER_WORDS = _UNITS | _TENS
_SCALES = {"hundred": 100, "thousand": 1000, "million": 1_000_000, "billion": 1_000_000_000}
_SUFFIXES = {"k": 1e3, "m": 1e6, "bn": 1e9, **{word: float(value) for word, value in _SCALES.items()}}
_CURRENCIES = {
    "usd": "$ us$ dollar dollars buck bucks usd",
    "eur": "€ euro euros eur",
    "gbp": "£ pound pounds quid gbp",
    "jpy": "¥ yen jpy",
    "cent": "cent cents",
}
_CURRENCY_OF = {word: code for code, spellings in _CURRENCIES.items() for word in spellings.split()}
WEEKDAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
MONTHS = _split("january february march april may june july august september october november december")
_RELATIVE = (
    r"day after tomorrow|day before yesterday|today|tonight|tomorrow|tmrw|yesterday"
    r"|(?:next|last|this) (?:week(?:end)?|month|year)|weekend|christmas eve|christmas|easter|new year'?s eve|halloween"
)

_CURRENCY_WORD = "dollars?|bucks?|usd|euros?|eur|pounds?|quid|gbp|yen|cents?"
_NO_CLOCK = r"%|km|years?|people|percent|degrees|points|[a-z]+ street"
_SMALL = "|".join([*_TENS, *sorted(_UNITS, key=len, reverse=True)])
_HOURS = "|".join(sorted(list(_UNITS)[1:13], key=len, reverse=True))
# "one" alone is mostly a pronoun ("no one", "this one"), so a bare number word is never "one" or "zero".
_WORD_NUMBER = (
    rf"\b(?:(?:(?:{_SMALL})(?:[ -](?:{_SMALL}))? |a )?(?:{'|'.join(_SCALES)})"
    rf"(?: (?:and )?(?:{_SMALL})(?:-(?:{_SMALL}))?)?"
    rf"|(?:{'|'.join(_TENS)})(?:[ -](?:{'|'.join(list(_UNITS)[1:10])}))?|(?:{'|'.join(list(_UNITS)[2:])})|dozen)\b"
)
DIGITS = r"\d{1,3}(?:,\d{3})+(?:\.\d+)?(?!\d)|\d+(?:[.,]\d+)?"
_SUFFIX = r"(?: ?(?:hundred|thousand|million|billion)\b|(?:k|m|bn)\b)?"
_AMOUNT = rf"(?:(?:{DIGITS}){_SUFFIX}|{_WORD_NUMBER})"
# The dot after "p.m" is part of it only inside a sentence.
_HALF_DAY = r"[ap](?: ?\. ?m\b(?: ?\.(?= (?-i:[a-z])|[,;:?!]))?|m\b)"
_MONTH = "|".join([*MONTHS, *(month[:3] for month in MONTHS), "sept"])
_ORDINAL = r"\d{1,2}(?: ?(?:st|nd|rd|th))?"


# --- numbers and money ------------------------------------------------------------


def plain_number(value: float) -> str:
    return f"{value:.6f}".rstrip("0").rstrip(".")


def _word_value(text: str) -> float:
    """The value of a number in words: "twenty-five", "two hundred and ten", "a thousand", "dozen"."""
    total, current = 0.0, 0.0
    for word in re.findall(r"[a-z]+", text.lower()):
        if word in _SCALES:
            current = max(current, 1.0) * _SCALES[word]
            if word != "hundred":
                total, current = total + current, 0.0
        else:
            current += 12.0 if word == "dozen" else float(_UNITS.get(word, _TENS.get(word, 0)))
    return total + current


def number_value(text: str) -> float | None:
    """The value of a number as written ("3.5", "1,000", "20k", "twenty-five"); None if it is not one."""
    cleaned = text.strip().lower()
    match = re.match(rf"({DIGITS}) ?([a-z]*)$", cleaned, re.ASCII)
    if match is None:
        return _word_value(cleaned) if re.fullmatch(_WORD_NUMBER, cleaned) or cleaned in _UNITS else None
    digits = match.group(1)
    # A comma before exactly three digits groups thousands; before one or two it is a decimal comma.
    digits = digits.replace(",", "") if re.fullmatch(r"\d{1,3}(,\d{3})+(\.\d+)?", digits) else digits.replace(",", ".")
    return float(digits) * _SUFFIXES.get(match.group(2), 1.0)


def _number(match: re.Match[str]) -> str | None:
    value = number_value(match.group("number"))
    return None if value is None else plain_number(value)


def _money(match: re.Match[str]) -> str | None:
    value = number_value(match.group("number"))
    currency = _CURRENCY_OF.get(match.group("currency").lower())
    return None if value is None or currency is None else f"{plain_number(value)} {currency}"


# --- dates and times ------------------------------------------------------------


def _month_name(text: str) -> str:
    return next(month for month in MONTHS if month.startswith(text.lower()[:3]))


def _month_day(match: re.Match[str]) -> str | None:
    day = int(re.sub(r"\D", "", match.group("day")))
    return f"{_month_name(match.group('month'))} {day}" if 1 <= day <= 31 else None


def _month_only(match: re.Match[str]) -> str | None:
    """A month alone; "may" and "march" are mostly verbs, so they need a preposition (or "March" inside a sentence)."""
    written = match.group("month")
    if written.lower() in {"may", "march"}:
        before = match.string[: match.start()].rstrip()
        is_after_preposition = re.search(
            r"\b(?:in|of|this|next|last|until|till|by|since|early|late|for)$", before, re.I
        )
        is_capital_inside = written[0].isupper() and before[-1:].isalpha() and before[-1:].islower()
        if not is_after_preposition and not (is_capital_inside and written.lower() == "march"):
            return None
    return _month_name(written)


def _weekday(match: re.Match[str]) -> str:
    written = (match.group("day") or match.group("days")).lower()
    return next(day for day in WEEKDAYS if day.startswith(written[:3]))


def _iso_date(match: re.Match[str]) -> str | None:
    month, day = int(match.group("month")), int(match.group("day"))
    return f"{MONTHS[month - 1]} {day}" if 1 <= month <= 12 and 1 <= day <= 31 else None


def _relative(match: re.Match[str]) -> str:
    value = re.sub(r"\s+", " ", match.group().lower()).replace("'", "")
    return {"tmrw": "tomorrow", "this weekend": "weekend"}.get(value, value)


def _hour(text: str) -> int:
    return _UNITS[text.lower()] if text.lower() in _UNITS else int(text)


def _clock(hour: int, minute: int, half: str | None) -> str | None:
    """ "17:00"; an hour of the twelve-hour clock without am or pm stays open: "5:00?"."""
    if hour > 24 or minute > 59 or (half and not 1 <= hour <= 12):
        return None
    if half:
        return f"{hour % 12 + (12 if half[0].lower() == 'p' else 0)}:{minute:02d}"
    return f"{hour}:{minute:02d}?" if 1 <= hour <= 12 else f"{hour % 24}:{minute:02d}"


def _time(match: re.Match[str]) -> str | None:
    groups = match.groupdict()
    hour = _hour(groups["hour"])
    minute = int(groups.get("minute") or 0)
    if groups["hour"].startswith("0"):
        return _clock(hour % 24 or 0, minute, groups.get("half")) if groups.get("half") else f"{hour}:{minute:02d}"
    return _clock(hour, minute, groups.get("half"))


def _spoken_time(match: re.Match[str]) -> str | None:
    """ "half past six", "quarter to nine", "ten past 5"."""
    step = match.group("step").lower()
    minutes = {"half": 30, "quarter": 15}.get(step)
    minutes = _hour_minutes(step) if minutes is None else minutes
    hour = _hour(match.group("hour"))
    if not 1 <= hour <= 12 or not 0 < minutes < 60:
        return None
    if match.group("way").lower() == "past":
        return _clock(hour, minutes, match.groupdict().get("half"))
    return _clock((hour - 2) % 12 + 1, 60 - minutes, match.groupdict().get("half"))


def _hour_minutes(text: str) -> int:
    return int(number_value(text) or 0)


def _compile(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern, re.IGNORECASE | re.ASCII)


PATTERNS: tuple[tuple[QuantityKind, re.Pattern[str], Callable[[re.Match[str]], str | None]], ...] = (
    ("date", _compile(r"\b\d{4}-(?P<month>\d{2})-(?P<day>\d{2})\b"), _iso_date),
    (
        "time",
        _compile(
            rf"\b(?P<step>half|quarter|{_SMALL}|\d{{1,2}}) (?:minutes )?(?P<way>past) (?P<hour>{_HOURS}|\d{{1,2}})\b"
            rf"(?: ?(?P<half>{_HALF_DAY}))?"
        ),
        _spoken_time,
    ),
    (
        "time",
        _compile(
            rf"\b(?P<step>quarter|(?:five|ten|twenty|\d{{1,2}}) minutes) (?P<way>to) (?P<hour>{_HOURS}|\d{{1,2}})\b"
            rf"(?: ?(?P<half>{_HALF_DAY}))?"
        ),
        _spoken_time,
    ),
    (
        "time",
        _compile(rf"(?<![\d.,:])(?P<hour>\d{{1,2}}) ?[:.] ?(?P<minute>\d{{2}}) ?(?P<half>{_HALF_DAY})"),
        _time,
    ),
    ("time", _compile(r"(?<![\d.,:])(?P<hour>\d{1,2})(?: : |:)(?P<minute>\d{2})(?![\d:])"), _time),
    ("time", _compile(rf"(?<![\d.,:$€£])\b(?P<hour>\d{{1,2}}|{_HOURS}) ?(?P<half>{_HALF_DAY})"), _time),
    ("time", _compile(rf"\b(?P<hour>\d{{1,2}}|{_HOURS}) ?o ?['’] ?clock\b"), _time),
    (
        "time",
        _compile(r"\b(?:noon|midday|midnight)\b"),
        lambda m: "0:00" if m.group().lower() == "midnight" else "12:00",
    ),
    ("date", _compile(rf"\b(?P<day>{_ORDINAL}) (?:of )?(?P<month>{_MONTH})\b(?:\.(?= (?-i:[a-z])|,))?"), _month_day),
    ("date", _compile(rf"\b(?P<month>{_MONTH})\b\.? (?:the )?(?P<day>{_ORDINAL})\b(?![:.,]\d| ?[ap]\.?m)"), _month_day),
    (
        "date",
        _compile(rf"\b(?P<day>{'|'.join(WEEKDAYS)}|tues|thurs?|weds)\b|\b(?P<days>{'|'.join(WEEKDAYS)})s\b"),
        _weekday,
    ),
    ("date", _compile(rf"\b(?P<month>{'|'.join(MONTHS)})\b"), _month_only),
    ("date", _compile(rf"\b(?:{_RELATIVE})\b"), _relative),
    ("date", re.compile(r"(?<=\bin )(?:19|20)\d\d\b(?![.,]\d)|(?<=\bsince )(?:19|20)\d\d\b", re.ASCII), re.Match.group),
    (
        "money",
        _compile(rf"(?P<currency>us\$|[$€£¥]) ?(?P<number>(?:{DIGITS}){_SUFFIX})"),
        _money,
    ),
    (
        "money",
        _compile(rf"(?<![\w.,])(?P<number>{_AMOUNT})[ -]?(?P<currency>[$€£¥]|(?:{_CURRENCY_WORD})\b)"),
        _money,
    ),
    # A bare number after "at" is a time unless a unit or a noun of measure follows it.
    (
        "time",
        _compile(rf"(?<=\bat )(?P<hour>1\d|2[0-4]|[1-9])(?![\d%]|[.,:]\d| ?(?:{_NO_CLOCK}))\b"),
        _time,
    ),
    (
        "number",
        _compile(rf"(?<![\w.,:/])(?P<number>(?:{DIGITS}){_SUFFIX})(?=st\b|nd\b|rd\b|th\b|[^\W\d]|\b)"),
        _number,
    ),
    ("number", _compile(rf"(?P<number>{_WORD_NUMBER})"), _number),
)
