//! Cost of storing activations in fewer bits: the fraction of variance lost to rounding, and the model's losses when
//! rounded activations replace the exact ones.
//!
//! `cargo run --release --example storage_cost --package harvester -- HOOK_POINT.. [--model MODEL] [--contexts N]`
//!
//! ```text
//! FVU = sum |x - stored(x)|^2 / sum |x - mean|^2          over rows at position > 0 that are not attention sinks
//! CE  = mean of -log p(next token), with the activation at every position replaced by stored(x)
//! KL  = mean of KL(p exact || p stored)
//! ```

#![expect(clippy::print_stdout, reason = "a measurement reports on standard output")]

use std::path::PathBuf;

use candle_core::Tensor;
use harvester::{
    Batch, Compute, ContextCursor, Corpus, CorpusOptions, Edit, HarvestConfig, Hook, HookPoint, LanguageModel,
    LiveModel, ModelSource, Result, Rows, SINK_MULTIPLE, Silent, StorageDtype, StreamedBatch, norm,
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const CTX_LEN: usize = 256;
const DTYPES: [StorageDtype; 2] = [StorageDtype::F16, StorageDtype::I8];

/// Runs one text from the hook point on once with each of `rows`: exact, and as stored in each of [`DTYPES`].
struct Stored<'a> {
    point: HookPoint,
    /// `[pos, width]` each.
    rows: &'a [Vec<f32>],
}

impl Hook for Stored<'_> {
    fn wants(&self, point: HookPoint) -> bool {
        point == self.point
    }

    fn apply(&mut self, _point: HookPoint, _rows: &Rows, activation: &Tensor) -> Result<Edit> {
        let variants = self.rows.iter().map(|rows| Tensor::from_slice(rows, activation.shape(), activation.device()));
        Ok(Edit::Variants(variants.collect::<candle_core::Result<_>>()?))
    }
}

/// Sums over tokens.
#[derive(Default)]
struct Sums {
    rows: Vec<Vec<f32>>,
    errors: [f64; 2],
    cross_entropy: [f64; 3],
    kl: [f64; 2],
    predictions: f64,
}

impl Sums {
    /// Adds a context; `rows` are as in [`Stored`].
    fn add(&mut self, model: &LanguageModel, point: HookPoint, tokens: &[u32], rows: &[Vec<f32>]) -> Result<()> {
        let resid = model.resid_final(&Batch::of([tokens]), None, &mut Stored { point, rows })?;
        let log_probs = candle_nn::ops::log_softmax(&model.unembed(&resid)?, 1)?;
        let log_probs = log_probs.reshape((3, tokens.len(), ()))?; // [3, pos, d_vocab]
        for (position, target) in tokens[1..].iter().enumerate() {
            let of_token: Vec<Vec<f32>> = (0..3)
                .map(|variant| log_probs.get(variant)?.get(position)?.to_vec1())
                .collect::<candle_core::Result<_>>()?;
            for (sum, row) in self.cross_entropy.iter_mut().zip(&of_token) {
                *sum -= f64::from(row[*target as usize]);
            }
            for (sum, row) in self.kl.iter_mut().zip(&of_token[1..]) {
                let terms = of_token[0].iter().zip(row).map(|(p, q)| f64::from(p.exp()) * f64::from(p - q));
                *sum += terms.sum::<f64>();
            }
            self.predictions += 1.0;
        }
        self.add_rows(rows, rows[0].len() / tokens.len());
        Ok(())
    }

    fn add_rows(&mut self, rows: &[Vec<f32>], width: usize) {
        let mut norms: Vec<f32> = rows[0].chunks(width).skip(1).map(norm).collect();
        norms.sort_by(f32::total_cmp);
        let sink_norm = SINK_MULTIPLE * norms[norms.len() / 2];
        for (row, exact) in rows[0].chunks(width).enumerate().skip(1).filter(|(_, exact)| norm(exact) <= sink_norm) {
            for (error, stored) in self.errors.iter_mut().zip(&rows[1..]) {
                let stored = &stored[row * width..(row + 1) * width];
                *error += exact.iter().zip(stored).map(|(x, y)| f64::from(x - y).powi(2)).sum::<f64>();
            }
            self.rows.push(exact.to_vec());
        }
    }

    /// Sum of squared distances from the mean.
    fn variance(&self) -> f64 {
        let (n, width) = (self.rows.len() as f64, self.rows[0].len());
        (0..width)
            .map(|i| {
                let mean = self.rows.iter().map(|row| f64::from(row[i])).sum::<f64>() / n;
                self.rows.iter().map(|row| (f64::from(row[i]) - mean).powi(2)).sum::<f64>()
            })
            .sum()
    }
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let option = |name: &str| args.iter().position(|arg| arg == name).map(|place| args[place + 1].clone());
    let points = args.iter().take_while(|arg| !arg.starts_with("--"));
    let points: Vec<HookPoint> = points.map(|point| point.parse().expect("a hook point")).collect();
    let source: ModelSource = option("--model").as_deref().unwrap_or("default").parse().expect("a model");
    let n = option("--contexts").map_or(16, |n| n.parse().expect("a number"));
    let model = LanguageModel::open(&source, Compute::F32, &Silent).expect("a model");
    let [f16, int8] = DTYPES;
    let stored = [StorageDtype::F32, f16, int8].map(|dtype| activations(&model, &points, dtype, n).expect("rows"));
    println!("hook point dtype: FVU, CE without and with, KL; {n} contexts of {CTX_LEN}");
    for (column, point) in points.into_iter().enumerate() {
        let mut sums = Sums::default();
        for context in 0..n {
            let of_context = stored.each_ref().map(|batches| &batches[context].activations[column]);
            let rows = of_context.map(|rows| rows.values.to_f32().into_owned());
            sums.add(&model, point, &of_context[0].rows.token, &rows).expect("a pass");
        }
        let (variance, n) = (sums.variance(), sums.predictions);
        for (i, dtype) in DTYPES.iter().enumerate() {
            let fvu = sums.errors[i] / variance;
            let (without, with, kl) = (sums.cross_entropy[0] / n, sums.cross_entropy[i + 1] / n, sums.kl[i] / n);
            println!("{point} {dtype}: FVU {fvu:.2e}, CE {without:.5} {with:.5} ({:+.5}), KL {kl:.2e}", with - without);
        }
    }
}

/// The first contexts of the bundled corpora, shuffled, as a harvest in `dtype` stores them.
fn activations(
    model: &LanguageModel,
    points: &[HookPoint],
    dtype: StorageDtype,
    n: usize,
) -> Result<Vec<StreamedBatch>> {
    let corpora = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../data/corpora");
    let paths = ["code", "fiction", "speeches"].map(|name| corpora.join(format!("{name}.jsonl")));
    let corpus = Corpus::open(&paths, &CorpusOptions::default())?;
    let (document_tokens, hook_points) = (Some(512), points.to_vec());
    let config =
        HarvestConfig { document_tokens, ctx_len: CTX_LEN, batch: 1, hook_points, dtype, ..Default::default() };
    LiveModel::new(model, corpus, &config)?.stream(points, ContextCursor::default())?.take(n).collect()
}
