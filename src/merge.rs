//! `refract merge`.

use harvester::Location;

use crate::{
    cli::MergeArgs,
    terminal::{Terminal, grouped},
};

pub(crate) fn run(args: &MergeArgs, terminal: &Terminal) -> anyhow::Result<()> {
    let folders: Vec<_> = args.folders.iter().map(|folder| Location::named(folder)).collect::<Result<_, _>>()?;
    let manifest = harvester::merge(&folders, Location::named(&args.out)?, terminal)?;
    terminal.line(format!(
        "{}: {} tokens in {} contexts from {} parts of the corpus",
        args.out.display(),
        grouped(manifest.counts.tokens),
        grouped(manifest.counts.contexts),
        manifest.merged_from.unwrap_or(1),
    ));
    terminal.json(&serde_json::json!({ "out": args.out, "counts": manifest.counts, "complete": manifest.complete }))
}
