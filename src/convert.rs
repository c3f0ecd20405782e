//! `refract convert`: writes an SAE in the format of another tool.

use anyhow::Context;
use harvester::Monitor;

use crate::{cli::ConvertArgs, terminal::Terminal};

pub(crate) fn run(args: &ConvertArgs, terminal: &Terminal) -> anyhow::Result<()> {
    let ConvertArgs { sae, to, out, hook_point, model_name } = args;
    let conversion = trainer::convert(sae, *hook_point, model_name.as_deref(), *to, out)
        .with_context(|| format!("{} cannot be written as {to}", sae.display()))?;
    if !conversion.lost.is_empty() {
        terminal.say(&format!("not stored, because {to} has no field for it: {}", conversion.lost.join(", ")));
    }
    terminal.line(conversion.to_string());
    terminal.json(&conversion.to_json())
}
