//! Small synthetic datasets for the tests of the writer and the reader.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::{ops::Range, path::Path};

use super::{Layout, ShardWriter, manifest::tests::example};
use crate::{
    HarvestConfig, HarvestManifest, HookPoint, HookPointSummary, StorageDtype,
    numbers::HookPointStatistics,
    text::{Context, ContextCursor},
};

/// A manifest without parts for the hook point `hook_embed`.
pub(crate) fn manifest(d_model: usize, ctx_len: usize, part_tokens: usize, dtype: StorageDtype) -> HarvestManifest {
    let hook_points = vec![HookPoint::Embed];
    let config = HarvestConfig { hook_points, ctx_len, part_tokens, dtype, ..HarvestConfig::default() };
    let mut manifest = example(d_model, config);
    let empty = HookPointStatistics::new(d_model, f32::MAX);
    manifest.hook_points = vec![HookPointSummary::new(HookPoint::Embed, &empty)];
    manifest
}

/// Contexts with the given numbers and their values at one hook point; all values differ.
pub(crate) fn contexts(d_model: usize, ctx_len: usize, indices: Range<u64>) -> (Vec<Context>, Vec<Vec<f32>>) {
    let length = (ctx_len * d_model) as u64;
    let values = (indices.start * length..indices.end * length).map(|i| (i as f32).sin() * 7.0 + 0.1).collect();
    let context = |index: u64| Context {
        index,
        tokens: (0..ctx_len as u32).map(|position| index as u32 * 10 + position).collect(),
        documents: vec![index / 2; ctx_len],
        roles: vec![],
        next: ContextCursor {
            contexts: index + 1,
            documents: index / 2,
            tokens: index % 2,
            ..ContextCursor::default()
        },
    };
    (indices.map(context).collect(), vec![values])
}

/// Contexts of 1 to `ctx_len` tokens, and their values at one hook point.
pub(crate) fn uneven_contexts(d_model: usize, ctx_len: usize, indices: Range<u64>) -> (Vec<Context>, Vec<Vec<f32>>) {
    let (mut contexts, values) = contexts(d_model, ctx_len, indices);
    for context in &mut contexts {
        let length = 1 + (context.index as usize * 7) % ctx_len;
        context.tokens.truncate(length);
        context.documents.truncate(length);
    }
    let kept = contexts.iter().zip(values[0].chunks(ctx_len * d_model));
    let kept = kept.flat_map(|(context, values)| &values[..context.tokens.len() * d_model]).copied().collect();
    (contexts, vec![kept])
}

/// The stored values that the rows must have: rounded by the test's own formulas.
pub(crate) fn rounded(dtype: StorageDtype, d_model: usize, values: &[f32]) -> Vec<f32> {
    let round = |row: &[f32]| -> Vec<f32> {
        match dtype {
            StorageDtype::F32 => row.to_vec(),
            StorageDtype::F16 => row.iter().map(|value| half::f16::from_f32(*value).to_f32()).collect(),
            StorageDtype::I8 => {
                let step = row.iter().map(|value| value.abs()).fold(0.0, f32::max) / 127.0;
                row.iter().map(|value| (value / step).round_ties_even() * step).collect()
            }
        }
    };
    values.chunks(d_model).flat_map(round).collect()
}

/// Every way of storing values.
pub(crate) fn storages() -> impl Iterator<Item = (StorageDtype, Layout)> {
    let dtypes = [StorageDtype::F32, StorageDtype::F16, StorageDtype::I8];
    dtypes.into_iter().flat_map(|dtype| [(dtype, Layout::List), (dtype, Layout::Binary)])
}

/// Writes all contexts and finishes the folder.
pub(crate) fn write(dir: &Path, manifest: HarvestManifest, indices: Range<u64>) -> HarvestManifest {
    let summary = &manifest.hook_points[0];
    let (contexts, values) = contexts(summary.d_model, manifest.config.ctx_len, indices);
    let mut writer = ShardWriter::open(dir, manifest).unwrap();
    writer.write(&contexts, &values).unwrap();
    writer.finish().unwrap()
}
