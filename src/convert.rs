//! `refract convert`: writes an SAE in the format of another tool.

use anyhow::Context;
use trainer::{Sae, SaeConfig, SaeFormat};

use crate::{cli::ConvertArgs, terminal::Terminal};

pub(crate) fn run(args: &ConvertArgs, terminal: &Terminal) -> anyhow::Result<()> {
    let (mut config, weights) = Sae::load(&args.sae)?.into_parts();
    let from = SaeFormat::of(&args.sae)?;
    complete(&mut config, args)?;
    let sae = Sae::new(config, weights)?;
    let out = &args.out;
    let made = !out.exists();
    std::fs::create_dir_all(out).with_context(|| format!("cannot create {}", out.display()))?;
    let mut entries = std::fs::read_dir(out).with_context(|| format!("cannot list {}", out.display()))?;
    anyhow::ensure!(
        entries.next().is_none(),
        "{}: expected an empty folder or none, found one that holds files: remove it, if it is of an earlier \
         conversion, or choose another --out",
        out.display()
    );
    if let Err(error) = sae.save_as(args.to, out) {
        // An SAE that the format cannot express is refused before anything is written; a folder made for it is removed.
        if made {
            let _ = std::fs::remove_dir(out);
        }
        let context = format!("{} cannot be written as {}", args.sae.display(), args.to);
        return Err(anyhow::Error::from(error).context(context));
    }
    let (architecture, (config, _)) = (sae.architecture(), sae.into_parts());
    // Read again, to know what the format has no place for without a list that could be wrong.
    let written = Sae::load(out).with_context(|| format!("what was written to {} cannot be read", out.display()))?;
    let lost = config.lost_in(written.config());
    if !lost.is_empty() {
        terminal.say(format!("{} has no place for what the SAE says of its {}: lost", args.to, lost.join(", ")));
    }
    terminal.line(format!(
        "{}: {}, d_in {}, d_sae {}, from {from} to {}",
        out.display(),
        architecture,
        config.d_in,
        config.d_sae,
        args.to
    ));
    terminal.json(&serde_json::json!({
        "out": out, "from": from.to_string(), "to": args.to.to_string(), "architecture": architecture.to_string(),
        "d_in": config.d_in, "d_out": config.d_out, "d_sae": config.d_sae, "hook_point": config.hook_points.reads().first(),
        "lost": lost,
    }))
}

/// Adds facts that the SAE does not give itself; those that it gives are not overwritten.
fn complete(config: &mut SaeConfig, args: &ConvertArgs) -> anyhow::Result<()> {
    if let Some(point) = args.hook_point {
        // For a crosscoder, this is the first one that it reads.
        let said = config.hook_points.reads().first().copied().unwrap_or(point);
        anyhow::ensure!(
            said == point,
            "--hook-point: expected {said}, which {} names itself, or no such option, found {point}",
            args.sae.display()
        );
        config.hook_points = config.hook_points.clone().or_reading(point);
    }
    if let Some(name) = &args.model_name {
        anyhow::ensure!(
            config.model_name.is_empty() || config.model_name == *name,
            "--model-name: expected {}, which {} names itself, or no such option, found {name}",
            config.model_name,
            args.sae.display()
        );
        config.model_name.clone_from(name);
    }
    Ok(())
}
