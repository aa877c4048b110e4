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
_WORD_VALUES = NUMBER_WORDS | {"dozen": 12, "half": 0.5}
_SCALES = {"hundred": 100, "thousand": 1000, "million": 1_000_000, "billion": 1_000_000_000}
_SUFFIXES = {
    "k": 1e3,
    "m": 1e6,
    "mln": 1e6,
    "bn": 1e9,
    "bln": 1e9,
    **{word: float(value) for word, value in _SCALES.items()},
}
_CURRENCIES = {
    "usd": "$ us$ dollar dollars dlr dlrs buck bucks usd",
    "eur": "€ euro euros eur",
    "gbp": "£ pound pounds quid gbp",
    "jpy": "¥ yen jpy",
    "pln": "zł zloty zlotys pln",
    "inr": "₹ rupee rupees inr",
    "chf": "franc francs chf",
    "cent": "cent cents cts",
}
_CURRENCY_OF = {word: code for code, spellings in _CURRENCIES.items() for word in spellings.split()}
WEEKDAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
MONTHS = _split("january february march april may june july august september october november december")
_RELATIVE = (
    r"day after tomorrow|day before yesterday|today|tonight|tomorrow|tmrw|yesterday|last night"
    r"|this (?:morning|afternoon|evening)|(?:next|last|this) +(?:week(?:end)?|month|year)|weekends?"
)
_HOLIDAY = (
    r"christmas (?:eve|day)|christmas|boxing day|easter|new year(?:['’]?s (?:eve|day))?|halloween|thanksgiving"
    r"|black friday|valentine['’]?s day"
)

_CURRENCY_CODE = "usd|eur|gbp|jpy|pln|inr|chf"
_CURRENCY_WORD = rf"{_CURRENCY_CODE}|dollars?|dlrs?|bucks?|euros?|pounds?|quid|yen|zlotys?|rupees?|francs?|cents?|cts"
_NO_CLOCK = r"%|km|years?|people|percent|degrees|points|[a-z]+ street"
_SMALL = "|".join([*_TENS, *sorted(_UNITS, key=len, reverse=True)])
_HOURS = "|".join(sorted(list(_UNITS)[1:13], key=len, reverse=True))
# "one" alone is mostly a pronoun ("no one", "this one"), so a bare number word is never "one" or "zero".
_WORD_NUMBER = (
    rf"\b(?:(?:(?:{_SMALL})(?:[ -](?:{_SMALL}))? |(?:half )?a )?(?:hundred (?:thousand|million)|{'|'.join(_SCALES)})"
    rf"(?: (?:and )?(?:{_SMALL})(?:-(?:{_SMALL}))?)?"
    rf"|(?:{'|'.join(_TENS)})(?:[ -](?:{'|'.join(list(_UNITS)[1:10])}))?|(?:{'|'.join(list(_UNITS)[2:])})|dozen)\b"
)
DIGITS = r"\d{1,3}(?:,\d{3})+(?:\.\d+)?(?!\d)|\d+(?:[.,]\d+)?"
_SUFFIX = r"(?: ?(?:hundred|thousand|million|billion|mln|bln)\b|(?:k|m|bn)\b)?"
_AMOUNT = rf"(?:(?:{DIGITS}){_SUFFIX}|{_WORD_NUMBER})"
# The dot after "p.m" is part of it only inside a sentence.
_HALF_DAY = r"[ap](?: ?\. ?m\b(?: ?\.(?= (?-i:[a-z])|[,;:?!]))?|m\b)"
_MONTH = "|".join([*MONTHS, *(month[:3] for month in MONTHS), "sept"])
_ORDINAL = r"\d{1,2}(?: ?(?:st|nd|rd|th))?"
_YEAR = r"(?:1[5-9]|20)\d\d"
_BEFORE_YEAR = (
    r"\b(?:in|since|until|till|during|before|after|fiscal|fiscal year|the year"
    r"|(?:spring|summer|autumn|fall|winter|end|start|beginning) of) $"
)
_OF_YEAR = rf"(?:,? (?P<year>{_YEAR})\b(?![.,]\d))?"
# After "until 5" and the like nothing follows that could be counted.
_NO_NOUN = (
    r"(?= ?(?:[,;!?)\n]|\.(?!\d)|$)"
    r"| (?:and|or|but|because|so|if|when|with|on|in the|at|today|tonight|tomorrow|yesterday)\b)"
)


# --- numbers and money ------------------------------------------------------------


def plain_number(value: float) -> str:
    return f"{value:.6f}".rstrip("0").rstrip(".")


def _word_value(text: str) -> float:
    """The value of a number in words: "twenty-five", "two hundred and ten", "a thousand", "dozen"."""
    total, current = 0.0, 0.0
    for word in re.findall(r"[a-z]+", text.lower()):
        if word in _SCALES:
            current = (current or 1.0) * _SCALES[word]
            if word != "hundred":
                total, current = total + current, 0.0
        else:
            current += _WORD_VALUES.get(word, 0)
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
    """ "may 12", with the year where it is said: "may 12 2019"."""
    day = int(re.sub(r"\D", "", match.group("day")))
    if not 1 <= day <= 31:
        return None
    return " ".join(part for part in (_month_name(match.group("month")), str(day), match.group("year")) if part)


def _month_year(match: re.Match[str]) -> str:
    return f"{_month_name(match.group('month'))} {match.group('year')}"


def _year(match: re.Match[str]) -> str | None:
    """A year alone: one of four digits after a preposition of time, else it may count something."""
    before = match.string[max(0, match.start() - 24) : match.start()]
    return match.group() if re.search(_BEFORE_YEAR, before, re.IGNORECASE) else None


def _decade(match: re.Match[str]) -> str | None:
    """ "1990s", "80s"; not "in her 30s"."""
    before = match.string[max(0, match.start() - 8) : match.start()]
    is_age = len(match.group("years")) == 2 and not re.search(r"\bthe $", before, re.IGNORECASE)
    return None if is_age else f"{match.group('years')}s"


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
    return f"{MONTHS[month - 1]} {day} {match.group('year')}" if 1 <= month <= 12 and 1 <= day <= 31 else None


def _relative(match: re.Match[str]) -> str:
    value = re.sub(r"['’]", "", re.sub(r"\s+", " ", match.group().lower()))
    return {"tmrw": "tomorrow", "this weekend": "weekend", "weekends": "weekend"}.get(value, value)


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
    """ "half past six", "quarter to nine", "ten past 5", "ten minutes to 12 pm"."""
    step = match.group("step").lower().removesuffix(" minutes")
    minutes = {"half": 30, "quarter": 15}.get(step) or int(number_value(step) or 0)
    hour, half = _hour(match.group("hour")), match.group("half")
    if not 1 <= hour <= 12 or not 0 < minutes < 60:
        return None
    if match.group("way").lower() == "past":
        return _clock(hour, minutes, half)
    if half and hour == 12:  # before noon it is morning, before midnight evening
        half = "a" if half[0].lower() == "p" else "p"
    return _clock((hour - 2) % 12 + 1, 60 - minutes, half)


def _compile(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern, re.IGNORECASE | re.ASCII)


PATTERNS: tuple[tuple[QuantityKind, re.Pattern[str], Callable[[re.Match[str]], str | None]], ...] = (
    ("date", _compile(r"\b(?P<year>\d{4})-(?P<month>\d{2})-(?P<day>\d{2})\b"), _iso_date),
    (
        "date",
        _compile(r"(?<![\d./-])(?:\d{1,2}/\d{1,2}/(?:\d{4}|\d\d)|\d{1,2}([.-])\d{1,2}\1\d{4})(?![/-]?\d)"),
        re.Match.group,
    ),
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
    # The first of two hours: "2" of "between 2 and 4 pm"; am or pm need not be the second's.
    (
        "time",
        _compile(
            r"(?<![\d.,:$€£-])\b(?P<hour>\d{1,2})(?:[:.](?P<minute>\d\d))?(?= ?(?:-|–|to|and|or|until|till) ?"
            rf"\d{{1,2}}(?:[:.]\d\d)? ?{_HALF_DAY})"
        ),
        _time,
    ),
    (
        "time",
        _compile(r"\b(?:noon|midday|midnight)\b"),
        lambda m: "0:00" if m.group().lower() == "midnight" else "12:00",
    ),
    (
        "date",
        _compile(rf"\b(?P<day>{_ORDINAL}) (?:of )?(?P<month>{_MONTH})\b(?:\.(?= (?-i:[a-z])|,))?{_OF_YEAR}"),
        _month_day,
    ),
    (
        "date",
        _compile(rf"\b(?P<month>{_MONTH})\b\.? (?:the )?(?P<day>{_ORDINAL})\b(?![:.,]\d| ?[ap]\.?m){_OF_YEAR}"),
        _month_day,
    ),
    ("date", _compile(rf"\b(?P<month>{_MONTH})\b\.?,? (?:of )?(?P<year>{_YEAR})\b(?![.,]\d)"), _month_year),
    ("date", _compile(rf"\b(?:{_HOLIDAY})\b"), _relative),
    (
        "date",
        _compile(
            rf"\b(?P<day>{'|'.join(WEEKDAYS)}|tues|thurs?|weds|(?-i:Mon|Tue|Wed|Thu|Fri))\b|\b(?P<days>{'|'.join(WEEKDAYS)})s\b"
        ),
        _weekday,
    ),
    ("date", _compile(rf"\b(?P<month>{'|'.join(MONTHS)})\b"), _month_only),
    ("date", _compile(rf"\b(?:{_RELATIVE})\b"), _relative),
    ("date", _compile(r"\b(?P<years>(?:1[5-9]|20)\d0|[2-9]0)['’]?s\b"), _decade),
    ("date", _compile(rf"\b{_YEAR}\b(?![.,]\d| ?%| (?:people|words|{_CURRENCY_WORD})\b)"), _year),
    (
        "money",
        _compile(rf"(?P<currency>us\$|[$€£¥₹]|\b(?-i:{_CURRENCY_CODE.upper()})\b) ?(?P<number>(?:{DIGITS}){_SUFFIX})"),
        _money,
    ),
    (
        "money",
        _compile(rf"(?<![\w.,])(?P<number>{_AMOUNT})[ -]?(?P<currency>[$€£¥₹]|zł|(?:{_CURRENCY_WORD})\b)"),
        _money,
    ),
    (
        "time",
        _compile(
            r"(?:(?<=\bat )|(?<=\bat about )|(?<=\bat around )|(?<=\buntil )|(?<=\btill )|(?<=\bbefore )|(?<=\bafter ))"
            rf"(?P<hour>1\d|2[0-4]|[1-9]|{_HOURS})\b{_NO_NOUN}"
        ),
        _time,
    ),
    # A bare number after "at" is a time unless a unit or a noun of measure follows it.
    (
        "time",
        _compile(rf"(?<=\bat )(?P<hour>1\d|2[0-4]|[1-9])(?![\d%]|[.,:]\d| ?(?:{_NO_CLOCK}))\b"),
        _time,
    ),
    (
        "number",
        _compile(rf"(?<![\w.,:/])(?P<number>(?:{DIGITS}){_SUFFIX})(?:st\b|nd\b|rd\b|th\b|(?=[^\W\d]|\b))"),
        _number,
    ),
    ("number", _compile(rf"(?P<number>{_WORD_NUMBER})"), _number),
)
