#!/usr/bin/env python3
"""Draws the plots of docs/PERFORMANCE.md beside this file, from what the benchmark has measured.

    docs/pictures/plot.py            draws all
    docs/pictures/plot.py --check    fails if one is not what would be drawn
    docs/pictures/plot.py --test     checks this program with figures that are made up
    docs/pictures/plot.py --data FILE --into FOLDER    reads other figures, draws into another folder

The figures are in `figures.json`, a copy of `target/versus.json`. A point is a row that has `series` and `at`; its
quartiles `low` and `high` are drawn as thin bars. A bar is a row; its length is one over the row's ratio.
"""
import argparse
import json
import math
import pathlib
import tempfile
import xml.etree.ElementTree as xml
from fractions import Fraction
from typing import NamedTuple

from svg import INK, LINE, PAPER, SIZE, SOFT, keep, page, several, text, wrapped

HERE = pathlib.Path(__file__).resolve().parent
REMEDY = "run the benchmark (benches/README.md) and copy target/versus.json to docs/pictures/figures.json"
WIDTH, EDGE, TOP = 800, 28, 86
# A line of text, and a letter of the widest font that the page names: what is planned for never is too narrow.
HIGH, WIDE = 18, 0.64 * SIZE
COLOURS = ["#1f5fa8", "#b0461c", "#26734d", "#7b3f98", "#8a6100", "#8c2f5b"]
MARKS = ["M-4 0A4 4 0 1 0 4 0A4 4 0 1 0 -4 0z", "M-4 -4H4V4H-4z", "M0 -5.5L5.5 0L0 5.5L-5.5 0z", "M0 -5L5 4H-5z"]


class Point(NamedTuple):
    at: float
    value: float
    low: float
    high: float


def shortest(number):
    return f"{number:,.9f}".rstrip("0").rstrip(".")


def figure(number, digits):
    """The number to so many digits, without an exponent."""
    rounded = f"{number:.{digits - 1}e}"
    decimals = max(0, digits - 1 - int(rounded.partition("e")[2]))
    return f"{float(rounded):,.{decimals}f}"


def ticks(low, high, most, whole=False):
    """Round numbers at equal distances, the first at most `low` and the last at least `high`."""
    for power in range(-12, 19):
        for digit in (1, 2, 5):
            step = digit * Fraction(10) ** power
            first = math.floor(Fraction(low) / step)
            last = max(math.ceil(Fraction(high) / step), first + 1)
            if last - first <= most and (step >= 1 or not whole):
                return [float(step * at) for at in range(first, last + 1)]
    raise SystemExit(f"no axis from {low} to {high}")


def whole(low, high):
    return ticks(low, high, 10, whole=True)


def powers(low, high):
    """Powers of ten around the numbers; within two of them also their doubles and fivefolds."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1
    digits = (1, 2, 5) if high / low < 100 else (1,)
    marks = [float(digit * Fraction(10) ** power) for power in range(first, last + 1) for digit in digits]
    start = max(mark for mark in marks if mark <= low)
    end = min(mark for mark in marks if mark >= high and mark > start)
    return [mark for mark in marks if start <= mark <= end]


class Plot(NamedTuple):
    section: str
    # The words of the axis across, and of the axis up.
    across: str
    up: str
    # Makes the ticks of the axis across; without it the plot is of bars.
    scale: object = None
    # Where every series begins at one, because its ratios are to that place.
    start: int | None = None
    # Whether a line shows as many times the first value as there are threads, up to the cores.
    ideal: bool = False


PLOTS = {
    "blocks.svg": Plot(
        "attach with a narrowed copy, by blocks", "blocks of the credential", "X25519 multiplications", whole
    ),
    "records.svg": Plot(
        "growth with records, memory ledger", "records", "times as long as among 1,000", powers, 1_000
    ),
    "connections.svg": Plot(
        "growth with connections", "connected credentials", "times as long as with one (a revocation: as with ten)", powers, 1
    ),
    "threads.svg": Plot("threads", "threads", "times the throughput of one thread", whole, 1, ideal=True),
    "peers.svg": Plot("an attach beside other tokens", "times as long as our attach", ""),
}


def number(row, member, section, otherwise=None):
    found = row.get(member)
    if found is None:
        found = otherwise
    if not isinstance(found, (int, float)) or not math.isfinite(found) or found < 0 or (found == 0 and member != "at"):
        raise SystemExit(f"{section}: {row.get('row')}: `{member}` is not a number that can be drawn")
    return found


def point(row, section, at):
    value = number(row, "value", section)
    return Point(at, value, number(row, "low", section, value), number(row, "high", section, value))


def spread(wanted, heights, top, bottom):
    """Where blocks of these heights begin that shall have their middles there, so that none is on another."""
    order = sorted(range(len(wanted)), key=lambda at: wanted[at])
    starts, free = {}, top
    for at in order:
        starts[at] = free = max(free, wanted[at] - heights[at] / 2)
        free += heights[at]
    for at in reversed(order):
        starts[at] = bottom = min(starts[at], bottom - heights[at])
    return [starts[at] for at in range(len(wanted))]


def line(x1, y1, x2, y2, colour, more=""):
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}"{more}/>'


def words_across(marks, place, top, bottom, words):
    """The ticks of the axis across, with as many of their numbers as there is room for, and its words."""
    room = WIDE * max(len(shortest(mark)) for mark in marks) + 12
    every = math.ceil(room / (place(marks[1]) - place(marks[0])))
    parts = []
    for at, mark in enumerate(marks):
        x = round(place(mark), 1)
        parts.append(line(x, top, x, bottom + 5, LINE, ' stroke-opacity="0.45"'))
        if at % every == 0:
            parts.append(text(x, bottom + 21, shortest(mark), colour=SOFT))
    middle = round((place(marks[0]) + place(marks[-1])) / 2, 1)
    return [*parts, text(middle, bottom + 45, words, colour=SOFT)]


def finished(plot, section, bottom, parts, told):
    """The page, with what was measured and where."""
    title = plot.section[:1].upper() + plot.section[1:]
    measured = f"Measured with {section['rustc']} on {section['processor']}, {section['cores']} cores."
    below = wrapped(measured, WIDTH - 2 * EDGE, WIDE)
    words = [
        text(EDGE, 38, title, anchor="start", weight="bold"),
        *([text(EDGE, 64, plot.up, anchor="start", colour=SOFT)] if plot.up else []),
        *several(EDGE, bottom + 77, below, anchor="start", colour=SOFT),
    ]
    return page(WIDTH, bottom + 77 + HIGH * len(below), title, f"{told}. {measured}", words + parts)


def quartiles(low, value, high, digits):
    return "" if low == value == high else f" ({figure(low, digits)} to {figure(high, digits)})"


def curves(plot, section):
    series = {}
    for row in section["rows"]:
        if row.get("series") is not None and row.get("at") is not None:
            at = number(row, "at", plot.section)
            first = [] if plot.start is None else [Point(plot.start, 1, 1, 1)]
            series.setdefault(row["series"], first).append(point(row, plot.section, at))
    if not series:
        raise SystemExit(f"the section “{plot.section}” has no points: {REMEDY}")
    if len(series) > len(COLOURS):
        raise SystemExit(f"the section “{plot.section}” has more series than there are colours, {len(COLOURS)}")
    points = [point for of_one in series.values() for point in of_one]
    first, last = min(point.at for point in points), max(point.at for point in points)
    if plot.scale is powers and first == 0:
        raise SystemExit(f"{plot.section}: 0 has no place on a logarithmic axis")
    lines = {name: [(point.at, point.value) for point in sorted(of_one)] for name, of_one in series.items()}
    ideal = f"ideal on {section['cores']} cores" if plot.ideal else None
    if ideal:
        corner = min(max(section["cores"], first), last)
        lines[ideal] = [(at, min(at, section["cores"])) for at in sorted({first, corner, last})]
    across = plot.scale(first, last)
    up = ticks(0, max([point.high for point in points] + [y for _, y in lines.get(ideal, [])]), 6)

    labels = {name: wrapped(name, 200, WIDE) for name in lines}
    heights = [HIGH * len(words) for words in labels.values()]
    left = EDGE + WIDE * max(len(shortest(mark)) for mark in up) + 10
    label = WIDTH - EDGE - WIDE * max(len(word) for words in labels.values() for word in words)
    right, bottom = label - 30, TOP + max(300, sum(heights))
    if right - left < 300:
        raise SystemExit(f"{plot.section}: the name of a series is too long")
    on = math.log10 if plot.scale is powers else float

    def x(at):
        return left + (right - left) * (on(at) - on(across[0])) / (on(across[-1]) - on(across[0]))

    def y(value):
        return bottom - (bottom - TOP) * value / up[-1]

    parts = words_across(across, x, TOP, bottom, plot.across)
    for mark in up:
        parts.append(line(left, y(mark), right, y(mark), LINE, "" if mark == 0 else ' stroke-opacity="0.45"'))
        parts.append(text(round(left - 10, 1), round(y(mark) + 5, 1), shortest(mark), anchor="end", colour=SOFT))
    starts = spread([y(of_one[-1][1]) for of_one in lines.values()], heights, TOP, bottom)
    marks, tells = [], []
    for at, ((name, of_one), start) in enumerate(zip(lines.items(), starts)):
        colour, dashes = (SOFT, ' stroke-dasharray="6 4"') if name == ideal else (COLOURS[at], "")
        path = "L".join(f"{x(across):.1f} {y(value):.1f}" for across, value in of_one)
        parts.append(f'<path d="M{path}" fill="none" stroke="{colour}" stroke-width="1.8"{dashes}/>')
        middle = start + heights[at] / 2
        leader = ' stroke-opacity="0.6" stroke-dasharray="1 3"'
        parts.append(line(x(of_one[-1][0]) + 8, y(of_one[-1][1]), label - 5, middle, colour, leader))
        parts += several(round(label, 1), round(start + 14, 1), labels[name], anchor="start", colour=colour)
        if name == ideal:
            continue
        for place, value, low, high in sorted(series[name]):
            if low < high:
                marks.append(line(x(place), y(low), x(place), y(high), colour))
                marks += [line(x(place) - 4, y(end), x(place) + 4, y(end), colour) for end in (low, high)]
            marks.append(
                f'<path transform="translate({x(place):.1f} {y(value):.1f})" d="{MARKS[at % len(MARKS)]}" '
                f'fill="{colour}" stroke="{PAPER}"/>'
            )
        said = ", ".join(
            f"{figure(value, 3)}{quartiles(low, value, high, 3)} at {shortest(place)}"
            for place, value, low, high in sorted(series[name])
        )
        tells.append(f"{name}: {said}")
    told = f"{plot.up}, by {plot.across}; quartiles in brackets. {'; '.join(tells)}"
    return finished(plot, section, bottom, parts + marks, told[:1].upper() + told[1:])


def bars(plot, section):
    lengths = {"our attach": Point(0, 1, 1, 1)}
    for row in section["rows"]:
        _, value, low, high = point(row, plot.section, 0)
        if row["row"] in lengths:
            raise SystemExit(f"{plot.section}: two rows are named {row['row']}")
        # The ratio is of our time over the peer's, a bar the other way round.
        lengths[row["row"]] = Point(0, 1 / value, 1 / high, 1 / low)
    if len(lengths) == 1:
        raise SystemExit(f"the section “{plot.section}” has no rows: {REMEDY}")
    labels = {name: wrapped(name, 280, WIDE) for name in lengths}
    figures = {name: figure(of_one.value, 2) if of_one.value != 1 else "1" for name, of_one in lengths.items()}
    across = ticks(0, max(of_one.high for of_one in lengths.values()), 8)
    left = EDGE + WIDE * max(len(word) for words in labels.values() for word in words) + 10
    right = WIDTH - EDGE - WIDE * max(len(words) for words in figures.values()) - 8
    if right - left < 250:
        raise SystemExit(f"{plot.section}: the name of a row is too long")

    def x(value):
        return left + (right - left) * value / across[-1]

    top = TOP - 26
    parts, y = [], top + 8
    for name, words in labels.items():
        high = max(HIGH * len(words), 24)
        middle = y + high / 2
        _, value, low, most = lengths[name]
        colour = COLOURS[0] if name == "our attach" else LINE
        parts.append(
            f'<rect x="{left:.1f}" y="{middle - 11:g}" width="{x(value) - left:.1f}" height="22" fill="{colour}"/>'
        )
        parts += several(round(left - 10, 1), middle - HIGH * len(words) / 2 + 14, words, anchor="end")
        if low < most:
            parts.append(line(x(low), middle, x(most), middle, INK))
            parts += [line(x(end), middle - 4, x(end), middle + 4, INK) for end in (low, most)]
        # The lines of the ticks do not go through the figure.
        figure_text = text(round(x(max(value, most)) + 8, 1), middle + 5, figures[name], anchor="start")
        parts.append(figure_text.replace("<text ", f'<text paint-order="stroke" stroke="{PAPER}" stroke-width="6" ', 1))
        y += high + 10
    parts = words_across(across, x, top, y, plot.across) + parts + [line(left, top, left, y, INK)]
    said = [f"{name}: {figures[name]}{quartiles(low, v, high, 2)}" for name, (_, v, low, high) in lengths.items()]
    told = f"How many {plot.across}; quartiles in brackets. {'; '.join(said)}"
    return finished(plot, section, y, parts, told)


def drawings(data):
    sections = {}
    for section in data["sections"]:
        if sections.setdefault(section["title"], section) is not section:
            raise SystemExit(f"two sections are named “{section['title']}”: {REMEDY}")
    drawn = {}
    for name, plot in PLOTS.items():
        if plot.section not in sections:
            raise SystemExit(f"there is no section “{plot.section}”: {REMEDY}")
        draw = curves if plot.scale else bars
        drawn[name] = draw(plot, sections[plot.section])
    return drawn


def made_up(sizes):
    """Sections with rows that nobody has measured, for the test."""
    def rows(names, ats, value):
        return [
            {"row": f"{name}, {at}", "series": name, "at": at, "value": value(turn, at), "high": value(turn, at) * 1.1}
            for turn, name in enumerate(names)
            for at in ats
        ]

    names = ["a"] if sizes == "few" else ["first sight", "the same again", "after a restart of an agent", "revoked"]
    ats, growth = ([1], [10]) if sizes == "few" else ([1, 2, 3, 8], [1, 1000, 30_000, 2_000_000])
    rows_of = {
        "blocks.svg": rows(names, ats, lambda turn, at: 5 + turn / 100 + at),
        "records.svg": rows(names, growth, lambda turn, at: 1 + turn * math.log10(at) / 100),
        "connections.svg": rows(names, growth, lambda turn, at: 0.01 + turn),
        "threads.svg": rows(names, ats, lambda turn, at: min(at, 2) * 0.9),
        "peers.svg": [
            {"row": name, "value": value, "low": value * 0.9, "high": value * 1.1}
            for name, value in [("a token", 7.12), ("a <token> & its public key, checked at each of its words", 0.0613)]
        ],
    }
    about = {"rustc": "rustc 1.90.0", "processor": "A Processor With a Long Name " * 3, "cores": 2}
    return {"sections": [about | {"title": PLOTS[name].section, "rows": rows} for name, rows in rows_of.items()]}


def boxes(svg):
    """Where each text of a drawing is at most: left, top, right, bottom."""
    for found in xml.fromstring(svg).iter("{http://www.w3.org/2000/svg}text"):
        x, y = float(found.get("x")), float(found.get("y"))
        wide = len(found.text) * WIDE * (1.1 if found.get("font-weight") == "bold" else 1)
        start = x - wide * {"start": 0, "middle": 0.5, "end": 1}[found.get("text-anchor")]
        yield found.text, (start, y - 11, start + wide, y + 4)


def refused(words, action):
    try:
        action()
    except SystemExit as error:
        assert words in str(error), error
    else:
        raise AssertionError(f"not refused: {words}")


def test():
    for low, high in [(0, 0.37), (0, 1), (0, 7.2), (0, 1e7), (3, 3), (0.99, 64), (1, 1), (2, 16), (1e3, 1e6), (7, 4e3)]:
        scales = [lambda low, high: ticks(low, high, 6), whole, *([powers] if low else [])]
        for made in [scale(low, high) for scale in scales]:
            assert made[0] <= low and high <= made[-1], (low, high, made)
            assert 2 <= len(made) <= 11 and made == sorted(set(made)), made
        assert all(mark == int(mark) for mark in whole(low, high))
    assert ticks(0, 7.2, 6) == [0, 2, 4, 6, 8] and whole(1, 4) == [1, 2, 3, 4]
    assert powers(1000, 1_000_000) == [1e3, 1e4, 1e5, 1e6] and powers(1, 16) == [1, 2, 5, 10, 20]
    assert [figure(n, 2) for n in (0.01234, 0.996, 9.96, 14.3, 143, 1)] == ["0.012", "1.0", "10", "14", "140", "1.0"]
    assert [shortest(n) for n in (0, 0.2, 1000.0, 1e6)] == ["0", "0.2", "1,000", "1,000,000"]
    assert spread([50, 52, 99], [18, 18, 18], 0, 100) == [41, 59, 82]
    for sizes in ("few", "many"):
        drawn = drawings(made_up(sizes))
        assert drawn == drawings(json.loads(json.dumps(made_up(sizes)))) and drawn.keys() == PLOTS.keys()
        for name, svg in drawn.items():
            root = xml.fromstring(svg)
            placed = list(boxes(svg))
            assert root.get("role") == "img" and placed and float(root.get("width")) == WIDTH
            for at, (words, (left, top, right, bottom)) in enumerate(placed):
                assert 0 < left and right < WIDTH and 0 < top and bottom < float(root.get("height")), (name, words)
                for others, (left_2, top_2, right_2, bottom_2) in placed[:at]:
                    apart = right <= left_2 or right_2 <= left or bottom <= top_2 or bottom_2 <= top
                    assert apart, f"{name}: “{words}” is on “{others}”"
    peers = dict(boxes(drawn["peers.svg"]))
    assert "0.14" in peers and "16" in peers and "1" in peers
    assert "first sight: 6.00 (6.00 to 6.60) at 1, 7.00" in drawn["blocks.svg"]
    assert "ideal on 2 cores" in drawn["threads.svg"] and "ideal" not in drawn["records.svg"]

    for plot in PLOTS.values():
        data = made_up("many")
        [section] = [section for section in data["sections"] if section["title"] == plot.section]
        section["rows"] = []
        refused(plot.section, lambda: drawings(data))
        data["sections"].remove(section)
        refused(f"“{plot.section}”: run the benchmark", lambda: drawings(data))
    data = made_up("many")
    data["sections"] += made_up("few")["sections"][:1]
    refused("two sections are named", lambda: drawings(data))
    for member, wrong in [("value", 0), ("value", "7"), ("low", math.nan), ("high", -1)]:
        data = made_up("many")
        data["sections"][0]["rows"][0][member] = wrong
        refused(f"`{member}` is not a number", lambda: drawings(data))
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        refused("blocks.svg is not the drawing", lambda: keep(drawn, folder, True, "the figures", "this"))
        keep(drawn, folder, False, "the figures", "this")
        keep(drawn, folder, True, "the figures", "this")
        (folder / "peers.svg").write_text("")
        refused("peers.svg is not the drawing", lambda: keep(drawn, folder, True, "the figures", "this"))


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--check", action="store_true")
    arguments.add_argument("--test", action="store_true")
    arguments.add_argument("--data", type=pathlib.Path, default=HERE / "figures.json", metavar="FILE")
    arguments.add_argument("--into", type=pathlib.Path, default=HERE, metavar="FOLDER")
    chosen = arguments.parse_args()
    if chosen.test:
        return test()
    if not chosen.data.exists():
        raise SystemExit(f"there are no figures in {chosen.data.name}: {REMEDY}")
    drawn = drawings(json.loads(chosen.data.read_text(encoding="utf-8")))
    return keep(drawn, chosen.into, chosen.check, chosen.data.name, "docs/pictures/plot.py")


main()
