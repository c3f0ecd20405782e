//! The commands that use an SAE: `refract evaluate`, `index`, `encode` and `explain`.

use std::path::{Path, PathBuf};

use analyzer::{EncodeText, FeatureIndex, IndexText, Listed, Workbench};
use harvester::{LanguageModel, LiveModel, Monitor, Packing, SpecialToken, StorageDtype};

use crate::{
    cli::{CorpusTextArgs, EncodeArgs, EvaluateArgs, ExplainArgs, HarvestConfigArgs, IndexArgs, required, usage},
    settings::{self, of_args},
    terminal::Terminal,
};

/// `model` is the model of the SAE if it is open already.
pub(crate) fn evaluate(args: &EvaluateArgs, model: Option<&LanguageModel>, terminal: &Terminal) -> anyhow::Result<()> {
    let (bench, dataset) = args.sae.source()?.open(model, terminal)?;
    if bench.sae().manifest.is_none() {
        terminal.say("the training data of this SAE are not known: these activations may be part of them");
    }
    let measured = bench.evaluate(&dataset, &settings::config(&args.config)?, terminal)?;
    terminal.facts(&measured.facts());
    terminal.json(&measured)
}

/// `model` is the model of the SAE if it is open already. `file` has settings of harvest, for a corpus.
pub(crate) fn index(
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

/// `file` has settings of harvest, for a corpus.
pub(crate) fn encode(args: &EncodeArgs, file: Option<PathBuf>, terminal: &Terminal) -> anyhow::Result<()> {
    anyhow::ensure!(args.text.is_empty() != args.corpus.corpus.is_empty(), usage("encode needs `text` or `corpus`"));
    let bench = args.sae.source()?.workbench(None, terminal)?;
    let live = args.text.is_empty().then(|| {
        let out = args.out.as_ref().unwrap_or(&bench.sae().path);
        args.corpus.live(args.sae.model.as_deref(), &bench, file, out, every_token, terminal)
    });
    let live = live.transpose()?;
    let text = live.as_ref().map_or(EncodeText::Texts(&args.text), EncodeText::Corpus);
    if let Some(out) = &args.out {
        let counts = analyzer::encode_into(&bench, text, out, terminal)?;
        terminal.report(out.display(), &[counts.to_string()]);
        return terminal.json(&counts);
    }
    let index = args.features.as_deref().map(FeatureIndex::open).transpose()?;
    let listed = Listed::new(&bench, index.as_ref(), args.max_density)?;
    let model = bench.model(terminal)?;
    analyzer::encode(&bench, text, terminal, |document| {
        terminal.json(&document).expect("numbers and text can be written as JSON");
        terminal.heading(format!("document {} {}", document.record.document, document.record.place()).trim_end());
        let tokens = listed.tokens(&document.encoded, model, args.per_token);
        tokens.iter().for_each(|token| terminal.line(token.to_string()));
        Ok(())
    })?;
    Ok(())
}

/// Documents in their order, each in contexts of its own, so that no token is left over.
fn every_token(config: &mut HarvestConfigArgs) {
    config.packing = config.packing.or(Some(Packing::Document));
    config.separator = config.separator.or(Some(SpecialToken::None));
    config.dtype = config.dtype.or(Some(StorageDtype::F32));
    config.no_shuffle |= config.seed.is_none();
}

pub(crate) fn explain(args: &ExplainArgs, terminal: &Terminal) -> anyhow::Result<()> {
    let bench = args.sae.source()?.workbench(None, terminal)?;
    let index = args.features.as_deref().map(FeatureIndex::open).transpose()?;
    let found = analyzer::explain(&bench, &args.text, index.as_ref(), &settings::config(&args.config)?, terminal)?;
    terminal.line(found.to_string().trim_end());
    terminal.json(&found)
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
