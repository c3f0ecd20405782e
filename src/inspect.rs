//! `refract inspect`: explains what a path names, and checks on request that it is whole.

use analyzer::{Artifact, Content};
use trainer::SweepRow;

use crate::{
    cli::InspectArgs,
    terminal::{Terminal, with_flags},
};

pub(crate) fn run(args: &InspectArgs, terminal: &Terminal) -> anyhow::Result<()> {
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
