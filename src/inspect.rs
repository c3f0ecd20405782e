//! `refract inspect`: explains what a path names, and checks on request that it is whole.

use analyzer::{Artifact, Content};

use crate::{cli::InspectArgs, sweep_table, terminal::Terminal};

pub(crate) fn run(args: &InspectArgs, terminal: &Terminal) -> anyhow::Result<()> {
    let artifact = Artifact::open(&args.path, terminal)?;
    terminal.heading(&format!("{}: {}", artifact.path.display(), artifact.title()));
    terminal.facts(artifact.facts().iter());
    if let Content::Sweep(file) = &artifact.content {
        sweep_table::print(&file.runs, terminal);
    }
    if args.verify {
        terminal.facts([("verified", &*artifact.verify(terminal)?)].into_iter());
    }
    terminal.json(&artifact.to_json()?)
}
