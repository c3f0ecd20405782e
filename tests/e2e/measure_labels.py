"""Measures the rules of labels.parquet again, from the other tables, as analyzer/README.md says.

Usage: measure_labels.py FEATURES, a folder whose sample holds the whole text, with latents.parquet.
"""
import re
import sys
from pathlib import Path

import numpy as np
import polars as pl


def half(number):
    """0: the half on which rules are chosen; 1: the half on which they are measured."""
    x = (number ^ (number >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB % 2**64
    return (x ^ (x >> 31)) & 1


def halves(sample):
    """The half of each token that counts; None for the others."""
    split = [[half(number) for number in sample[name]] for name in ("document", "context")]
    is_even = 0.25 <= 1 - np.mean(split[0]) <= 0.75
    of_rows = split[0] if is_even else split[1]
    tokens, context, seen, counted = sample["token"], sample["context"], set(), []
    for row, of_row in enumerate(of_rows):
        window = [at for at in range(row - 6, row + 4) if 0 <= at < len(tokens) and context[at] == context[row]]
        window = tuple(tokens[at] for at in window)
        is_new = len(window) < 10 or window not in seen
        seen.add(window)
        counted.append(of_row if sample["ordinary"][row] and is_new else None)
    return counted


def wilson(successes, n, z=1.959963984540054):
    middle, reach = successes + z * z / 2, z * np.sqrt(successes * (n - successes) / n + z * z / 4)
    return (middle - reach) / (n + z * z), (middle + reach) / (n + z * z)


def main():
    folder = Path(sys.argv[1])
    sample = pl.read_parquet(folder / "sample.parquet").to_dict(as_series=False)
    texts = dict(pl.read_parquet(folder / "tokens.parquet", columns=["token", "text"]).iter_rows())
    max_of = pl.read_parquet(folder / "features.parquet")["max"].to_numpy()
    shown = lambda text: text.replace("\n", "⏎").replace("\t", "⇥")
    word = {token: shown(text.strip().lower() if text.strip() else text) for token, text in texts.items()}
    token, context = sample["token"], sample["context"]
    is_beside = lambda row, other: 0 <= other < len(token) and context[other] == context[row]
    # tokens.parquet has no text for what occurs only at position 0.
    beside = lambda row, other: word.get(token[other]) if is_beside(row, other) else None
    sees = {
        "word": lambda row: word[token[row]],
        "token": lambda row: shown(texts[token[row]]),
        "previous": lambda row: beside(row, row - 1),
        "next": lambda row: beside(row, row + 1),
    }
    reported = [row for row, of_row in enumerate(halves(sample)) if of_row == 1]
    strong = {}
    for row in reported:
        for latent, value in zip(sample["latents"][row], sample["activations"][row]):
            if np.float32(value) > np.float32(0.3) * max_of[latent]:
                strong.setdefault(latent, set()).add(row)

    measured = set()
    for label in pl.read_parquet(folder / "labels.parquet").iter_rows(named=True):
        keys = re.findall(r'"(.*?)"(?=, "|$)', label["rule"])
        if label["kind"] not in sees or not keys or " spaces" in label["rule"]:
            continue
        holds = {row for row in reported if sees[label["kind"]](row) in keys}
        fires = strong.get(label["latent"], set())
        both = len(holds & fires)
        assert (label["firings"], label["holds"]) == (len(fires), len(holds)), label
        assert np.isclose(label["f1"], 2 * both / (len(fires) + len(holds)), atol=1e-6), label
        for name, n in [("precision", len(holds)), ("recall", len(fires))]:
            figures = [label[name], label[f"{name}_low"], label[f"{name}_high"]]
            wanted = [both / n, *wilson(both, n)] if n else [0, 0, 1]
            assert np.allclose(figures, wanted, atol=1e-6), (label, wanted)
        low, high = wilson(both, len(fires | holds))
        wanted = [2 * low / (1 + low), 2 * high / (1 + high)]
        assert np.allclose([label["f1_low"], label["f1_high"]], wanted, atol=1e-6), (label, wanted)
        measured.add((label["kind"], label["latent"]))
    kinds = {kind for kind, _ in measured}
    assert len(measured) >= 50 and len(kinds) >= 3, (len(measured), kinds)

    # The table of all active latents says the same about every token that has one.
    latents = pl.read_parquet(folder / "latents.parquet")
    rows = pl.DataFrame({"row": range(len(token)), **{name: sample[name] for name in sample if name != "source"}})
    rows = rows.explode("latents", "activations").drop_nulls("latents")
    assert len(latents) == len(rows)
    assert latents["latent"].to_list() == rows["latents"].to_list()
    assert latents["activation"].to_list() == rows["activations"].to_list()
    assert latents["document"].to_list() == rows["document"].to_list()
    print(f"{len(measured)} labels measured again: {sorted(kinds)}")


if __name__ == "__main__":
    main()
