//! `refract merge`.

use harvester::{
    Location,
    human::{counted, grouped},
};

use crate::{cli::MergeArgs, terminal::Terminal};

pub(crate) fn run(args: &MergeArgs, terminal: &Terminal) -> anyhow::Result<()> {
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
