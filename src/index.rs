//! `refract index`.

use std::path::{Path, PathBuf};

use analyzer::{IndexText, Workbench};
use harvester::{LanguageModel, LiveModel};

use crate::{
    cli::{CorpusTextArgs, HarvestConfigArgs, IndexArgs, required},
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
    let config = settings::config(&args.config)?;
    let manifest = if args.corpus.corpus.is_empty() {
        let (bench, dataset) = args.sae.source()?.open(model, terminal)?;
        analyzer::index(&bench, &dataset, &config, &out, terminal)?
    } else {
        let bench = args.sae.source()?.workbench(model, terminal)?;
        let live = args.corpus.live(args.sae.model.as_deref(), &bench, file, &out, |_| (), terminal)?;
        analyzer::index(&bench, IndexText::from(&live), &config, &out, terminal)?
    };
    terminal.report(out.display(), &manifest.summary());
    let labeled = manifest.labeled;
    let result = serde_json::json!({
        "out": out, "d_sae": manifest.d_sae, "tokens": manifest.tokens, "labeled": labeled
    });
    terminal.json(&result)
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
        let mut settings = of_args(self)?;
        settings.extend(model.map(|model| ("model".into(), model.into())));
        settings.extend(self.part.map(|part| ("part".into(), part.to_string().into())));
        let mut harvest = settings::harvest(settings, file)?;
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
}
