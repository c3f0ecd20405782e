//! `refract steer`.

use std::path::Path;

use analyzer::{
    Example, GenerateConfig, Intervention, Interventions, MovedToken, PlacedSae, SaeSource, Shift, generate, shift,
};
use anyhow::Context;
use harvester::{ActivationDataset, ChatMessage, Hook, LanguageModel, Location, NoHook};
use serde::Serialize;

use crate::{
    cli::SteerArgs,
    settings,
    terminal::{BOLD, DIM, Terminal, on_one_line, quoted},
};

/// Positions in a context with enough text before them to set a topic, and little enough to read.
const READABLE: std::ops::Range<u32> = 24..80;

/// Changes of a probability that are worth a place in the list.
const VISIBLE: f64 = 0.001;

/// Everything needed to write under interventions: an SAE and its model.
pub(crate) struct Steering {
    model: LanguageModel,
    placed: PlacedSae,
}

/// The same prompt continued without and with interventions.
#[derive(Debug, Serialize)]
pub(crate) struct SideBySide {
    prompt: String,
    interventions: Vec<Intervention>,
    without: String,
    with: String,
    shift: Shift,
}

pub(crate) fn run(args: &SteerArgs, terminal: &Terminal) -> anyhow::Result<()> {
    let config: GenerateConfig = settings::config(&args.config)?;
    anyhow::ensure!(
        config.temperature > 0.0 || (args.config.top_p.is_none() && args.config.seed.is_none()),
        "`top_p` and `seed` have an effect only with a `temperature` above 0: at 0 the likeliest token is taken"
    );
    let interventions = [&args.clamp[..], &args.scale].concat();
    anyhow::ensure!(!interventions.is_empty(), "steer needs `clamp` LATENT=VALUE or `scale` LATENT=FACTOR");
    let prompt = settings::required(&args.prompt, "steer", "prompt")?;
    let steering = Steering::open(&args.sae.source()?, None, terminal)?;
    let prompt = if args.chat { steering.chat_prompt(&prompt)? } else { prompt };
    let result = steering.side_by_side(&prompt, &interventions, &config, terminal)?;
    result.print(terminal);
    terminal.json(&result)
}

impl Steering {
    /// An SAE and its model: `open`, where that is given.
    pub(crate) fn open(source: &SaeSource, open: Option<&LanguageModel>, terminal: &Terminal) -> anyhow::Result<Self> {
        let placed = source.place()?;
        placed.sae.config().hook_points.check_autoencoder()?;
        let model = placed.language_model(open, terminal)?;
        placed.hook_point.check(model.config())?;
        let width = placed.hook_point.width(model.config());
        anyhow::ensure!(
            placed.sae.d_in() == width,
            "the SAE reads {} values a token, {} of {} has {width}: it was trained on another model",
            placed.sae.d_in(),
            placed.hook_point,
            placed.model.source
        );
        Ok(Self { model, placed })
    }

    fn chat_prompt(&self, message: &str) -> anyhow::Result<String> {
        Ok(self.model.tokenizer().render_chat(&[ChatMessage::user(message)], true)?)
    }

    /// A prompt on which the latent of `examples` is active: the text up to the peak of the strongest example that has
    /// some text before it, but not too much to read.
    pub(crate) fn text_before(&self, examples: &[Example], activations: &Path) -> anyhow::Result<String> {
        let example = examples.iter().find(|example| READABLE.contains(&example.position)).or(examples.first());
        let example = example.context("the latent fires nowhere in the index")?;
        let dataset = ActivationDataset::open(Location::named(activations)?)?;
        for &group in dataset.row_groups() {
            let rows = dataset.tokens(group)?;
            let places = (0..rows.len()).filter(|&row| rows.context[row] == example.context);
            let tokens: Vec<u32> = places.take(example.position as usize + 1).map(|row| rows.token[row]).collect();
            if !tokens.is_empty() {
                return Ok(self.model.tokenizer().decode(&tokens));
            }
        }
        anyhow::bail!("context {} of the index is not in {}", example.context, activations.display())
    }

    /// Continues `prompt` twice and measures how far the interventions move the model on its own continuation.
    pub(crate) fn side_by_side(
        &self,
        prompt: &str,
        interventions: &[Intervention],
        config: &GenerateConfig,
        terminal: &Terminal,
    ) -> anyhow::Result<SideBySide> {
        let site = self.placed.site();
        let mut hook = Interventions::new(site, interventions.to_vec())?;
        let tokens = self.model.prompt(prompt)?;
        let write = |hook: &mut dyn Hook| -> anyhow::Result<String> {
            let written = generate(&self.model, &[&tokens], config, hook, terminal)?;
            Ok(written.iter().map(|text| self.model.tokenizer().decode(text)).collect())
        };
        let (without, with) = (write(&mut NoHook)?, write(&mut hook)?);
        let shift = shift(&self.model, site, interventions, &tokens, 8)?;
        Ok(SideBySide { prompt: prompt.to_string(), interventions: interventions.to_vec(), without, with, shift })
    }
}

impl SideBySide {
    pub(crate) fn print(&self, terminal: &Terminal) {
        terminal.line(format!("{DIM}prompt{DIM:#}   {}", on_one_line(&self.prompt)));
        terminal.line(format!("{BOLD}without{BOLD:#}  {}", on_one_line(&self.without)));
        terminal.line(format!("{BOLD}with{BOLD:#}     {}", on_one_line(&self.with)));
        let Shift { kl_next, kl_mean, moved } = &self.shift;
        terminal.line(format!(
            "{DIM}next token after the prompt: KL {kl_next:.3} nats; mean over the prompt {kl_mean:.3}{DIM:#}"
        ));
        let visible: Vec<_> = moved.iter().filter(|m| (m.before - m.after).abs() >= VISIBLE).collect();
        if visible.is_empty() {
            terminal.line(format!("{DIM}no token's probability moves by {:.1} % or more{DIM:#}", 100.0 * VISIBLE));
            return;
        }
        let percent =
            |m: &MovedToken| format!("{} {:.1} → {:.1} %", quoted(&m.text), 100.0 * m.before, 100.0 * m.after);
        let moved: Vec<_> = visible.into_iter().map(percent).collect();
        terminal.line(format!("{DIM}moved{DIM:#}    {}", moved.join("  ")));
    }
}
