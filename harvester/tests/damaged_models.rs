//! Thousands of damaged model files, seeded: with bytes cut off or flipped or with too large lengths, opening and
//! loading end in an error or a model, never in a panic, and never allocate more than a small multiple of the file.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    collections::BTreeMap,
    fs::{self, File},
    path::{Path, PathBuf},
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
};

use candle_core::{
    Device,
    quantized::gguf_file::{self, Content, Value},
};
use harvester::{Batch, Compute, LanguageModel, ModelSource, NoHook, Silent};
use rand_chacha::{
    ChaCha8Rng,
    rand_core::{RngCore, SeedableRng},
};

/// The system's allocator, which also counts.
struct Counting;

static HELD: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);
static LARGEST: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call is handed to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        PEAK.fetch_max(HELD.fetch_add(layout.size(), Relaxed) + layout.size(), Relaxed);
        LARGEST.fetch_max(layout.size(), Relaxed);
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size(), Relaxed);
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// An element of a list takes 32 bytes in memory and at least one byte in the file; a growing list is held twice.
const FACTOR: usize = 64;
/// Buffers whose size does not depend on the file: those of readers and of the thread pool.
const BASE: usize = 4 << 20;

fn fixture(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures").join(name)
}

/// A copy of a GGUF fixture, with a small tokenizer: a model without one is refused before its weights are read.
fn copy_with_tokenizer(name: &str, to: &Path) {
    let mut file = File::open(fixture("gguf").join(name)).unwrap();
    let content = Content::read(&mut file).unwrap();
    // Sorted, so that every run damages the same bytes.
    let mut metadata: BTreeMap<_, _> =
        content.metadata.iter().map(|(key, value)| (key.as_str(), value.clone())).collect();
    let texts = |texts: &[&str]| Value::Array(texts.iter().map(|text| Value::String(text.to_string())).collect());
    metadata.extend([
        ("tokenizer.ggml.model", Value::String("gpt2".into())),
        ("tokenizer.ggml.pre", Value::String("smollm".into())),
        ("tokenizer.ggml.tokens", texts(&["<s>", "a", "b", "ab"])),
        ("tokenizer.ggml.merges", texts(&["a b"])),
        ("tokenizer.ggml.token_type", Value::Array([3, 1, 1, 1].map(Value::I32).to_vec())),
        ("tokenizer.ggml.bos_token_id", Value::U32(0)),
        ("tokenizer.ggml.eos_token_id", Value::U32(0)),
    ]);
    let tensor = |name: &String| (name.clone(), content.tensor(&mut file, name, &Device::Cpu).unwrap());
    let tensors: BTreeMap<_, _> = content.tensor_infos.keys().map(tensor).collect();
    let metadata: Vec<_> = metadata.iter().map(|(key, value)| (*key, value)).collect();
    let tensors: Vec<_> = tensors.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect();
    gguf_file::write(&mut File::create(to).unwrap(), &metadata, &tensors).unwrap();
}

/// Damages a copy of a file, mostly in its first `reach` bytes, which hold the lengths.
fn damaged(whole: &[u8], reach: usize, rng: &mut ChaCha8Rng) -> Vec<u8> {
    let mut bytes = whole.to_vec();
    let mut below = |n: usize| (rng.next_u64() % n.max(1) as u64) as usize;
    match below(5) {
        0 => bytes.truncate(below(whole.len())),
        1 => bytes.truncate(below(reach)),
        2 => {
            for _ in 0..1 + below(4) {
                bytes[below(reach)] ^= 1 << below(8);
            }
        }
        3 => {
            // A length of 8 bytes becomes huge, or only too large.
            let at = below(reach - 8);
            let huge = [u64::MAX, u64::MAX / 2, 1 << 62, 1 << 40, 1 << 31, 1 << 20, whole.len() as u64, 0];
            bytes[at..at + 8].copy_from_slice(&huge[below(huge.len())].to_le_bytes());
        }
        _ => {
            let (from, to, n) = (below(reach), below(reach), below(64));
            let piece = whole[from..(from + n).min(whole.len())].to_vec();
            let end = (to + piece.len()).min(bytes.len());
            bytes[to..end].copy_from_slice(&piece[..end - to]);
        }
    }
    bytes
}

/// Opens everything in a model that can be opened; returns the message if it is refused.
fn open(path: &Path) -> Result<(), String> {
    let source = ModelSource::Folder(path.to_path_buf());
    let model = LanguageModel::open(&source, Compute::F32, &Silent).map_err(|error| error.to_string())?;
    model.run(&Batch::default(), &mut NoHook).map_err(|error| error.to_string())
}

/// Damages `file` `n` times and opens `model`; returns how often it was refused.
fn refusals(model: &Path, file: &Path, n: usize, reach: usize) -> usize {
    let whole = fs::read(file).unwrap();
    open(model).unwrap(); // allocates the buffers that stay
    let mut rng = ChaCha8Rng::seed_from_u64(20);
    let mut refused = 0;
    for round in 0..n {
        let bytes = damaged(&whole, reach.min(whole.len()), &mut rng);
        fs::write(file, &bytes).unwrap();
        let before = HELD.load(Relaxed);
        PEAK.store(before, Relaxed);
        let outcome = open(model);
        let peak = PEAK.load(Relaxed).saturating_sub(before);
        assert!(peak < BASE + FACTOR * whole.len(), "round {round}: {peak} bytes allocated, {outcome:?}");
        if let Err(message) = outcome {
            assert!(message.contains(&*model.file_name().unwrap().to_string_lossy()), "round {round}: {message}");
            refused += 1;
        }
    }
    fs::write(file, whole).unwrap();
    refused
}

/// One test for everything: allocations are counted for the whole process.
#[test]
fn damaged_files_are_refused_without_panic_or_huge_allocation() {
    // If a backtrace is requested, candle's errors carry one, and it holds 30 MB of symbols.
    // SAFETY: this is the only test, and it has started no thread yet.
    unsafe { std::env::set_var("RUST_LIB_BACKTRACE", "0") };
    let folder = tempfile::tempdir().unwrap();
    for name in ["gemma3.gguf", "phi3_long.gguf", "quantized_Q5_0.gguf"] {
        let path = folder.path().join(name);
        copy_with_tokenizer(name, &path);
        let refused = refusals(&path, &path, 2_000, 3_000);
        assert!(refused > 1_000, "{name}: only {refused} refused");
    }
    for name in ["qwen3", "gemma3"] {
        let model = folder.path().join(name);
        fs::create_dir(&model).unwrap();
        for file in ["config.json", "model.safetensors"] {
            fs::copy(fixture("tiny").join(name).join(file), model.join(file)).unwrap();
        }
        fs::copy(fixture("tiny/llama/tokenizer.json"), model.join("tokenizer.json")).unwrap();
        let refused = refusals(&model, &model.join("model.safetensors"), 2_000, 4_000);
        assert!(refused > 1_000, "{name}: only {refused} refused");
        let refused = refusals(&model, &model.join("config.json"), 1_000, 1_000);
        assert!(refused > 300, "{name}, config.json: only {refused} refused");
    }
    let largest = LARGEST.load(Relaxed);
    assert!(largest < 64 << 20, "one allocation of {largest} bytes");
}
