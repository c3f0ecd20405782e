//! `refract merge`.

use analyzer::ArtifactKind;
use harvester::{
    Location,
    human::{counted, grouped},
};

use crate::{cli::MergeArgs, index, terminal::Terminal};

pub(crate) fn run(args: &MergeArgs, terminal: &Terminal) -> anyhow::Result<()> {
    let first = args.folders.first().map(|folder| ArtifactKind::of(folder));
    if let Some(Ok(ArtifactKind::Features)) = first {
        let manifest = analyzer::merge_indexes(&args.folders, None, &args.out, terminal)?;
        index::report(&manifest, &args.out.display().to_string(), terminal);
        return terminal
            .json(&serde_json::json!({ "out": args.out, "d_sae": manifest.d_sae, "tokens": manifest.tokens }));
    }
    let folders: Vec<_> = args.folders.iter().map(|folder| Location::named(folder)).collect::<Result<_, _>>()?;
    let manifest = harvester::merge(&folders, Location::named(&args.out)?, terminal)?;
    terminal.line(format!(
        "{}: {} tokens in {} from {} of the corpus",
        args.out.display(),
        grouped(manifest.counts.tokens),
        counted(manifest.counts.contexts, "context"),
        counted(manifest.merged_from.unwrap_or(1), "part"),
    ));
    terminal.json(&serde_json::json!({ "out": args.out, "counts": manifest.counts, "complete": manifest.complete }))
}
