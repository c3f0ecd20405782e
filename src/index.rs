//! `refract index`.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
};

use analyzer::{FeaturesManifest, IndexConfig, IndexText, Workbench};
use harvester::{LanguageModel, LiveModel, human::grouped};
use serde_json::Value;

use crate::{
    cli::{CorpusTextArgs, HarvestArgs, HarvestConfigArgs, IndexArgs, required},
    settings::{self, of_args},
    terminal::Terminal,
};

/// `model` is the model of the SAE if it is open already. `file` has settings of harvest, for a corpus.
pub(crate) fn run(
    args: &IndexArgs,
    model: Option<&LanguageModel>,
    file: Option<PathBuf>,
    terminal: &Terminal,
) -> anyhow::Result<()> {
    let out = required(&args.out, "index", "out")?;
    let config = config(args)?;
    let manifest = if args.corpus.corpus.is_empty() {
        let (bench, dataset) = args.sae.source()?.open(model, terminal)?;
        analyzer::index(&bench, &dataset, &config, &out, terminal)?
    } else {
        let bench = args.sae.source()?.workbench(model, terminal)?;
        let live = args.corpus.live(args.sae.model.as_deref(), &bench, file, &out, |_| (), terminal)?;
        analyzer::index(&bench, IndexText::from(&live), &config, &out, terminal)?
    };
    report(&manifest, &out.display().to_string(), terminal);
    let labeled = manifest.labeled;
    let result = serde_json::json!({
        "out": out, "d_sae": manifest.d_sae, "tokens": manifest.tokens, "labeled": labeled
    });
    terminal.json(&result)
}

fn config(args: &IndexArgs) -> anyhow::Result<IndexConfig> {
    let mut settings = of_args(&args.config)?;
    if settings.remove("no_effects").is_some() {
        settings.insert("effects".into(), Value::Bool(false));
    }
    Ok(harvester::config_of(&settings)?)
}

/// Prints the counts of an index.
pub(crate) fn report(manifest: &FeaturesManifest, out: &str, terminal: &Terminal) {
    let (latents, tokens) = (grouped(manifest.d_sae as u64), grouped(manifest.tokens));
    terminal.line(format!("{out}: {latents} latents over {tokens} tokens"));
    let percent = |share: f32| format!("{:.1} %", 100.0 * share);
    let labeled = manifest.labeled;
    terminal.line(format!(
        "labels of F1 0.8 or more: {} of the latents that fire; in the control's text {}, at random {}",
        percent(labeled.sample),
        percent(labeled.control_text),
        percent(labeled.control)
    ));
}

impl CorpusTextArgs {
    /// The corpus, read by the model of the SAE, for a folder at `out`. `adjust` sees the settings of its harvest.
    pub(crate) fn live(
        &self,
        model: Option<&str>,
        bench: &Workbench,
        file: Option<PathBuf>,
        out: &Path,
        adjust: impl FnOnce(&mut HarvestConfigArgs),
        terminal: &Terminal,
    ) -> anyhow::Result<LiveModel> {
        let mut harvest: HarvestArgs = settings::parse(self.as_harvest(file, model))?;
        // The model's matrix products may be asked for in int8, in which an open model does not compute.
        let int8 = harvest.config.compute.is_some().then(|| {
            harvest.model = harvest.model.take().or(Some(bench.sae().model.source.clone()));
            harvest.model(terminal)
        });
        let int8 = int8.transpose()?;
        let model = int8.as_ref().map_or_else(|| bench.model(terminal), Ok)?;
        harvest.config.ctx_len = harvest.config.ctx_len.or(bench.sae().ctx_len());
        harvest.config.bos = harvest.config.bos.or(bench.sae().bos);
        adjust(&mut harvest.config);
        let mut settings = harvest.config(model.config())?;
        settings.hook_points = vec![bench.sae().hook_point];
        Ok(LiveModel::new(model, harvest.corpus(&out.into())?, &settings)?)
    }

    /// The command of `refract harvest` with the same corpus and settings.
    fn as_harvest(&self, file: Option<PathBuf>, model: Option<&str>) -> Vec<OsString> {
        let flag = |name: &str, value: &dyn AsRef<std::ffi::OsStr>| {
            let mut word = OsString::from(format!("--{name}="));
            word.push(value);
            word
        };
        let mut words = vec!["refract".into(), "harvest".into()];
        words.extend(file.map(|file| flag("config", &file)));
        words.extend(model.map(|model| flag("model", &model)));
        words.extend(self.corpus.iter().map(|path| flag("corpus", path)));
        words.extend(self.tokens.map(|tokens| flag("tokens", &tokens.to_string())));
        words.extend(self.ctx_len.map(|ctx_len| flag("ctx-len", &ctx_len.to_string())));
        words.extend(self.compute.map(|compute| flag("compute", &compute.to_string())));
        words.extend(self.part.map(|part| flag("part", &part.to_string())));
        words
    }
}
