//! `refract merge`.

use crate::{cli::MergeArgs, terminal::Terminal};

pub(crate) fn run(args: &MergeArgs, terminal: &Terminal) -> anyhow::Result<()> {
    let merged = analyzer::merge(&args.folders, &args.out, terminal)?;
    terminal.report(args.out.display(), &merged.summary());
    terminal.json(&merged.to_json(&args.out))
}
