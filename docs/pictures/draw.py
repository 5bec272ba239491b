#!/usr/bin/env python3
"""Draws the diagrams of docs/PICTURES.md: `pairing.svg` and `states.svg` beside this file.

    docs/pictures/draw.py            draws both
    docs/pictures/draw.py --check    fails if one is not what would be drawn

Reads the mermaid texts: of sequence diagrams `participant`, messages, `Note over` and one `opt`; of state diagrams
transitions.
"""
import pathlib
import re
import sys

from svg import INK, LINE, PAPER, SOFT, keep, page, several, text, wrapped

HERE = pathlib.Path(__file__).resolve().parent
NOTE, STATE = "#fff4d6", "#e3effd"
TIP = (
    '<defs><marker id="tip" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="8" markerHeight="8" '
    f'orient="auto"><path d="M0 0L10 5L0 10z" fill="{INK}"/></marker></defs>'
)


def texts(document):
    """The mermaid texts by their kind."""
    found = re.findall(r"```mermaid\n(\S+)\n(.*?)```", document, re.DOTALL)
    return {kind: [line.strip() for line in body.splitlines() if line.strip()] for kind, body in found}


def sequence(lines):
    width, gap, left = 960, 330, 150
    column, names, parts, frames = {}, [], [], []
    for line in lines:
        if match := re.fullmatch(r"participant (\w+) as (.+)", line):
            column[match[1]] = left + gap * len(column)
            names.append(match[2])
    top = y = 76
    for line in lines:
        if line.startswith("participant"):
            continue
        if match := re.fullmatch(r"(\w+)(--?>>)(\w+): (.+)", line):
            start, end = column[match[1]], column[match[3]]
            words = wrapped(match[4], abs(end - start) - 24)
            y += 14
            # Words in the middle of a long way cover the life line there.
            parts += [
                part.replace("<text ", f'<text paint-order="stroke" stroke="{PAPER}" stroke-width="6" ', 1)
                if abs(end - start) > gap
                else part
                for part in several((start + end) / 2, y, words)
            ]
            y += 18 * len(words) - 10
            dashes = ' stroke-dasharray="6 4"' if match[2] == "-->>" else ""
            parts.append(
                f'<line x1="{start}" y1="{y}" x2="{end}" y2="{y}" stroke="{INK}" stroke-width="1.4"'
                f'{dashes} marker-end="url(#tip)"/>'
            )
            y += 18
        elif match := re.fullmatch(r"Note over (\w+)(?:,(\w+))?: (.+)", line):
            start, end = column[match[1]], column[match[2] or match[1]]
            wide = max(end - start + 120, 250)
            words = wrapped(match[3], wide - 20)
            high = 18 * len(words) + 12
            parts.append(
                f'<rect x="{(start + end - wide) / 2:g}" y="{y}" width="{wide}" height="{high}" rx="4" '
                f'fill="{NOTE}" stroke="{LINE}"/>'
            )
            parts += several((start + end) / 2, y + 20, words)
            y += high + 12
        elif match := re.fullmatch(r"opt (.+)", line):
            opened, label = y, match[1]
            y += 30
        elif line == "end":
            frames.append(
                f'<rect x="16" y="{opened}" width="{width - 32}" height="{y - opened}" rx="6" fill="#f5f7fa" '
                f'stroke="{LINE}" stroke-dasharray="3 3"/>'
            )
            parts.append(text(28, opened + 20, f"if {label}", anchor="start", weight="bold", colour=SOFT))
            y += 12
        else:
            raise SystemExit(f"cannot draw: {line}")
    heads, lives = [], []
    for x, name in zip(column.values(), names):
        for place in (24, y + 8):
            heads.append(
                f'<rect x="{x - 70}" y="{place}" width="140" height="36" rx="6" fill="{STATE}" stroke="{INK}"/>'
            )
            heads.append(text(x, place + 23, name, weight="bold"))
        lives.append(f'<line x1="{x}" y1="60" x2="{x}" y2="{y + 8}" stroke="{LINE}"/>')
    # The frame is below the life lines, and these are below everything else.
    described = "; ".join(line for line in lines if not line.startswith("participant"))
    return page(width, y + 68, "Pairing a phone", described, frames + lives + parts + heads, [TIP])


# Where each state is, and how each transition goes: the path, and the place and side of its words.
PLACES = {"open": (190, 250), "active": (770, 250), "pending": (480, 370), "expired": (480, 80), "revoked": (480, 540)}
PATHS = {
    ("[*]", "open"): ("M52 250 L124 250", (88, 240, "middle")),
    ("open", "pending"): ("M235 272 C280 340 340 366 412 369", (322, 304, "start")),
    ("open", "active"): ("M255 250 L703 250", (360, 240, "middle")),
    ("open", "expired"): ("M190 227 C190 130 300 84 413 80", (196, 130, "end")),
    ("open", "revoked"): ("M190 273 C190 460 300 536 413 540", (196, 446, "end")),
    ("pending", "active"): ("M545 369 C620 366 680 340 725 275", (662, 366, "start")),
    ("pending", "expired"): ("M480 347 L480 105", (490, 196, "start")),
    ("pending", "revoked"): ("M480 393 L480 515", (490, 458, "start")),
    ("active", "active"): ("M812 227 C826 176 884 190 837 240", (868, 196, "start")),
    ("active", "expired"): ("M770 227 C770 130 660 84 547 80", (764, 130, "start")),
    ("active", "revoked"): ("M770 273 C770 460 660 536 547 540", (764, 446, "start")),
    ("expired", "[*]"): ("M480 57 L480 32", (494, 46, "start")),
    ("revoked", "[*]"): ("M480 563 L480 588", (494, 582, "start")),
}


def states(lines):
    parts, named = [], set()
    for line in lines:
        match = re.fullmatch(r"(\S+) --> (\S+): (.+)", line)
        if not match or (match[1], match[2]) not in PATHS:
            raise SystemExit(f"no place for the transition: {line}")
        start, end, words = match.groups()
        named.add((start, end))
        path, (x, y, anchor) = PATHS[start, end]
        parts.append(f'<path d="{path}" fill="none" stroke="{INK}" stroke-width="1.4" marker-end="url(#tip)"/>')
        parts += several(x, y, wrapped(words, 150), anchor=anchor, colour=SOFT)
    if missing := PATHS.keys() - named:
        raise SystemExit(f"the text lacks the transitions {sorted(missing)}")
    for name, (x, y) in PLACES.items():
        fill = STATE if name in ("open", "pending", "active") else "#f1f3f5"
        parts.append(f'<rect x="{x - 65}" y="{y - 22}" width="130" height="44" rx="22" fill="{fill}" stroke="{INK}"/>')
        parts.append(text(x, y + 5, name, weight="bold"))
    parts.append(f'<circle cx="44" cy="250" r="8" fill="{INK}"/>')
    for y in (24, 596):
        parts.append(f'<circle cx="480" cy="{y}" r="8" fill="{PAPER}" stroke="{INK}"/>')
        parts.append(f'<circle cx="480" cy="{y}" r="4" fill="{INK}"/>')
    return page(1000, 620, "States of a ticket and of its credential", "; ".join(lines), parts, [TIP])


def main():
    found = texts((HERE.parent / "PICTURES.md").read_text())
    drawn = {"pairing.svg": sequence(found["sequenceDiagram"]), "states.svg": states(found["stateDiagram-v2"])}
    keep(drawn, HERE, sys.argv[1:] == ["--check"], "docs/PICTURES.md", "docs/pictures/draw.py")


main()
