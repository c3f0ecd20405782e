//! `refract encode`.

use std::path::PathBuf;

use analyzer::{EncodeText, FeatureIndex, Listed};
use harvester::{Packing, SpecialToken, StorageDtype};

use crate::{
    cli::{EncodeArgs, HarvestConfigArgs, usage},
    terminal::Terminal,
};

/// `file` has settings of harvest, for a corpus.
pub(crate) fn run(args: &EncodeArgs, file: Option<PathBuf>, terminal: &Terminal) -> anyhow::Result<()> {
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
