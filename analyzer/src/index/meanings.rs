//! What is measured once the counts are known: the effect of every latent that fires, in blocks that are saved, and its
//! label.

use std::{collections::HashMap, fs, path::Path};

use harvester::{Monitor, TextTokenizer};

use super::{saved::SavedState, state::IndexState};
use crate::{
    Dose, Effect, EffectMeter, EffectsConfig, Label, LabelInput, Result, Workbench,
    features::{
        FeaturesManifest, Labeled, Sample,
        tables::{EFFECTS, read_effects},
    },
    label_all,
};

/// Latents whose effects are saved together.
const SAVED: usize = 4 * EffectMeter::BLOCK;

/// The effects of all latents that fire, at their 99.9th percentile. Blocks that a stopped run into `out` has measured
/// are read; `None` if the user asked to stop.
pub(crate) fn effects(
    bench: &Workbench,
    state: &IndexState,
    out: &Path,
    monitor: &dyn Monitor,
) -> Result<Option<Vec<Effect>>> {
    let fires = (0..).zip(&state.counts.latents).filter(|(_, counts)| counts.n_active > 0);
    let doses: Vec<Dose> = fires
        .map(|(latent, counts)| Dose {
            latent: latent as u32,
            activation: state.counts.histogram(latent).quantile(0.999, counts.max),
            max: counts.max,
        })
        .collect();
    let folder = SavedState::folder(out).join("effects");
    fs::create_dir_all(&folder).map_err(harvester::Error::io("create", &folder))?;
    let mut meter = EffectMeter::new(bench, &EffectsConfig::default(), monitor)?;
    let mut effects = Vec::with_capacity(doses.len());
    monitor.start("effects", doses.len() as u64, "latents");
    for (number, block) in doses.chunks(SAVED).enumerate() {
        let place = folder.join(number.to_string());
        if let Some(earlier) = earlier(&place, block) {
            monitor.skip(block.len() as u64);
            effects.extend(earlier);
            continue;
        }
        let start = effects.len();
        for doses in block.chunks(EffectMeter::BLOCK) {
            if monitor.cancelled() {
                return Ok(None);
            }
            effects.extend(meter.measure(doses)?);
            monitor.advance(doses.len() as u64);
        }
        fs::create_dir_all(&place).map_err(harvester::Error::io("create", &place))?;
        EFFECTS.write(&place, &effects[start..])?;
    }
    monitor.finish();
    Ok(Some(effects))
}

/// The effects of these doses, if an earlier run has saved them.
fn earlier(place: &Path, doses: &[Dose]) -> Option<Vec<Effect>> {
    let table = EFFECTS.open(place).ok()?;
    let effects = read_effects(&table, 0..table.n_rows()).ok()?;
    let is_same = |(effect, dose): (&Effect, &Dose)| (effect.latent, effect.dose) == (dose.latent, dose.activation);
    (effects.len() == doses.len() && effects.iter().zip(doses).all(is_same)).then_some(effects)
}

/// The labels of all latents, and how many of them predict well, beside those of a random dictionary.
pub(crate) fn labels(
    state: &IndexState,
    manifest: &FeaturesManifest,
    tokenizer: &TextTokenizer,
    effects: &[Effect],
) -> (Vec<Label>, Labeled) {
    let names: Vec<String> = manifest.sources.iter().map(|source| source.name.clone()).collect();
    let of = |sample: &Sample, max: &[f32], promoted: &[Vec<u32>]| {
        label_all(&LabelInput {
            sample: &sample.encoded,
            sources: &sample.source,
            source_names: &names,
            token_text: &|token| tokenizer.token_text(token),
            max,
            promoted,
        })
    };
    let by_latent: HashMap<u32, &Effect> = effects.iter().map(|effect| (effect.latent, effect)).collect();
    let promoted: Vec<Vec<u32>> = (0..manifest.d_sae as u32)
        .map(|latent| {
            let tokens = by_latent.get(&latent).map_or(&[][..], |effect| &effect.promoted);
            tokens.iter().map(|token| token.token).collect()
        })
        .collect();
    let max: Vec<f32> = state.counts.latents.iter().map(|counts| counts.max).collect();
    let sample = state.sample.joined();
    let [same_text, control] = state.same_text();
    let labels = of(&sample, &max, &promoted);
    let labeled = Labeled {
        sample: well_labeled(&labels, &sample),
        // Without promoted tokens, as the random dictionary: each may use the same rules.
        control_text: well_labeled(&of(&same_text, &max_of(&same_text, max.len()), &[]), &same_text),
        control: well_labeled(&of(&control, &max_of(&control, max.len()), &[]), &control),
    };
    (labels, labeled)
}

/// Share of the latents that fire in the sample whose label predicts well.
fn well_labeled(labels: &[Label], sample: &Sample) -> f32 {
    let fires = max_of(sample, labels.len()).iter().filter(|max| **max > 0.0).count();
    labels.iter().filter(|label| label.is_good()).count() as f32 / fires.max(1) as f32
}

/// The largest activation of each latent in a sample.
fn max_of(sample: &Sample, d_sae: usize) -> Vec<f32> {
    let mut max = vec![0f32; d_sae];
    let acts = &sample.encoded.acts;
    acts.latents.iter().zip(&acts.values).for_each(|(latent, value)| {
        let most = &mut max[*latent as usize];
        *most = most.max(*value);
    });
    max
}
