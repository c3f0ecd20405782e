//! `refract merge`.

use analyzer::ArtifactKind;
use harvester::Location;

use crate::{cli::MergeArgs, terminal::Terminal};

pub(crate) fn run(args: &MergeArgs, terminal: &Terminal) -> anyhow::Result<()> {
    let first = args.folders.first().map(|folder| ArtifactKind::of(folder));
    if let Some(Ok(ArtifactKind::Features)) = first {
        let manifest = analyzer::merge_indexes(&args.folders, None, &args.out, terminal)?;
        terminal.report(args.out.display(), &manifest.summary());
        return terminal
            .json(&serde_json::json!({ "out": args.out, "d_sae": manifest.d_sae, "tokens": manifest.tokens }));
    }
    let folders: Vec<_> = args.folders.iter().map(|folder| Location::named(folder)).collect::<Result<_, _>>()?;
    let manifest = harvester::merge(&folders, Location::named(&args.out)?, terminal)?;
    terminal.report(args.out.display(), &[manifest.to_string()]);
    terminal.json(&serde_json::json!({ "out": args.out, "counts": manifest.counts, "complete": manifest.complete }))
}
