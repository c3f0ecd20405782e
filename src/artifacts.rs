//! The commands on what other commands wrote: `refract merge`, `convert` and `inspect`.

use analyzer::{Artifact, Content};
use anyhow::Context;
use harvester::Monitor;
use trainer::SweepRow;

use crate::{
    cli::{ConvertArgs, InspectArgs, MergeArgs},
    terminal::{Terminal, with_flags},
};

pub(crate) fn merge(args: &MergeArgs, terminal: &Terminal) -> anyhow::Result<()> {
    let merged = analyzer::merge(&args.folders, &args.out, terminal)?;
    terminal.report(args.out.display(), &merged.summary());
    terminal.json(&merged.to_json(&args.out))
}

/// Writes an SAE in the format of another tool.
pub(crate) fn convert(args: &ConvertArgs, terminal: &Terminal) -> anyhow::Result<()> {
    let ConvertArgs { sae, to, out, hook_point, model_name } = args;
    let conversion = trainer::convert(sae, *hook_point, model_name.as_deref(), *to, out)
        .with_context(|| format!("{} cannot be written as {to}", sae.display()))?;
    if !conversion.lost.is_empty() {
        terminal.say(&format!("not stored, because {to} has no field for it: {}", conversion.lost.join(", ")));
    }
    terminal.line(conversion.to_string());
    terminal.json(&conversion.to_json())
}

/// Explains what a path names, and checks on request that it is whole.
pub(crate) fn inspect(args: &InspectArgs, terminal: &Terminal) -> anyhow::Result<()> {
    let artifact = Artifact::open(&args.path, terminal)?;
    terminal.heading(&format!("{}: {}", artifact.path.display(), artifact.title()));
    artifact.facts().iter().for_each(|(name, value)| terminal.fact(name, &with_flags(value)));
    if let Content::Sweep(file) = &artifact.content {
        terminal.tables(&SweepRow::tables(&file.runs));
    }
    if args.verify {
        terminal.fact("verified", &artifact.verify(terminal)?);
    }
    terminal.json(&artifact.to_json()?)
}
