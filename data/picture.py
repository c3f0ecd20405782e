#!/usr/bin/env python3
"""Draws picture.svg, the picture of the README:  python3 data/picture.py

Text goes through the model as a beam, its residual stream. The SAE, a prism, splits the beam into a few of thousands
of latents. Each has a meaning; clamping one changes what the model writes. The panel has a background of its own, so
that it reads the same on light and dark pages, and letters large enough for a phone.
"""
from pathlib import Path
from random import Random

WIDTH, HEIGHT = 720, 508
WORDS = ["Here", "is", "what", "I", "wrote", "this", "morning:"]
BEAM = 202  # height of the beam
# Height of each latent, its color, its meaning, its activation on this text as a share of its max. These are latents
# 609, 4569, 1220, 2675 and 830 of the demo's SAE; the last one does not fire on this text, and is clamped to 45.
LATENTS = [
    (98, "#ff7d87", "the word “this”", 0.76),
    (146, "#ffb35c", "times of day", 0.76),
    (194, "#f4e27a", "years past", 0.42),
    (242, "#79e2a0", "a list follows", 0.54),
    (296, "#78c6ff", "old-fashioned prose", 0.0),
]
CLAMPED = len(LATENTS) - 1
PLAIN = "The new employee was very nervous on his first day of work."
STEERED = [
    "The great Admiral, who was then at the Court of Admiralty,",
    "has been made a just and honorable Captain …",
]

SLABS = [176 + 17 * i for i in range(6)]  # the model's blocks
APEX, LEFT, RIGHT = (332, 132), (286, 262), (378, 262)  # the prism
GRID = [446 + 11 * i for i in range(5)]  # columns of latents
LABEL = 514


def text(x, y, words, fill="#e8ecf6", size=18, anchor="start", extra=""):
    return f'<text x="{x}" y="{y}" fill="{fill}" font-size="{size}" text-anchor="{anchor}" {extra}>{words}</text>'


def curve(x0, y0, x1, y1, stroke, width, opacity=1.0, bend=0.5):
    x = x0 + (x1 - x0) * bend
    return (f'<path d="M{x0} {y0}C{x:.0f} {y0} {x:.0f} {y1} {x1} {y1}" fill="none" stroke="{stroke}" '
            f'stroke-width="{width}" stroke-opacity="{opacity}" stroke-linecap="round"/>')


def words():
    step = 32
    top = BEAM - step * (len(WORDS) - 1) / 2
    for i, word in enumerate(WORDS):
        y = top + i * step
        yield text(36, y + 6, word)
        yield curve(45 + 9.6 * len(word), y, 164, BEAM, "#ffffff", 1.4, 0.55)


def model():
    for x in SLABS:
        yield f'<rect x="{x}" y="{BEAM - 58}" width="9" height="116" rx="4.5" fill="#ffffff" fill-opacity="0.11"/>'
    enter = (LEFT[0] + APEX[0]) / 2 + 1
    yield f'<path d="M160 {BEAM}H{enter}" stroke="#fff" stroke-width="9" stroke-opacity="0.18" filter="url(#glow)"/>'
    yield f'<path d="M160 {BEAM}H{enter}" stroke="#fff" stroke-width="3.4" stroke-linecap="round"/>'


def prism():
    enter, leave = (LEFT[0] + APEX[0]) / 2 - 3, (RIGHT[0] + APEX[0]) / 2
    for i, (y, color, _, _) in enumerate(LATENTS):
        out = BEAM + (i - 2) * 7
        path = f"M{enter} {BEAM}L{leave + (i - 2) * 2.5} {out}"
        yield f'<path d="{path}" stroke="{color}" stroke-width="2" stroke-opacity="0.8"/>'
    points = " ".join(f"{x},{y}" for x, y in (APEX, LEFT, RIGHT))
    yield (f'<polygon points="{points}" fill="url(#glass)" stroke="#dfe7ff" stroke-opacity="0.75" stroke-width="1.8" '
           'stroke-linejoin="round"/>')


def latents():
    random = Random(3)
    rows = [82 + 11 * i for i in range(22)]
    lit = {}
    for i, (y, *_) in enumerate(LATENTS):
        lit[(random.randrange(len(GRID)), min(range(len(rows)), key=lambda row: abs(rows[row] - y)))] = i
    for column, x in enumerate(GRID):
        for row, y in enumerate(rows):
            if (column, row) not in lit:
                yield f'<circle cx="{x}" cy="{y}" r="2" fill="#fff" fill-opacity="0.22"/>'
    for (column, row), i in lit.items():
        height, color, _, activation = LATENTS[i]
        x, y = GRID[column], rows[row]
        ray = f'M{(RIGHT[0] + APEX[0]) / 2 + (i - 2) * 2.5} {BEAM + (i - 2) * 7}L{x} {y}'
        if activation > 0:
            yield f'<path d="{ray}" stroke="{color}" stroke-width="7" stroke-opacity="0.22" filter="url(#glow)"/>'
            yield f'<path d="{ray}" stroke="{color}" stroke-width="2.2"/>'
        else:
            yield (f'<path d="{ray}" stroke="{color}" stroke-width="1.6" stroke-opacity="0.6" stroke-linecap="round" '
                   'stroke-dasharray="1 6"/>')
        yield f'<path d="M{x} {y}L{LABEL - 10} {height - 5}" stroke="{color}" stroke-width="1.2" stroke-opacity="0.5"/>'
        yield f'<circle cx="{x}" cy="{y}" r="8" fill="{color}" fill-opacity="0.35" filter="url(#glow)"/>'
        yield f'<circle cx="{x}" cy="{y}" r="4.6" fill="{color}"/>'


def meanings():
    for i, (y, color, meaning, activation) in enumerate(LATENTS):
        yield text(LABEL, y, meaning, color)
        track, reach = 164, 164 * activation / 1.55
        yield f'<rect x="{LABEL}" y="{y + 12}" width="{track}" height="5" rx="2.5" fill="#fff" fill-opacity="0.1"/>'
        yield f'<rect x="{LABEL}" y="{y + 12}" width="{reach:.0f}" height="5" rx="2.5" fill="{color}"/>'
        if i == CLAMPED:
            knob = LABEL + track * 1.4 / 1.55
            yield (f'<path d="M{LABEL + 3} {y + 14.5}H{knob - 12:.0f}" stroke="{color}" stroke-width="2.4" '
                   f'stroke-dasharray="1 6" stroke-linecap="round"/>')
            yield f'<circle cx="{knob:.0f}" cy="{y + 14.5}" r="13" fill="{color}" fill-opacity="0.4" filter="url(#glow)"/>'
            yield f'<circle cx="{knob:.0f}" cy="{y + 14.5}" r="7" fill="#0c1224" stroke="{color}" stroke-width="3.4"/>'
            yield text(f"{knob:.0f}", y + 42, "clamp", color, 16, "middle")


def output():
    y = 404
    color = LATENTS[CLAMPED][1]
    yield f'<path d="M36 {y - 38}H684" stroke="#fff" stroke-opacity="0.14"/>'
    yield text(36, y, "without", "#8f9bb8", 16)
    yield text(132, y, PLAIN)
    yield text(36, y + 40, "with clamp", color, 16)
    for i, line in enumerate(STEERED):
        yield text(132, y + 40 + 27 * i, line, color)


def captions():
    for x, words, anchor in [(36, "text", "start"), (222, "residual stream", "middle"), (332, "SAE", "middle"),
                             (GRID[2], "latents", "middle"), (LABEL, "meaning", "start")]:
        yield text(x, 46, words, "#8f9bb8", 16, anchor)


def main():
    body = "\n".join(part for layer in (captions, words, model, prism, latents, meanings, output) for part in layer())
    svg = f'''<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" role="img" font-family="Inter, 'Segoe UI', system-ui, -apple-system, 'Helvetica Neue', Arial, sans-serif">
<title>Text goes through a model as a beam; a prism splits it into a few latents, each with a meaning; clamping one changes what the model writes</title>
<defs>
<linearGradient id="night" x1="0" y1="0" x2="1" y2="1"><stop offset="0" stop-color="#0b1020"/><stop offset="1" stop-color="#161f3d"/></linearGradient>
<linearGradient id="glass" x1="0" y1="0" x2="1" y2="1"><stop offset="0" stop-color="#fff" stop-opacity="0.22"/><stop offset="1" stop-color="#9fb4ff" stop-opacity="0.06"/></linearGradient>
<filter id="glow" x="-50%" y="-50%" width="200%" height="200%" filterUnits="objectBoundingBox"><feGaussianBlur stdDeviation="4"/></filter>
</defs>
<rect x="0.5" y="0.5" width="{WIDTH - 1}" height="{HEIGHT - 1}" rx="18" fill="url(#night)" stroke="#2c3760"/>
{body}
</svg>
'''
    Path(__file__).with_name("picture.svg").write_text(svg, encoding="utf-8")


if __name__ == "__main__":
    main()
