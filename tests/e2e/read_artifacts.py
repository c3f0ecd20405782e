"""Opens every artifact of a run with pyarrow, polars and safetensors alone, and checks them against each other.

Usage: read_artifacts.py FOLDER, which holds acts/, sae/ and features/ as tests/e2e/pipeline.rs makes them.
"""
import json
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow.parquet as pq
from safetensors.numpy import load_file

POINT = "blocks.14.hook_resid_post"


def read_activations(folder):
    manifest = json.loads((folder / "manifest.json").read_text())
    tables = [pq.read_table(folder / part["file"]) for part in manifest["parts"]]
    rows = np.concatenate([np.stack(table[POINT].to_numpy(zero_copy_only=False)) for table in tables]).astype(np.float32)
    norms = np.concatenate([table[POINT + ".norm"].to_numpy() for table in tables])
    positions = np.concatenate([table["position"].to_numpy() for table in tables])
    assert rows.shape == (manifest["counts"]["tokens"], 576), rows.shape
    # Norms were taken before rounding to f16.
    assert np.allclose(np.linalg.norm(rows, axis=1), norms, rtol=2e-3)
    frame = pl.read_parquet(folder / manifest["parts"][0]["file"])
    assert np.array_equal(np.stack(frame[POINT].to_numpy()).astype(np.float32), rows[: len(frame)])
    return rows, positions, norms, manifest


def check_statistics(rows, positions, norms, manifest):
    summary = manifest["hook_points"][0]
    kept = rows[(positions > 0) & (norms <= summary["sink_norm"])].astype(np.float64)
    # Statistics are of the values before rounding to f16, whose unit is 2^-11 relative.
    assert np.allclose(kept.mean(0), summary["mean"], rtol=1e-2, atol=2e-2)
    assert np.allclose(kept.std(0), summary["std"], rtol=1e-2, atol=2e-2)


def check_metrics(folder):
    """metrics.parquet has the numbers of metrics.jsonl, bit for bit, and the types of data/README.md."""
    table = pq.read_table(folder / "metrics.parquet")
    counts, numbers = ["step", "tokens", "dead"], ["loss", "fvu", "l0", "sparsity_loss", "sparsity_coefficient", "aux_loss", "lr", "grad_norm"]
    numbers.append("held_out_fvu")
    assert {field.name: str(field.type) for field in table.schema} == dict.fromkeys(counts, "uint64") | dict.fromkeys(numbers, "double")
    assert [name for name in table.column_names if table[name].null_count] == ["held_out_fvu"] and table["held_out_fvu"][-1].is_valid
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert len(lines) >= 10 and table.to_pylist() == [{name: line[name] for name in table.column_names} for line in lines]
    frame = pl.read_parquet(folder / "metrics.parquet")
    results = json.loads((folder / "manifest.json").read_text())["results"]
    assert (frame["step"][-1], frame["tokens"][-1], frame["fvu"][-1]) == (results["steps"], results["tokens"], results["last_fvu"])
    assert frame["step"].is_sorted() and frame["fvu"][-1] < frame["fvu"][0] and (frame["grad_norm"] > 0).all()


def encode(sae, cfg, x):
    """SAELens' formula: (x - b_dec) W_enc + b_enc, kept where it passes its threshold."""
    assert cfg["architecture"] == "jumprelu", cfg["architecture"]
    x = x - sae["b_dec"] if cfg["apply_b_dec_to_input"] else x
    pre = x @ sae["W_enc"] + sae["b_enc"]
    return np.where(pre > sae["threshold"], np.maximum(pre, 0), 0)


def check_features(root, rows, positions, norms, manifest):
    sae = load_file(root / "sae/sae_weights.safetensors")
    cfg = json.loads((root / "sae/cfg.json").read_text())
    kept = (positions > 0) & (norms <= manifest["hook_points"][0]["sink_norm"])
    acts = encode(sae, cfg, rows[kept])
    features = pl.read_parquet(root / "features/features.parquet")
    assert len(features) == cfg["d_sae"]
    # A pre-activation within rounding of its threshold may fall on either side.
    assert np.abs((acts > 0).sum(0) - features["n_active"].to_numpy()).max() <= 3
    assert np.allclose(acts.max(0), features["max"].to_numpy(), rtol=1e-3, atol=1e-2)
    examples = pl.read_parquet(root / "features/examples.parquet")
    first = examples.filter((pl.col("kind") == "top") & (pl.col("rank") == 0))
    maxima = dict(zip(features["latent"].to_list(), features["max"].to_list()))
    assert all(abs(maxima[latent] - act) < 1e-4 for latent, act in zip(first["latent"], first["activation"]))


def check_latents(root, rows, positions, norms, manifest):
    """latents.parquet has what the formula gives, for every token."""
    sae = load_file(root / "sae/sae_weights.safetensors")
    cfg = json.loads((root / "sae/cfg.json").read_text())
    kept = (positions > 0) & (norms <= manifest["hook_points"][0]["sink_norm"])
    acts = np.where(kept[:, None], encode(sae, cfg, rows), 0)
    tables = [pq.read_table(root / "acts" / part["file"]) for part in manifest["parts"]]
    places = {}
    for table in tables:
        for place in zip(*(table[name].to_pylist() for name in ["document", "context", "position", "token"])):
            places[place] = len(places)
    table = pq.read_table(root / "features/latents.parquet")
    columns = [table[name].to_pylist() for name in ["document", "context", "position", "token"]]
    at = [places[place] for place in zip(*columns)]
    found = np.zeros_like(acts)
    found[at, table["latent"].to_numpy()] = table["activation"].to_numpy()
    assert (found > 0).sum() == table.num_rows, "each token and latent once"
    # A pre-activation within rounding of its threshold may fall on either side.
    either_side = (found > 0) != (acts > 0)
    assert either_side.sum() <= 3, either_side.sum()
    assert np.allclose(found[~either_side], acts[~either_side], rtol=1e-3, atol=1e-2)
    order = list(zip(at, table["latent"].to_pylist()))
    assert order == sorted(order)


def main():
    root = Path(sys.argv[1])
    rows, positions, norms, manifest = read_activations(root / "acts")
    check_statistics(rows, positions, norms, manifest)
    check_metrics(root / "sae")
    check_features(root, rows, positions, norms, manifest)
    check_latents(root, rows, positions, norms, manifest)


if __name__ == "__main__":
    main()
