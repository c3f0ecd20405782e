//! Small made-up datasets for the tests of the writer and the reader.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::{ops::Range, path::Path};

use super::{ShardWriter, StorageDtype};
use crate::{
    HarvestConfig, HarvestManifest, HookPoint,
    contexts::{Context, ContextCursor},
    manifest::{HookPointSummary, tests::example},
    stats::HookPointStatistics,
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

/// Contexts with the given numbers and their values at one hook point, all different from each other.
pub(crate) fn contexts(d_model: usize, ctx_len: usize, indices: Range<u64>) -> (Vec<Context>, Vec<Vec<f32>>) {
    let length = (ctx_len * d_model) as u64;
    let values = (indices.start * length..indices.end * length).map(|i| (i as f32).sin() * 7.0 + 0.1).collect();
    let context = |index: u64| Context {
        index,
        tokens: (0..ctx_len as u32).map(|position| index as u32 * 10 + position).collect(),
        documents: vec![index / 2; ctx_len],
        next: ContextCursor { contexts: index + 1, documents: index / 2, tokens: index % 2 },
    };
    (indices.map(context).collect(), vec![values])
}

/// Writes contexts to the end.
pub(crate) fn write(dir: &Path, manifest: HarvestManifest, indices: Range<u64>) -> HarvestManifest {
    let summary = &manifest.hook_points[0];
    let (contexts, values) = contexts(summary.d_model, manifest.config.ctx_len, indices);
    let mut writer = ShardWriter::open(dir, manifest).unwrap();
    writer.write(&contexts, &values).unwrap();
    writer.finish(0).unwrap()
}
