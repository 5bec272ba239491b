"""What the drawings of this folder have in common: colours, text, the page, and how they are kept in files."""
import os
from html import escape

INK, SOFT, PAPER, LINE = "#1b2733", "#52606d", "#ffffff", "#9aa5b1"
SIZE = 14
# How wide a letter of the font is on average, a little more than it is.
LETTER = 0.56 * SIZE


def wrapped(text, width, letter=LETTER):
    """Lines that are at most so wide."""
    lines = [""]
    for word in text.split():
        if lines[-1] and (len(lines[-1]) + 1 + len(word)) * letter > width:
            lines.append(word)
        else:
            lines[-1] = f"{lines[-1]} {word}".strip()
    return lines


def text(x, y, words, anchor="middle", colour=INK, weight="normal"):
    attributes = f'text-anchor="{anchor}" fill="{colour}" font-weight="{weight}"'
    return f'<text x="{x:g}" y="{y:g}" {attributes}>{escape(words, quote=False)}</text>'


def several(x, y, lines, **style):
    return [text(x, y + 18 * at, line, **style) for at, line in enumerate(lines)]


def page(width, height, title, description, parts, definitions=()):
    """A drawing. It has a background of its own, so that it can be read on a dark page and on a light one."""
    head = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" width="{width:g}" '
        f'height="{height:g}" role="img" aria-labelledby="t d" font-family="Helvetica, Arial, \'DejaVu Sans\', '
        f'sans-serif" font-size="{SIZE}">',
        f'<title id="t">{escape(title)}</title>',
        f'<desc id="d">{escape(description, quote=False)}</desc>',
        *definitions,
        f'<rect x="0.5" y="0.5" width="{width - 1:g}" height="{height - 1:g}" rx="8" fill="{PAPER}" stroke="{LINE}"/>',
    ]
    return "\n".join([*head, *parts, "</svg>", ""])


def keep(drawings, folder, check, source, program):
    """Writes the drawings, or fails if a file is not what would be written."""
    for name, drawing in drawings.items():
        path = folder / name
        if not check:
            path.write_text(drawing, encoding="utf-8")
        elif not path.exists() or path.read_text(encoding="utf-8") != drawing:
            raise SystemExit(f"{os.path.relpath(path)} is not the drawing of {source}: run {program}")
