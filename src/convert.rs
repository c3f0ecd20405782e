//! `refract convert`: an SAE of one tool as another reads it.

use anyhow::Context;
use trainer::{Sae, SaeFormat};

use crate::{cli::ConvertArgs, terminal::Terminal};

pub(crate) fn run(args: &ConvertArgs, terminal: &Terminal) -> anyhow::Result<()> {
    let from = SaeFormat::of(&args.sae)?;
    let mut sae = Sae::load(&args.sae)?;
    if let Some(point) = args.hook_point {
        sae.config.hook_point = Some(point);
    }
    if let Some(model) = &args.model_name {
        sae.config.model_name = model.clone();
    }
    let out = &args.out;
    let made = !out.exists();
    std::fs::create_dir_all(out).with_context(|| format!("cannot create {}", out.display()))?;
    let mut entries = std::fs::read_dir(out).with_context(|| format!("cannot list {}", out.display()))?;
    anyhow::ensure!(
        entries.next().is_none(),
        "{}: expected an empty folder or none, found one that holds files: choose another --out",
        out.display()
    );
    if let Err(error) = sae.save_as(args.to, out) {
        // What cannot be expressed is refused before anything is written; the folder made for it goes again.
        if made {
            let _ = std::fs::remove_dir(out);
        }
        return Err(error.into());
    }
    let config = &sae.config;
    terminal.line(format!(
        "{}: {}, d_in {}, d_sae {}, from {from} to {}",
        out.display(),
        config.architecture,
        config.d_in,
        config.d_sae,
        args.to
    ));
    terminal.json(&serde_json::json!({
        "out": out, "from": from.to_string(), "to": args.to.to_string(), "architecture": config.architecture.to_string(),
        "d_in": config.d_in, "d_out": config.d_out, "d_sae": config.d_sae, "hook_point": config.hook_point,
    }))
}
