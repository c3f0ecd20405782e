//! `refract compare`: the latents that two SAEs share.

use analyzer::CompareConfig;

use crate::{cli::CompareArgs, terminal::Terminal};

pub(crate) fn run(args: &CompareArgs, terminal: &Terminal) -> anyhow::Result<()> {
    let [first, second] = [&args.saes[0], &args.saes[1]];
    let config = CompareConfig { tokens: args.tokens };
    let comparison = analyzer::compare_at([first, second], args.activations.as_deref(), &config, terminal)?;
    terminal.facts(&comparison.facts());
    for (heading, latents) in comparison.only_here(args.top) {
        terminal.heading(&heading);
        terminal.line(format!("  {latents}"));
    }
    terminal.json(&comparison)
}
