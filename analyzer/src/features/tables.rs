//! The tables of an index: their columns, and how rows are made of them again.

use std::ops::Range;

use harvester::{Cell, Column, Result, Table, TableReader};

use super::{
    feature::{Example, ExampleKind, Feature, FiresWith},
    sample::{Sample, SampleRow},
};
use crate::{Effect, Label, TokenWeight};

/// Rows that are written and read together: the table of features, and that of examples.
pub(crate) const FEATURES_GROUP: usize = 512;
pub(crate) const EXAMPLES_GROUP: usize = 2048;
pub(crate) const SAMPLE_GROUP: usize = 16_384;

/// A row is a latent.
pub(crate) const FEATURES: Table<Feature> = Table {
    file: "features.parquet",
    command: "refract index",
    columns: &[
        Column::new("latent", Cell::U32(|feature| feature.latent), "number from 0", "the latent"),
        Column::new("n_active", Cell::U64(|feature| feature.n_active), "tokens", "tokens on which it is active"),
        Column::new(
            "density",
            Cell::F64(|feature| feature.density),
            "fraction",
            "`n_active` over all tokens of the index",
        ),
        Column::new("max", Cell::F32(|feature| feature.max), "activation", "largest activation; 0 if it never fires"),
        Column::new(
            "mean",
            Cell::F32(|feature| feature.mean),
            "activation",
            "mean activation over the tokens on which it is active; 0 if it never fires",
        ),
        Column::new(
            "p50",
            Cell::F32(|feature| feature.quantiles[0]),
            "activation",
            "median activation over the tokens on which it is active, within 1/16; 0 if it never fires",
        ),
        Column::new("p90", Cell::F32(|feature| feature.quantiles[1]), "activation", "the same for 90 %"),
        Column::new(
            "p99",
            Cell::F32(|feature| feature.quantiles[2]),
            "activation",
            "the same for 99 %; of fewer than 100 firings, it is `max` or in its bin",
        ),
        Column::new(
            "p999",
            Cell::F32(|feature| feature.quantiles[3]),
            "activation",
            "the same for 99.9 %; of fewer than 1,000 firings, it is `max` or in its bin",
        ),
        Column::new(
            "histogram_start",
            Cell::U32(|feature| feature.histogram.start),
            "number from 0",
            "number of the first bin in `histogram`. There are 384, 16 equal steps in each octave from 2^-12 to 2^12: \
             bin `i` begins at 2^(i // 16 - 12) (1 + (i % 16) / 16). The first and the last also hold what lies outside",
        ),
        Column::new(
            "histogram",
            Cell::U32List(|feature| feature.histogram.counts.clone()),
            "tokens",
            "active tokens in each bin, without the empty bins at both ends",
        ),
        Column::new(
            "activation_sum",
            Cell::U64(|feature| feature.activation_sum),
            "2^-24 activation",
            "sum of its activations: a whole number, so that the order of adding does not matter",
        ),
        Column::new(
            "n_active_by_source",
            Cell::U64List(|feature| feature.n_active_by_source.clone()),
            "tokens",
            "`n_active` within each source of the corpus, in the order of the manifest's `sources`",
        ),
        Column::new(
            "density_by_source",
            Cell::F32List(|feature| feature.density_by_source.clone()),
            "fraction",
            "density within each source of the corpus",
        ),
        Column::new(
            "fires_on",
            Cell::TextList(|feature| feature.fires_on.iter().map(String::as_str).collect()),
            "",
            "tokens at the peaks of its examples, without case and spaces, most frequent first",
        ),
        Column::new(
            "promoted_tokens",
            Cell::U32List(|feature| token_ids(&feature.promoted)),
            "token id",
            "the tokens whose logits its decoder row raises more than other latents do, among those that occur in the \
             text, furthest first. This is the [logit lens](../analyzer/README.md#index-what-each-latent-responds-to)",
        ),
        Column::new("promoted_texts", Cell::TextList(|feature| texts(&feature.promoted)), "", "the text of each"),
        Column::new(
            "promoted_weights",
            Cell::F32List(|feature| weights(&feature.promoted)),
            "logit per unit of activation",
            "change of the logit, before the scale of the final norm",
        ),
        Column::new(
            "suppressed_tokens",
            Cell::U32List(|feature| token_ids(&feature.suppressed)),
            "token id",
            "the tokens whose logits it lowers most",
        ),
        Column::new("suppressed_texts", Cell::TextList(|feature| texts(&feature.suppressed)), "", "the text of each"),
        Column::new(
            "suppressed_weights",
            Cell::F32List(|feature| weights(&feature.suppressed)),
            "logit per unit of activation",
            "as `promoted_weights`",
        ),
        Column::new(
            "nearest_latents",
            Cell::U32List(|feature| feature.nearest.iter().map(|nearest| nearest.0).collect()),
            "number from 0",
            "latents whose decoder rows point the same way, nearest first",
        ),
        Column::new(
            "nearest_cosines",
            Cell::F32List(|feature| feature.nearest.iter().map(|nearest| nearest.1).collect()),
            "cosine",
            "cosine with each",
        ),
        Column::new(
            "fires_with_latents",
            Cell::U32List(|feature| feature.fires_with.iter().map(|other| other.latent).collect()),
            "number from 0",
            "latents that fire on the same tokens of the sample, at least three times; largest phi coefficient first",
        ),
        Column::new(
            "fires_with_shares",
            Cell::F32List(|feature| feature.fires_with.iter().map(|other| other.share).collect()),
            "fraction",
            "share of this latent's tokens on which the other fires too",
        ),
        Column::new(
            "fires_with_lifts",
            Cell::F32List(|feature| feature.fires_with.iter().map(|other| other.lift).collect()),
            "times",
            "that share over the other's density in the sample: 1 if the two are independent",
        ),
        Column::new(
            "silent_rows",
            Cell::U32List(|feature| feature.silent_rows.clone()),
            "number from 0",
            "rows of `sample.parquet` drawn at random, in whose window of `reach` tokens on each side it never fires",
        ),
        Column::new(
            "first_example",
            Cell::U64(|feature| feature.first_example),
            "number from 0",
            "row of its first example in `examples.parquet`",
        ),
        Column::new("n_examples", Cell::U32(|feature| feature.n_examples), "examples", "number of its examples there"),
    ],
};

/// A row is an example.
pub(crate) const EXAMPLES: Table<Example> = Table {
    file: "examples.parquet",
    command: "refract index",
    columns: &[
        Column::new("latent", Cell::U32(|example| example.latent), "number from 0", "the latent"),
        Column::new(
            "kind",
            Cell::Text(|example| example.kind.to_string()),
            "",
            "`top`: one of its strongest; `sampled`: drawn from a tenth of its activations in the sample",
        ),
        Column::new("rank", Cell::U32(|example| example.rank), "number from 0", "0 for the strongest of its kind"),
        Column::new(
            "quantile",
            Cell::F32(|example| example.quantile),
            "fraction",
            "share of the latent's activations in the sample that are smaller; 1 for `top`",
        ),
        Column::new(
            "activation",
            Cell::F32(|example| example.activation),
            "activation",
            "the latent's activation at the peak",
        ),
        Column::new(
            "document",
            Cell::U64(|example| example.document),
            "number from 0",
            "document of the peak, as in the activations",
        ),
        Column::new(
            "context",
            Cell::U64(|example| example.context),
            "number from 0",
            "context of the peak, as in the activations",
        ),
        Column::new(
            "position",
            Cell::U32(|example| example.position),
            "number from 0",
            "position of the peak in its context",
        ),
        Column::new("peak", Cell::U32(|example| example.peak), "number from 0", "index of the peak in the lists below"),
        Column::new(
            "tokens",
            Cell::U32List(|example| example.tokens.clone()),
            "token id",
            "from `reach` tokens before the peak to `reach` after it, within the context",
        ),
        Column::new(
            "texts",
            Cell::TextList(|example| example.texts.iter().map(String::as_str).collect()),
            "",
            "the text of each",
        ),
        Column::new(
            "activations",
            Cell::F32List(|example| example.activations.clone()),
            "activation",
            "the latent's activation on each; 0 where it does not fire, and on position 0 and attention sinks",
        ),
    ],
};

/// A row is a token of the sample.
pub(crate) const SAMPLE: Table<SampleRow> = Table {
    file: "sample.parquet",
    command: "refract index",
    columns: &[
        Column::new("document", Cell::U64(|row| row.document), "number from 0", "its document"),
        Column::new("context", Cell::U64(|row| row.context), "number from 0", "its context"),
        Column::new("position", Cell::U32(|row| row.position), "number from 0", "its position in the context"),
        Column::new("token", Cell::U32(|row| row.token), "token id", "the token"),
        Column::new(
            "source",
            Cell::U32(|row| row.source.unwrap_or(u32::MAX)),
            "number from 0",
            "its source, a place in the manifest's `sources`; 4294967295 if it has none",
        ),
        Column::new(
            "ordinary",
            Cell::Bool(|row| row.ordinary),
            "",
            "false for position 0 and attention sinks, on which no latent is active",
        ),
        Column::new(
            "latents",
            Cell::U32List(|row| row.latents.clone()),
            "number from 0",
            "the latents that are active on it, ascending",
        ),
        Column::new(
            "activations",
            Cell::F32List(|row| row.activations.clone()),
            "activation",
            "the activation of each",
        ),
    ],
};

/// A row is a token of the control sample, encoded with a random dictionary.
pub(crate) const CONTROL: Table<SampleRow> = Table { file: "control.parquet", ..SAMPLE };

/// A token of the vocabulary and how often it occurs.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct TokenCount {
    pub(crate) token: u32,
    pub(crate) text: String,
    pub(crate) count: u64,
}

/// A row is a token of the vocabulary that occurs in the text.
pub(crate) const TOKENS: Table<TokenCount> = Table {
    file: "tokens.parquet",
    command: "refract index",
    columns: &[
        Column::new("token", Cell::U32(|row| row.token), "token id", "the token"),
        Column::new(
            "text",
            Cell::Text(|row| row.text.clone()),
            "",
            "its text; bytes that are no whole character as `<0xE2>`",
        ),
        Column::new("count", Cell::U64(|row| row.count), "tokens", "how often it occurs"),
    ],
};

/// A row is the label of a latent.
pub(crate) const LABELS: Table<Label> = Table {
    file: "labels.parquet",
    command: "refract index",
    columns: &[
        Column::new("latent", Cell::U32(|label| label.latent), "number from 0", "the latent"),
        Column::new("label", Cell::Text(|label| label.to_string()), "", "the label in words, with its F1"),
        Column::new(
            "rule",
            Cell::Text(|label| label.rule.clone()),
            "",
            "the rule that predicts best when it fires strongly, above 0.3 of its maximum; empty if it does so too seldom",
        ),
        Column::new("kind", Cell::Text(|label| label.kind.clone()), "", "kind of rule; empty without one"),
        Column::new(
            "precision",
            Cell::F32(|label| label.precision),
            "fraction",
            "share of the tokens where the rule holds on which the latent fires strongly. This and all that follows is of \
             the half of the documents on which the rule was not chosen",
        ),
        Column::new(
            "precision_low",
            Cell::F32(|label| label.precision_interval[0]),
            "fraction",
            "lower end of its 95 % interval (Wilson)",
        ),
        Column::new("precision_high", Cell::F32(|label| label.precision_interval[1]), "fraction", "upper end"),
        Column::new(
            "recall",
            Cell::F32(|label| label.recall),
            "fraction",
            "share of the strong firings where the rule holds",
        ),
        Column::new("recall_low", Cell::F32(|label| label.recall_interval[0]), "fraction", "as of the precision"),
        Column::new("recall_high", Cell::F32(|label| label.recall_interval[1]), "fraction", "as of the precision"),
        Column::new("f1", Cell::F32(|label| label.f1), "", "harmonic mean of the two; 1 is best"),
        Column::new(
            "f1_low",
            Cell::F32(|label| label.f1_interval[0]),
            "",
            "lower end of its 95 % interval, from that of the proportion J = F1 / (2 - F1)",
        ),
        Column::new("f1_high", Cell::F32(|label| label.f1_interval[1]), "", "upper end"),
        Column::new(
            "firings",
            Cell::U32(|label| label.firings),
            "tokens",
            "number of strong firings; below 20, the figures are not relied on",
        ),
        Column::new("holds", Cell::U32(|label| label.holds), "tokens", "number of tokens where the rule holds"),
        Column::new(
            "share_of_firings",
            Cell::F32(|label| label.share_of_firings),
            "fraction",
            "share of all firings, weak ones too, where the rule holds",
        ),
        Column::new(
            "share_of_mass",
            Cell::F32(|label| label.share_of_mass),
            "fraction",
            "share of the sum of all activations that comes from tokens where the rule holds",
        ),
        Column::new(
            "precision_by_quantile",
            Cell::F32List(|label| label.precision_by_quantile.clone()),
            "fraction",
            "share of the firings where the rule holds, by quantile of the activation: 0 to 0.5, 0.5 to 0.9, 0.9 to 0.99 \
             and above; empty without a rule",
        ),
    ],
};

/// A row is a latent whose effect was measured.
pub(crate) const EFFECTS: Table<Effect> = Table {
    file: "effects.parquet",
    command: "refract index",
    columns: &[
        Column::new("latent", Cell::U32(|effect| effect.latent), "number from 0", "the latent"),
        Column::new("dose", Cell::F32(|effect| effect.dose), "activation", "the activation that was added, its `p999`"),
        Column::new(
            "relative_dose",
            Cell::F32(|effect| effect.relative_dose),
            "times",
            "norm of the added direction over the norm of the activation that it is added to",
        ),
        Column::new(
            "kl",
            Cell::F32(|effect| effect.kl),
            "nats",
            "KL divergence of the next token's distribution from the model's own",
        ),
        Column::new(
            "dose_kl25",
            Cell::F32(|effect| effect.dose_kl25),
            "activation",
            "the activation that moves the next token by 0.25 nats; infinite if 20 times `max` does not",
        ),
        Column::new(
            "output_score",
            Cell::MaybeF64(|effect| effect.output_score.map(f64::from)),
            "fraction",
            "gain in the probability, times 1 - rank / d_vocab, of the likeliest of the 20 tokens of the logit lens; null if \
             the SAE writes to no residual stream",
        ),
        Column::new(
            "delta_confidence",
            Cell::F32(|effect| effect.delta_confidence),
            "nats",
            "log probability of the likeliest token before the edit minus after it: negative if the model gets more certain",
        ),
        Column::new(
            "lens_agreement",
            Cell::MaybeF64(|effect| effect.lens_agreement.map(f64::from)),
            "fraction",
            "Jaccard index of the top 20 tokens of the logit lens and of the measured ones; null where `output_score` is null",
        ),
        Column::new(
            "promoted_tokens",
            Cell::U32List(|effect| token_ids(&effect.promoted)),
            "token id",
            "the tokens whose log probability rises most, among those of a mean probability of at least 1e-5",
        ),
        Column::new("promoted_texts", Cell::TextList(|effect| texts(&effect.promoted)), "", "the text of each"),
        Column::new(
            "promoted_weights",
            Cell::F32List(|effect| weights(&effect.promoted)),
            "nats",
            "mean change of its log probability",
        ),
        Column::new(
            "suppressed_tokens",
            Cell::U32List(|effect| token_ids(&effect.suppressed)),
            "token id",
            "the tokens whose log probability falls most",
        ),
        Column::new("suppressed_texts", Cell::TextList(|effect| texts(&effect.suppressed)), "", "the text of each"),
        Column::new(
            "suppressed_weights",
            Cell::F32List(|effect| weights(&effect.suppressed)),
            "nats",
            "mean change of its log probability",
        ),
    ],
};

fn token_ids(tokens: &[TokenWeight]) -> Vec<u32> {
    tokens.iter().map(|token| token.token).collect()
}

fn texts(tokens: &[TokenWeight]) -> Vec<&str> {
    tokens.iter().map(|token| token.text.as_str()).collect()
}

fn weights(tokens: &[TokenWeight]) -> Vec<f32> {
    tokens.iter().map(|token| token.weight).collect()
}

/// Rows of a table of features.
pub(crate) fn read_features(table: &TableReader, rows: Range<usize>) -> Result<Vec<Feature>> {
    let mut features: Vec<Feature> = table
        .read_rows::<u32>("latent", rows.clone())?
        .into_iter()
        .map(|latent| Feature { latent, ..Feature::default() })
        .collect();
    macro_rules! fill {
        ($($column:literal: $kind:ty => |$feature:ident, $value:ident| $set:expr;)*) => { $(
            for ($feature, $value) in features.iter_mut().zip(table.read_rows::<$kind>($column, rows.clone())?) {
                $set;
            }
        )* };
    }
    fill! {
        "n_active": u64 => |feature, n| feature.n_active = n;
        "density": f64 => |feature, density| feature.density = density;
        "max": f32 => |feature, max| feature.max = max;
        "mean": f32 => |feature, mean| feature.mean = mean;
        "p50": f32 => |feature, value| feature.quantiles[0] = value;
        "p90": f32 => |feature, value| feature.quantiles[1] = value;
        "p99": f32 => |feature, value| feature.quantiles[2] = value;
        "p999": f32 => |feature, value| feature.quantiles[3] = value;
        "histogram_start": u32 => |feature, start| feature.histogram.start = start;
        "histogram": Vec<u32> => |feature, counts| feature.histogram.counts = counts;
        "activation_sum": u64 => |feature, sum| feature.activation_sum = sum;
        "n_active_by_source": Vec<u64> => |feature, counts| feature.n_active_by_source = counts;
        "density_by_source": Vec<f32> => |feature, densities| feature.density_by_source = densities;
        "fires_on": Vec<String> => |feature, texts| feature.fires_on = texts;
        "silent_rows": Vec<u32> => |feature, silent| feature.silent_rows = silent;
        "first_example": u64 => |feature, first| feature.first_example = first;
        "n_examples": u32 => |feature, n| feature.n_examples = n;
    }
    let promoted = read_tokens(table, "promoted", rows.clone())?;
    let suppressed = read_tokens(table, "suppressed", rows.clone())?;
    let nearest = table.read_rows::<Vec<u32>>("nearest_latents", rows.clone())?;
    let cosines = table.read_rows::<Vec<f32>>("nearest_cosines", rows.clone())?;
    let fires_with = table.read_rows::<Vec<u32>>("fires_with_latents", rows.clone())?;
    let shares = table.read_rows::<Vec<f32>>("fires_with_shares", rows.clone())?;
    let lifts = table.read_rows::<Vec<f32>>("fires_with_lifts", rows)?;
    let tokens = promoted.into_iter().zip(suppressed);
    let others = nearest.into_iter().zip(cosines).zip(fires_with.into_iter().zip(shares).zip(lifts));
    for ((feature, (promoted, suppressed)), ((nearest, cosines), ((latents, shares), lifts))) in
        features.iter_mut().zip(tokens).zip(others)
    {
        (feature.promoted, feature.suppressed) = (promoted, suppressed);
        feature.nearest = nearest.into_iter().zip(cosines).collect();
        let other = |((latent, share), lift)| FiresWith { latent, share, lift };
        feature.fires_with = latents.into_iter().zip(shares).zip(lifts).map(other).collect();
    }
    Ok(features)
}

/// The tokens of each latent that the columns `{kind}_tokens`, `{kind}_texts` and `{kind}_weights` list.
fn read_tokens(table: &TableReader, kind: &str, rows: Range<usize>) -> Result<Vec<Vec<TokenWeight>>> {
    let tokens = table.read_rows::<Vec<u32>>(&format!("{kind}_tokens"), rows.clone())?;
    let texts = table.read_rows::<Vec<String>>(&format!("{kind}_texts"), rows.clone())?;
    let weights = table.read_rows::<Vec<f32>>(&format!("{kind}_weights"), rows)?;
    let one = |((token, text), weight)| TokenWeight { token, text, weight };
    let row = |((tokens, texts), weights): ((Vec<u32>, Vec<String>), Vec<f32>)| {
        tokens.into_iter().zip(texts).zip(weights).map(one).collect()
    };
    Ok(tokens.into_iter().zip(texts).zip(weights).map(row).collect())
}

/// Rows of a table of examples.
pub(crate) fn read_examples(table: &TableReader, rows: Range<usize>) -> Result<Vec<Example>> {
    let kind = |name: String| {
        let invalid = || harvester::Error::invalid("`kind` of an example", "`top` or `sampled`", format!("`{name}`"));
        ExampleKind::named(&name).ok_or_else(invalid)
    };
    let kinds: Vec<String> = table.read_rows("kind", rows.clone())?;
    let kinds: Vec<ExampleKind> = kinds.into_iter().map(kind).collect::<std::result::Result<_, _>>()?;
    let rank = table.read_rows::<u32>("rank", rows.clone())?;
    let quantile = table.read_rows::<f32>("quantile", rows.clone())?;
    let activation = table.read_rows::<f32>("activation", rows.clone())?;
    let (document, context) =
        (table.read_rows::<u64>("document", rows.clone())?, table.read_rows::<u64>("context", rows.clone())?);
    let (position, peak) =
        (table.read_rows::<u32>("position", rows.clone())?, table.read_rows::<u32>("peak", rows.clone())?);
    let mut tokens = table.read_rows::<Vec<u32>>("tokens", rows.clone())?.into_iter();
    let mut texts = table.read_rows::<Vec<String>>("texts", rows.clone())?.into_iter();
    let mut activations = table.read_rows::<Vec<f32>>("activations", rows.clone())?.into_iter();
    let latents = table.read_rows::<u32>("latent", rows)?.into_iter().enumerate();
    let example = |(row, latent): (usize, u32)| Example {
        latent,
        kind: kinds[row],
        rank: rank[row],
        quantile: quantile[row],
        activation: activation[row],
        document: document[row],
        context: context[row],
        position: position[row],
        peak: peak[row],
        tokens: tokens.next().unwrap_or_default(),
        texts: texts.next().unwrap_or_default(),
        activations: activations.next().unwrap_or_default(),
    };
    Ok(latents.map(example).collect())
}

/// Rows of a table of labels.
pub(crate) fn read_labels(table: &TableReader, rows: Range<usize>) -> Result<Vec<Label>> {
    let rules = table.read_rows::<String>("rule", rows.clone())?;
    let kinds = table.read_rows::<String>("kind", rows.clone())?;
    let number = |name: &str| table.read_rows::<f32>(name, rows.clone());
    // The figure, and the ends of its interval.
    let measured = |name: &str| -> Result<[Vec<f32>; 3]> {
        Ok([number(name)?, number(&format!("{name}_low"))?, number(&format!("{name}_high"))?])
    };
    let (precision, recall, f1) = (measured("precision")?, measured("recall")?, measured("f1")?);
    let (of_firings, of_mass) = (number("share_of_firings")?, number("share_of_mass")?);
    let firings = table.read_rows::<u32>("firings", rows.clone())?;
    let holds = table.read_rows::<u32>("holds", rows.clone())?;
    let interval = |of: &[Vec<f32>; 3], row: usize| [of[1][row], of[2][row]];
    let by_quantile = table.read_rows::<Vec<f32>>("precision_by_quantile", rows.clone())?;
    let latents = table.read_rows::<u32>("latent", rows.clone())?;
    let texts = rules.into_iter().zip(kinds).zip(by_quantile).zip(latents).enumerate();
    let label = |(row, (((rule, kind), precision_by_quantile), latent)): (usize, _)| Label {
        latent,
        rule,
        kind,
        precision: precision[0][row],
        precision_interval: interval(&precision, row),
        recall: recall[0][row],
        recall_interval: interval(&recall, row),
        f1: f1[0][row],
        f1_interval: interval(&f1, row),
        firings: firings[row],
        holds: holds[row],
        share_of_firings: of_firings[row],
        share_of_mass: of_mass[row],
        precision_by_quantile,
    };
    Ok(texts.map(label).collect())
}

/// Rows of a table of effects.
pub(crate) fn read_effects(table: &TableReader, rows: Range<usize>) -> Result<Vec<Effect>> {
    let number = |name: &str| table.read_rows::<f32>(name, rows.clone());
    let maybe = |name: &str| table.read_rows::<Option<f64>>(name, rows.clone());
    let (dose, relative_dose) = (number("dose")?, number("relative_dose")?);
    let (kl, dose_kl25, delta_confidence) = (number("kl")?, number("dose_kl25")?, number("delta_confidence")?);
    let (output_score, lens_agreement) = (maybe("output_score")?, maybe("lens_agreement")?);
    let promoted = read_tokens(table, "promoted", rows.clone())?;
    let suppressed = read_tokens(table, "suppressed", rows.clone())?;
    let latents = table.read_rows::<u32>("latent", rows.clone())?;
    let tokens = promoted.into_iter().zip(suppressed).zip(latents).enumerate();
    let effect = |(row, ((promoted, suppressed), latent)): (usize, _)| Effect {
        latent,
        dose: dose[row],
        relative_dose: relative_dose[row],
        kl: kl[row],
        dose_kl25: dose_kl25[row],
        output_score: output_score[row].map(|score| score as f32),
        delta_confidence: delta_confidence[row],
        lens_agreement: lens_agreement[row].map(|share| share as f32),
        promoted,
        suppressed,
    };
    Ok(tokens.map(effect).collect())
}

/// All rows of a table of a sample.
pub(crate) fn read_sample(table: &TableReader) -> Result<Sample> {
    let mut sample = Sample::default();
    let n_rows = table.n_rows();
    // Some rows at a time: a list of each is built before they are joined.
    for start in (0..n_rows).step_by(4 * SAMPLE_GROUP) {
        let rows = start..n_rows.min(start + 4 * SAMPLE_GROUP);
        let document = table.read_rows::<u64>("document", rows.clone())?;
        let context = table.read_rows::<u64>("context", rows.clone())?;
        let position = table.read_rows::<u32>("position", rows.clone())?;
        let token = table.read_rows::<u32>("token", rows.clone())?;
        let source = table.read_rows::<u32>("source", rows.clone())?;
        let ordinary = table.read_rows::<bool>("ordinary", rows.clone())?;
        let latents = table.read_rows::<Vec<u32>>("latents", rows.clone())?;
        let activations = table.read_rows::<Vec<f32>>("activations", rows)?;
        for (row, (latents, activations)) in latents.into_iter().zip(activations).enumerate() {
            sample.push(SampleRow {
                document: document[row],
                context: context[row],
                position: position[row],
                token: token[row],
                source: Some(source[row]),
                ordinary: ordinary[row],
                latents,
                activations,
            });
        }
    }
    Ok(sample)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::fs;

    use super::*;
    use crate::features::Histogram;
    use crate::features::LATENTS;

    fn lens_of(n: u32) -> Vec<TokenWeight> {
        vec![TokenWeight { token: n, text: format!(" é{n}"), weight: n as f32 }]
    }

    fn feature(latent: u32) -> Feature {
        let lens = lens_of;
        Feature {
            latent,
            n_active: 7,
            density: 0.25,
            max: 3.5,
            mean: 1.5,
            quantiles: [1.0, 2.0, 3.0, 3.5],
            histogram: Histogram { start: 9, counts: vec![1, 2, 3] },
            activation_sum: 77,
            n_active_by_source: vec![7, 0],
            fires_on: vec!["a".into(), "é".into()],
            density_by_source: vec![0.5, 0.0],
            promoted: lens(latent),
            suppressed: vec![],
            nearest: vec![(latent + 1, 0.5)],
            fires_with: vec![FiresWith { latent: 3, share: 0.5, lift: 9.0 }],
            silent_rows: vec![4, 2],
            first_example: 5,
            n_examples: 1,
        }
    }

    #[test]
    fn rows_survive_a_round_trip() {
        let folder = tempfile::tempdir().unwrap();
        let features = vec![feature(0), feature(1)];
        FEATURES.write(folder.path(), &features).unwrap();
        let table = FEATURES.open(folder.path()).unwrap();
        assert_eq!(read_features(&table, 0..2).unwrap(), features);
        assert_eq!(read_features(&table, 1..2).unwrap(), features[1..]);
        let example = Example {
            latent: 1,
            kind: ExampleKind::Sampled,
            rank: 0,
            quantile: 0.25,
            activation: 2.0,
            document: 3,
            context: 4,
            position: 5,
            peak: 1,
            tokens: vec![8, 9],
            texts: vec!["a".into(), String::new()],
            activations: vec![0.0, 2.0],
        };
        EXAMPLES.write(folder.path(), std::slice::from_ref(&example)).unwrap();
        assert_eq!(read_examples(&EXAMPLES.open(folder.path()).unwrap(), 0..1).unwrap(), [example]);
        let label = Label {
            latent: 1,
            rule: "on \"when\"".into(),
            kind: "word".into(),
            precision: 0.5,
            precision_interval: [0.25, 0.75],
            recall: 0.25,
            recall_interval: [0.2, 0.3],
            f1: 0.3,
            f1_interval: [0.15, 0.45],
            firings: 9,
            holds: 12,
            share_of_firings: 0.1,
            share_of_mass: 0.2,
            precision_by_quantile: vec![0.1, 0.2, 0.3, 0.4],
        };
        LABELS.write(folder.path(), std::slice::from_ref(&label)).unwrap();
        assert_eq!(read_labels(&LABELS.open(folder.path()).unwrap(), 0..1).unwrap(), [label]);
        let effect = |output_score| Effect {
            latent: 1,
            dose: 3.0,
            relative_dose: 0.25,
            kl: 0.5,
            dose_kl25: f32::INFINITY,
            output_score,
            delta_confidence: -0.5,
            lens_agreement: output_score,
            promoted: lens_of(4),
            suppressed: lens_of(5),
        };
        let effects = [effect(Some(0.5)), effect(None)];
        EFFECTS.write(folder.path(), &effects).unwrap();
        assert_eq!(read_effects(&EFFECTS.open(folder.path()).unwrap(), 0..2).unwrap(), effects);
        let mut sample = Sample::default();
        let row = SampleRow { context: 3, latents: vec![1, 5], activations: vec![0.5, 1.0], ..SampleRow::default() };
        sample.push(SampleRow { source: Some(1), ordinary: true, ..row.clone() });
        sample.push(SampleRow { source: None, latents: vec![], activations: vec![], ..row });
        SAMPLE.write(folder.path(), &[sample.row(0), sample.row(1)]).unwrap();
        assert_eq!(read_sample(&SAMPLE.open(folder.path()).unwrap()).unwrap(), sample);
    }

    #[test]
    fn a_cut_table_is_an_error_that_names_it() {
        let folder = tempfile::tempdir().unwrap();
        FEATURES.write(folder.path(), &[feature(0)]).unwrap();
        let path = folder.path().join(FEATURES.file);
        let bytes = fs::read(&path).unwrap();
        fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
        assert!(FEATURES.open(folder.path()).unwrap_err().to_string().contains(FEATURES.file));
    }

    #[test]
    fn the_documentation_has_these_columns() {
        let documented = include_str!("../../../data/README.md");
        let tables =
            [FEATURES.markdown(), EXAMPLES.markdown(), SAMPLE.markdown(), TOKENS.markdown(), LATENTS.markdown()];
        for columns in tables.into_iter().chain([LABELS.markdown(), EFFECTS.markdown()]) {
            assert!(documented.contains(&columns), "data/README.md should have:\n{columns}");
        }
    }
}
