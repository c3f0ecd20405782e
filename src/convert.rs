//! `refract convert`: writes an SAE in the format of another tool.

use anyhow::Context;
use harvester::Monitor;
use trainer::Conversion;

use crate::{cli::ConvertArgs, terminal::Terminal};

pub(crate) fn run(args: &ConvertArgs, terminal: &Terminal) -> anyhow::Result<()> {
    let ConvertArgs { sae: path, to, out, hook_point, model_name } = args;
    let Conversion { from, sae, lost } = trainer::convert(path, *hook_point, model_name.as_deref(), *to, out)
        .with_context(|| format!("{} cannot be written as {to}", path.display()))?;
    if !lost.is_empty() {
        terminal.say(&format!("not stored, because {to} has no field for it: {}", lost.join(", ")));
    }
    let (architecture, config) = (sae.architecture().to_string(), sae.config());
    let (d_in, d_sae) = (config.d_in, config.d_sae);
    terminal.line(format!("{}: {architecture}, d_in {d_in}, d_sae {d_sae}, from {from} to {to}", out.display()));
    terminal.json(&serde_json::json!({
        "out": out, "from": from.to_string(), "to": to.to_string(), "architecture": architecture, "d_in": d_in,
        "d_out": config.d_out, "d_sae": d_sae, "hook_point": config.hook_points.reads().first(), "lost": lost,
    }))
}
