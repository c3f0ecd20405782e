#!/usr/bin/env python3
"""Opens SAE folders of refract in SAELens and compares the results of both on the same activations.

    python saelens.py --make-x SAE_DIR X.safetensors                                            (random activations)
    cargo run --release -p trainer --example encode -- SAE_DIR X.safetensors OUT.safetensors   (our results)
    python saelens.py SAE_DIR X.safetensors OUT.safetensors                                     (compared with theirs)

X holds `x` [n, d_in], around b_dec; OUT holds `feature_acts` [n, d_sae] and `x_hat` [n, d_in]. formats.py
converts SAEs of other tools; this program is for our own: `just interop-saes` trains one of each architecture on a
tiny model. Needs sae-lens 6.
"""
import sys

import torch
from sae_lens import SAE
from safetensors.torch import load_file, save_file


def make_x(sae_dir, path):
    sae = SAE.load_from_disk(sae_dir)
    generator = torch.Generator().manual_seed(0)
    spread = sae.b_dec.norm() / sae.cfg.d_in**0.5 + 1e-3
    noise = torch.randn(200, sae.cfg.d_in, generator=generator)
    with torch.no_grad():
        # Far enough from b_dec that latents are active.
        while (sae.encode(sae.b_dec + spread * noise) > 0).sum(1).float().mean() < 1:
            spread *= 2
    x = sae.b_dec.detach() + spread * noise
    save_file({"x": x.contiguous()}, path)


def compare(sae_dir, x_path, ours_path):
    sae = SAE.load_from_disk(sae_dir)
    x, ours = load_file(x_path)["x"], load_file(ours_path)
    with torch.no_grad():
        acts = sae.encode(x)
        x_hat = sae.decode(acts)
    print(f"{sae_dir}: {sae.cfg.architecture()}, d_in {sae.cfg.d_in}, d_sae {sae.cfg.d_sae}, {sae.cfg.metadata.hook_name}")
    same = ((acts > 0) == (ours["feature_acts"] > 0)).float().mean().item()
    print(f"  L0 {(acts > 0).float().sum(1).mean():.2f}; same latents active in {100 * same:.5f} % of (token, latent) pairs")
    assert same == 1, "other latents"
    for name, theirs in [("feature_acts", acts), ("x_hat", x_hat)]:
        error = ((ours[name] - theirs).norm() / theirs.norm()).item()
        print(f"  {name}: relative difference {error:.2e}")
        assert error < 1e-5, name


if __name__ == "__main__":
    if sys.argv[1] == "--make-x":
        make_x(*sys.argv[2:])
    else:
        compare(*sys.argv[1:])
