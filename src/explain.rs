//! `refract explain`.

use analyzer::FeatureIndex;

use crate::{cli::ExplainArgs, settings, terminal::Terminal};

pub(crate) fn run(args: &ExplainArgs, terminal: &Terminal) -> anyhow::Result<()> {
    let bench = args.sae.source()?.workbench(None, terminal)?;
    let index = args.features.as_deref().map(FeatureIndex::open).transpose()?;
    let found = analyzer::explain(&bench, &args.text, index.as_ref(), &settings::config(&args.config)?, terminal)?;
    terminal.line(found.to_string().trim_end());
    terminal.json(&found)
}
