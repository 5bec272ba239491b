#!/usr/bin/env python3
"""Records what a command prints in a terminal of 100 columns and 40 lines, and draws it as SVG.

    docs/pictures/record.py OUT.svg [--title TEXT] [--from TEXT] [--before TEXT] -- COMMAND [ARGUMENT...]
    docs/pictures/record.py --test

The times at which something was printed are dropped: the drawing has the lines that are in the terminal and above it
at the end, from the first that contains TEXT, up to the one before the next that contains the other TEXT. The
terminal knows line feeds, tabs, colours, bold and inverse text, cursor movement and erasing; a program that needs
more is not for it. Half blocks are drawn as rectangles, so that a QR code can be scanned from the drawing.
"""
import fcntl
import os
import pty
import re
import struct
import sys
import termios
import unicodedata
from html import escape

COLUMNS, ROWS = 100, 40
# Pixels of a cell, and around the drawing.
WIDE, HIGH, EDGE, FONT = 8, 17, 14, 13
PAPER, INK = "#11161c", "#d5dbe1"
NAMED = ["#000000", "#e06c75", "#7fbf6a", "#d7a65f", "#61a0ea", "#c585d9", "#56b6c2", "#d5dbe1"]
BRIGHT = ["#6b7580", "#f28b93", "#9dd68a", "#ecc27f", "#86baf5", "#dba4ec", "#7fd3dd", "#ffffff"]
TOKEN = re.compile(
    r"\x1b\[([0-9;:?<>=]*)[ -/]*([@-~])|\x1b[\]PX^_].*?(?:\x07|\x1b\\)|\x1b[ -/]*[0-~]|[\x00-\x1f\x7f]|[^\x00-\x1f\x7f]",
    re.DOTALL,
)
# Quarters of a cell would be more; the example prints these.
BLOCKS = {"▀": (0, 0.5), "▄": (0.5, 1), "█": (0, 1)}


def colour_of(number):
    """A colour of the palette of 256."""
    if number < 16:
        return (NAMED + BRIGHT)[number]
    if number >= 232:
        grey = 8 + 10 * (number - 232)
        return f"#{grey:02x}{grey:02x}{grey:02x}"
    number -= 16
    steps = [0, 95, 135, 175, 215, 255]
    return "#" + "".join(f"{steps[number // by % 6]:02x}" for by in (36, 6, 1))


class Terminal:
    """Lines of cells; a cell is a character, its foreground, its background and whether it is bold."""

    def __init__(self):
        self.lines, self.row, self.column = [[]], 0, 0
        self.reset()

    def reset(self):
        self.ink, self.paper, self.bold, self.inverse, self.faint = None, None, False, False, False

    def feed(self, text):
        for match in TOKEN.finditer(text):
            if match[2]:
                self.control(match[1], match[2])
            else:
                self.character(match[0])

    def top(self):
        return max(0, len(self.lines) - ROWS)

    def move(self, row, column):
        self.row, self.column = max(row, self.top()), min(max(column, 0), COLUMNS - 1)
        while len(self.lines) <= self.row:
            self.lines.append([])

    def character(self, token):
        if token == "\n":
            self.move(self.row + 1, self.column)
        elif token == "\r":
            self.column = 0
        elif token == "\b":
            self.column = max(self.column - 1, 0)
        elif token == "\t":
            self.column = min(self.column // 8 * 8 + 8, COLUMNS - 1)
        elif token.isprintable() or token in BLOCKS:
            self.put(token)

    def put(self, character):
        if unicodedata.combining(character):
            return
        width = 2 if unicodedata.east_asian_width(character) in "WF" else 1
        if self.column + width > COLUMNS:
            self.move(self.row + 1, 0)
            self.column = 0
        line = self.lines[self.row]
        line += [(" ", INK, PAPER, False)] * (self.column + width - len(line))
        ink, paper = self.ink or INK, self.paper or PAPER
        if self.inverse:
            ink, paper = paper, ink
        if self.faint:
            ink = BRIGHT[0]
        line[self.column] = (character, ink, paper, self.bold)
        if width == 2:
            line[self.column + 1] = ("", ink, paper, self.bold)
        # May be one past the edge: the next character wraps.
        self.column += width

    def control(self, parameters, final):
        if final == "m":
            return self.style([int(part or 0) for part in re.split("[;:]", parameters)])
        if not re.fullmatch(r"[0-9;]*", parameters):
            return None
        numbers = [int(part) if part else 0 for part in parameters.split(";")]
        by = max(numbers[0], 1)
        if final in "ABCDEFGd":
            row, column = self.row, min(self.column, COLUMNS - 1)
            row += {"A": -by, "B": by, "E": by, "F": -by}.get(final, 0)
            column = {"C": column + by, "D": column - by, "E": 0, "F": 0, "G": by - 1}.get(final, column)
            self.move(self.top() + by - 1 if final == "d" else row, column)
        elif final in "Hf":
            self.move(self.top() + by - 1, max((numbers + [1])[1], 1) - 1)
        elif final == "K":
            self.erase(self.row, numbers[0])
        elif final == "J":
            self.erase(self.row, numbers[0])
            rows = range(self.row + 1, len(self.lines)) if numbers[0] == 0 else range(self.top(), self.row)
            if numbers[0] >= 2:
                rows = range(self.top(), len(self.lines))
            for row in rows:
                self.lines[row] = []
        return None

    def erase(self, row, part):
        line = self.lines[row]
        if part == 0:
            del line[self.column :]
        elif part == 1:
            cleared = min(self.column + 1, len(line))
            line[:cleared] = [(" ", INK, PAPER, False)] * cleared
        else:
            line.clear()

    def style(self, numbers):
        numbers = iter(numbers)
        for number in numbers:
            if number == 0:
                self.reset()
            elif number in (1, 22):
                self.bold, self.faint = number == 1, self.faint and number == 1
            elif number == 2:
                self.faint = True
            elif number in (7, 27):
                self.inverse = number == 7
            elif number in (38, 48):
                kind = next(numbers, None)
                if kind == 5:
                    colour = colour_of(min(next(numbers, 0), 255))
                else:
                    colour = "#" + "".join(f"{min(next(numbers, 0), 255):02x}" for _ in range(3))
                self.ink, self.paper = (colour, self.paper) if number == 38 else (self.ink, colour)
            elif 30 <= number <= 37 or 90 <= number <= 97:
                self.ink = (NAMED if number < 90 else BRIGHT)[number % 10]
            elif 40 <= number <= 47 or 100 <= number <= 107:
                self.paper = (NAMED if number < 100 else BRIGHT)[number % 10]
            elif number == 39:
                self.ink = None
            elif number == 49:
                self.paper = None


def runs(cells, same):
    """The first cell of each run of cells for which `same` gives one value, the value, and the run."""
    start = 0
    for at in range(1, len(cells) + 1):
        if at == len(cells) or same(cells[at]) != same(cells[start]):
            yield start, same(cells[start]), cells[start:at]
            start = at


def rectangle(column, top, cells, high, colour):
    return (
        f'<rect x="{EDGE + column * WIDE}" y="{top:g}" width="{cells * WIDE}" height="{high:g}" fill="{colour}" '
        'shape-rendering="crispEdges"/>'
    )


def draw(lines, title):
    width, height = COLUMNS * WIDE + 2 * EDGE, len(lines) * HIGH + 2 * EDGE
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        'role="img" aria-labelledby="t" font-family="\'DejaVu Sans Mono\', Menlo, Consolas, monospace" '
        f'font-size="{FONT}">',
        f'<title id="t">{escape(title)}</title>',
        f'<rect width="{width}" height="{height}" rx="8" fill="{PAPER}"/>',
    ]
    for row, cells in enumerate(lines):
        top = EDGE + row * HIGH
        for at, paper, run in runs(cells, lambda cell: cell[2]):
            if paper != PAPER:
                parts.append(rectangle(at, top, len(run), HIGH, paper))
        for at, look, run in runs(cells, lambda cell: (cell[1], cell[3], BLOCKS.get(cell[0]))):
            ink, bold, block = look
            words = "".join(cell[0] for cell in run)
            if block:
                high = (block[1] - block[0]) * HIGH
                parts.append(rectangle(at, top + block[0] * HIGH, len(run), high, ink))
            elif words.strip():
                lead, trail = len(words) - len(words.lstrip()), len(words) - len(words.rstrip())
                words = words.strip()
                weight = ' font-weight="bold"' if bold else ""
                # Whatever the font, a run is as wide as its cells.
                parts.append(
                    f'<text x="{EDGE + (at + lead) * WIDE}" y="{top + 13}" fill="{ink}"{weight} xml:space="preserve" '
                    f'textLength="{(len(run) - lead - trail) * WIDE}" '
                    f'lengthAdjust="spacingAndGlyphs">{escape(words, quote=False)}</text>'
                )
    return "\n".join([*parts, "</svg>", ""])


def output_of(command):
    """What the command prints in a terminal, and its exit status."""
    child, terminal = pty.fork()
    if child == 0:
        fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
        os.environ.update(TERM="xterm-256color", COLUMNS=str(COLUMNS), LINES=str(ROWS))
        os.execvp(command[0], command)
    printed = b""
    while True:
        try:
            piece = os.read(terminal, 65536)
        except OSError:
            # What Linux says when the command has ended.
            break
        if not piece:
            break
        printed += piece
    return printed.decode(errors="replace"), os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def screen(printed):
    terminal = Terminal()
    terminal.feed(printed)
    return terminal.lines


def words_of(line):
    return "".join(cell[0] for cell in line).rstrip()


def cut(lines, first, before):
    """The lines from the first with the one text to the last before the other, without blank ones at the ends."""
    start = next((at for at, line in enumerate(lines) if first in words_of(line)), None)
    if start is None:
        raise SystemExit(f"no line has {first!r}")
    end = len(lines)
    if before:
        end = next((at for at in range(start, len(lines)) if before in words_of(lines[at])), None)
        if end is None:
            raise SystemExit(f"no line has {before!r}")
    chosen = lines[start:end]
    while chosen and not words_of(chosen[0]):
        chosen.pop(0)
    while chosen and not words_of(chosen[-1]):
        chosen.pop()
    return chosen


def test():
    def shown(printed):
        return [words_of(line) for line in screen(printed)]

    assert shown("one\r\ntwo") == ["one", "two"]
    assert shown("step\n by") == ["step", "     by"]
    assert shown("over\rOV") == ["OVer"]
    assert shown("abc\b\bX\tY") == ["aXc     Y"]
    assert shown("x" * 101) == ["x" * 100, "x"]
    assert shown("x" * 100 + "\r\ny") == ["x" * 100, "y"]
    assert shown("gone\r\x1b[Kback") == ["back"]
    assert shown("1\r\n2\r\n3\x1b[2A\r!\x1b[J") == ["!", "", ""]
    assert shown("\x1b[2J\x1b[3;4Hx") == ["", "", "   x"]
    assert shown("a\x1b]0;title\x07b\x1b]8;;x\x1b\\c\x1b[?25ld\x1b(Be") == ["abcde"]
    assert shown("字x") == ["字x"] and len(screen("字x")[0]) == 3
    # What has scrolled out of the screen is not reached any more, and stays.
    assert shown("\n" * 45 + "\x1b[Htop")[6] == "top"
    line = screen("\x1b[1;31mr\x1b[0mn\x1b[7mi\x1b[27;38;5;196mp\x1b[48;2;1;2;3mq\x1b[39;49mz\x1b[92mb")[0]
    assert line[0] == ("r", NAMED[1], PAPER, True) and line[1] == ("n", INK, PAPER, False)
    assert line[2][1:3] == (PAPER, INK) and line[3][1] == "#ff0000" and line[4][2] == "#010203"
    assert line[5][1:3] == (INK, PAPER) and line[6][1] == BRIGHT[2]
    svg = draw(screen("\x1b[30;107m▀▀ █\x1b[0m  a<b & c"), "t")
    assert f'<rect x="{EDGE}" y="{EDGE}" width="{4 * WIDE}" height="{HIGH}" fill="#ffffff"' in svg
    assert f'<rect x="{EDGE}" y="{EDGE}" width="{2 * WIDE}" height="8.5" fill="#000000"' in svg
    assert f'textLength="{7 * WIDE}"' in svg and "a&lt;b &amp; c" in svg
    lines = screen("\r\na\r\n\r\nb\r\n\r\nc")
    assert [words_of(line) for line in cut(lines, "a", "c")] == ["a", "", "b"]
    assert [words_of(line) for line in cut(lines, "", "")] == ["a", "", "b", "", "c"]
    printed, status = output_of(["sh", "-c", "stty size; printf '\\033[1mbold\\033[0m\\n'; exit 3"])
    assert (printed, status) == (f"{ROWS} {COLUMNS}\r\n\x1b[1mbold\x1b[0m\r\n", 3), (printed, status)


def main():
    arguments = sys.argv[1:]
    if arguments == ["--test"]:
        return test()
    if "--" not in arguments[1:] or not arguments[arguments.index("--") + 1 :]:
        raise SystemExit(__doc__)
    split = arguments.index("--")
    (out, *options), command = arguments[:split], arguments[split + 1 :]
    chosen = {"--title": f"What `{' '.join(command)}` prints", "--from": "", "--before": ""}
    if len(options) % 2 or not set(options[::2]) <= set(chosen):
        raise SystemExit(__doc__)
    chosen.update(zip(options[::2], options[1::2]))
    printed, status = output_of(command)
    if status != 0:
        raise SystemExit(f"{printed}\nthe command has failed: {status}")
    lines = cut(screen(printed), chosen["--from"], chosen["--before"])
    with open(out, "w", encoding="utf-8") as file:
        file.write(draw(lines, chosen["--title"]))
    return None


main()
