//! `refract steer`.

use analyzer::{GenerateConfig, LatentMax, MovedToken, Shift, SideBySide};
use harvester::LanguageModel;

use crate::{
    cli::{SteerArgs, required},
    settings::of_args,
    terminal::{BOLD, DIM, Terminal, on_one_line, quoted},
};

/// Smallest change of a probability that is listed.
const VISIBLE: f64 = 0.001;

/// `model` is the model of the SAE if it is open already.
pub(crate) fn run(args: &SteerArgs, model: Option<&LanguageModel>, terminal: &Terminal) -> anyhow::Result<()> {
    let config = GenerateConfig::from_settings(&of_args(&args.config)?)?;
    let interventions = [&args.clamp[..], &args.scale].concat();
    anyhow::ensure!(!interventions.is_empty(), "steer needs `clamp` LATENT=VALUE or `scale` LATENT=FACTOR");
    let prompt = required(&args.prompt, "steer", "prompt")?;
    let bench = args.sae.source()?.workbench(model, terminal)?;
    let prompt = if args.chat { bench.chat_prompt(&prompt, terminal)? } else { prompt };
    let result = bench.side_by_side(&prompt, &interventions, &config, terminal)?;
    print(&result, terminal);
    terminal.json(&result)
}

fn print(result: &SideBySide, terminal: &Terminal) {
    terminal.line(format!("{DIM}prompt{DIM:#}   {}", on_one_line(&result.prompt)));
    terminal.line(format!("{BOLD}without{BOLD:#}  {}", on_one_line(&result.without)));
    terminal.line(format!("{BOLD}with{BOLD:#}     {}", on_one_line(&result.with)));
    let Shift { kl_next, kl_mean, kl_written, latents, moved } = &result.shift;
    let of_text = kl_written.map(|kl| format!(", over the text without the edit {kl:.3}")).unwrap_or_default();
    let of_prompt = format!("next token after the prompt: KL {kl_next:.3} nats; mean over the prompt {kl_mean:.3}");
    terminal.line(format!("{DIM}{of_prompt}{of_text}{DIM:#}"));
    for LatentMax { latent, max } in latents {
        let said = if *max > 0.0 { format!("reaches {max:.1}") } else { "is never active".into() };
        terminal.line(format!("{DIM}latent {latent} {said} without the edit, on prompt and text{DIM:#}"));
    }
    let visible: Vec<_> = moved.iter().filter(|m| (m.before - m.after).abs() >= VISIBLE).collect();
    if visible.is_empty() {
        terminal.line(format!("{DIM}no token's probability moves by {:.1} % or more{DIM:#}", 100.0 * VISIBLE));
        return;
    }
    let percent = |m: &MovedToken| format!("{} {:.1} → {:.1} %", quoted(&m.text), 100.0 * m.before, 100.0 * m.after);
    let moved: Vec<_> = visible.into_iter().map(percent).collect();
    terminal.line(format!("{DIM}moved{DIM:#}    {}", moved.join("  ")));
}
