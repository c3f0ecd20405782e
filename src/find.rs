//! `refract find`: the latents that tell two groups of texts apart; `refract search`: those about some words.

use analyzer::{ContrastConfig, Contrasts, DocumentContrast, FeatureIndex, SaeSource, SearchHit, TextGroup, Workbench};
use harvester::{LanguageModel, Monitor};

use crate::{
    cli::{FindArgs, SearchArgs},
    terminal::{BOLD, DIM, Terminal, on_one_line, quoted},
};

/// Largest q of a latent that counts as different.
const DISCOVERY: f64 = 0.05;

/// `model` is the model of the SAE if it is open already.
pub(crate) fn run(args: &FindArgs, model: Option<&LanguageModel>, terminal: &Terminal) -> anyhow::Result<Contrasts> {
    let index = FeatureIndex::open(&args.features)?;
    let groups = [TextGroup::named(&args.positive, &index)?, TextGroup::named(&args.negative, &index)?];
    let bench = || -> analyzer::Result<Workbench> {
        let sae = args.sae.clone().unwrap_or_else(|| index.sae_path());
        SaeSource { activations: args.activations.clone(), ..SaeSource::trained(sae) }.workbench(model, terminal)
    };
    let config = ContrastConfig { max_density: args.max_density, rank: args.rank };
    let mut found = analyzer::find(&index, [&groups[0], &groups[1]], bench, &config, terminal)?;
    print(&found, &index, args, terminal)?;
    found.latents.truncate(args.top);
    terminal.json(&found)?;
    Ok(found)
}

fn print(found: &Contrasts, index: &FeatureIndex, args: &FindArgs, terminal: &Terminal) -> anyhow::Result<()> {
    for line in found.summary(DISCOVERY) {
        terminal.line(format!("{DIM}{line}{DIM:#}"));
    }
    let texts = index.token_texts()?;
    terminal.line(format!("{BOLD}latent   AUC  without its token      documents  label{BOLD:#}"));
    for contrast in found.latents.iter().take(args.top) {
        let DocumentContrast { latent, auc, auc_without_token, token, documents: [first, second], .. } = contrast;
        let label = on_one_line(&index.label(*latent)?.to_string());
        let token = quoted(texts.get(token).map_or("", String::as_str));
        let [first, second] = [first, second].map(|share| format!("{:.0} %", 100.0 * share));
        let mark = if contrast.q.is_none_or(|q| q <= DISCOVERY) { " " } else { "?" };
        terminal.line(format!(
            "{latent:6}{mark} {auc:.3}  {auc_without_token:.3} {token:12.12}  {first:>5} / {second:<5}  {label}"
        ));
    }
    Ok(())
}

pub(crate) fn search(args: &SearchArgs, terminal: &Terminal) -> anyhow::Result<()> {
    let index = FeatureIndex::open(&args.features)?;
    let hits = index.search(&args.words.join(" "), args.top, args.max_density)?;
    if hits.is_empty() {
        terminal.say("no latent is about these words; `refract explain` finds those that fire on a text");
    }
    for SearchHit { latent, density, label, fires_on, promotes, .. } in &hits {
        let density = 100.0 * density;
        terminal.line(format!("{BOLD}latent {latent}{BOLD:#}  {}", on_one_line(&label.to_string())));
        let texts = |texts: &[String]| texts.iter().take(6).map(|text| quoted(text)).collect::<Vec<_>>().join("  ");
        terminal.line(format!("  {DIM}fires on{DIM:#}  {density:.3} % of tokens: {}", texts(fires_on)));
        terminal.line(format!("  {DIM}promotes{DIM:#}  {}", texts(promotes)));
    }
    terminal.json(&hits)
}
