//! What storing activations in fewer bits costs: the fraction of variance that rounding loses, and what the model's
//! next-token loss becomes when it goes on from the stored values. The table in data/README.md is this program's output.
//!
//! `cargo run --release -p analyzer --example storage_cost -- [CONTEXTS] [HOOK_POINT]`

#![expect(clippy::print_stdout, reason = "a program that reports on standard output")]

use std::{error::Error, path::Path};

use candle_core::{Device, Tensor};
use harvester::{
    ActivationDataset, Checkpoint, Corpus, CorpusOptions, HarvestConfig, Hook, HookPoint, NoHook, Silent, StorageDtype,
    Transformer, harvest, model_source::ModelSource,
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const CTX_LEN: usize = 256;

/// Puts `values` in place of the activation at `point`.
struct Replace {
    point: HookPoint,
    values: Tensor,
}

impl Hook for Replace {
    fn wants(&self, point: HookPoint) -> bool {
        point == self.point
    }

    fn apply(&mut self, _point: HookPoint, _activation: &Tensor) -> harvester::Result<Option<Tensor>> {
        Ok(Some(self.values.clone()))
    }
}

/// Mean next-token loss of one context, in nats. `tokens`: `[1, pos]`
fn ce_loss(model: &Transformer, tokens: &Tensor, hook: &mut dyn Hook) -> Result<f64, Box<dyn Error>> {
    let logits = model.unembed(&model.resid_final(tokens, None, hook)?)?.squeeze(0)?; // [pos, d_vocab]
    let pos = logits.dim(0)?;
    let next = tokens.squeeze(0)?.narrow(0, 1, pos - 1)?;
    Ok(f64::from(candle_nn::loss::cross_entropy(&logits.narrow(0, 0, pos - 1)?, &next)?.to_scalar::<f32>()?))
}

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let contexts: u64 = args.first().map_or(Ok(64), |arg| arg.parse())?;
    let point: HookPoint = args.get(1).map_or("blocks.14.hook_resid_post", |arg| arg).parse()?;
    let resolved = ModelSource::Default.resolve(&Silent)?;
    let model = Transformer::load(&Checkpoint::open(&resolved.path)?, &Device::Cpu)?;
    let corpora = Path::new(env!("CARGO_MANIFEST_DIR")).join("../data/corpora");
    let names = ["code", "fiction", "languages", "prose", "speeches"];
    let paths: Vec<_> = names.iter().map(|name| corpora.join(format!("{name}.jsonl"))).collect();
    let folder = tempfile::tempdir()?;
    let stored = |dtype: StorageDtype| -> Result<ActivationDataset, Box<dyn Error>> {
        let out = folder.path().join(dtype.to_string());
        let tokens = Some(contexts * CTX_LEN as u64);
        let config = HarvestConfig { hook_points: vec![point], ctx_len: CTX_LEN, tokens, dtype, ..Default::default() };
        harvest(&resolved, &Corpus::open(&paths, &CorpusOptions::default())?, &config, &out, &Silent)?;
        Ok(ActivationDataset::open(&out)?)
    };
    let exact = stored(StorageDtype::F32)?;
    println!("{point} of {}, {} tokens", resolved.source, exact.n_rows());
    println!("| dtype | bytes a value | FVU of rounding | CE loss | added |\n| --- | --- | --- | --- | --- |");
    let mut ce_of_f32 = 0.0;
    for dtype in [StorageDtype::F32, StorageDtype::F16, StorageDtype::I8] {
        let dataset = stored(dtype)?;
        let (fvu, ce) = cost(&model, point, &exact, &dataset)?;
        if dtype == StorageDtype::F32 {
            ce_of_f32 = ce;
        }
        let bytes = dtype.row_bytes(dataset.manifest().hook_point(point)?.d_model) as f64;
        let a_value = bytes / dataset.manifest().hook_point(point)?.d_model as f64;
        println!("| {dtype} | {a_value:.2} | {fvu:.2e} | {ce:.5} | {:+.5} |", ce - ce_of_f32);
    }
    Ok(())
}

/// FVU of `stored` against `exact` over the rows that SAEs are trained on, and the loss over every token where these rows
/// are the stored ones.
fn cost(
    model: &Transformer,
    point: HookPoint,
    exact: &ActivationDataset,
    stored: &ActivationDataset,
) -> Result<(f64, f64), Box<dyn Error>> {
    let summary = exact.manifest().hook_point(point)?;
    let (mut error, mut variance, mut loss, mut n) = (0.0, 0.0, 0.0, 0);
    for (group, other) in exact.row_groups().iter().zip(stored.row_groups()) {
        let (a, b) = (exact.read(*group, point)?, stored.read(*other, point)?);
        let (x, mut y) = (a.to_f32(), b.to_f32().into_owned());
        for (row, (x, y)) in x.chunks_exact(a.d_model).zip(y.chunks_exact_mut(a.d_model)).enumerate() {
            if a.is_ordinary(row, summary.sink_norm) {
                error += x.iter().zip(&*y).map(|(x, y)| f64::from(x - y).powi(2)).sum::<f64>();
                variance += x.iter().zip(&summary.mean).map(|(x, mean)| f64::from(x - mean).powi(2)).sum::<f64>();
            } else {
                y.copy_from_slice(x); // sinks stay what they are, as in training, evaluation and steering
            }
        }
        for rows in b.rows.contexts() {
            let tokens = Tensor::from_slice(&b.rows.token[rows.clone()], (1, rows.len()), &Device::Cpu)?;
            let values = &y[rows.start * b.d_model..rows.end * b.d_model];
            let values = Tensor::from_slice(values, (1, rows.len(), b.d_model), &Device::Cpu)?;
            loss += ce_loss(model, &tokens, &mut Replace { point, values })?;
            n += 1;
            if n == 1 && stored.manifest().config.dtype == StorageDtype::F32 {
                let untouched = ce_loss(model, &tokens, &mut NoHook)?;
                assert!(
                    (untouched - loss).abs() < 1e-4,
                    "what was stored in f32 is what the model computes: {untouched}, {loss}"
                );
            }
        }
    }
    Ok((error / variance, loss / f64::from(n)))
}
