//! `features.parquet` and `examples.parquet`: their columns, and how rows are made of them again.

use harvester::{Cell, Column, Result, Table, TableReader};

use super::feature::{Example, Feature};
use crate::TokenWeight;

/// A row is a latent.
pub(crate) const FEATURES: Table<Feature> = Table {
    file: "features.parquet",
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
            "histogram",
            Cell::U32List(|feature| feature.histogram.clone()),
            "tokens",
            "32 bins: active tokens by activation. Bin `i` begins at 2^(i / 2 - 6), so bins are half-octaves from \
             2^-6; the first and the last also hold what lies outside",
        ),
        Column::new(
            "density_by_source",
            Cell::F32List(|feature| feature.density_by_source.clone()),
            "fraction",
            "density within each source of the corpus, in the order of the manifest's `sources`",
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
    ],
};

/// A row is an example.
pub(crate) const EXAMPLES: Table<Example> = Table {
    file: "examples.parquet",
    columns: &[
        Column::new("latent", Cell::U32(|example| example.latent), "number from 0", "the latent"),
        Column::new("rank", Cell::U32(|example| example.rank), "number from 0", "0 for its strongest example"),
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

fn token_ids(tokens: &[TokenWeight]) -> Vec<u32> {
    tokens.iter().map(|token| token.token).collect()
}

fn texts(tokens: &[TokenWeight]) -> Vec<&str> {
    tokens.iter().map(|token| token.text.as_str()).collect()
}

fn weights(tokens: &[TokenWeight]) -> Vec<f32> {
    tokens.iter().map(|token| token.weight).collect()
}

/// Every row of a table of features.
pub(crate) fn read_features(table: &TableReader) -> Result<Vec<Feature>> {
    let n_active = table.read::<u64>("n_active")?;
    let density = table.read::<f64>("density")?;
    let (max, mean) = (table.read::<f32>("max")?, table.read::<f32>("mean")?);
    let mut histogram = table.read::<Vec<u32>>("histogram")?.into_iter();
    let mut by_source = table.read::<Vec<f32>>("density_by_source")?.into_iter();
    let mut promoted = read_tokens(table, "promoted")?.into_iter();
    let mut suppressed = read_tokens(table, "suppressed")?.into_iter();
    let mut nearest = table.read::<Vec<u32>>("nearest_latents")?.into_iter();
    let mut cosines = table.read::<Vec<f32>>("nearest_cosines")?.into_iter();
    let latents = table.read::<u32>("latent")?.into_iter().enumerate();
    let feature = |(row, latent)| Feature {
        latent,
        n_active: n_active[row],
        density: density[row],
        max: max[row],
        mean: mean[row],
        histogram: histogram.next().unwrap_or_default(),
        density_by_source: by_source.next().unwrap_or_default(),
        promoted: promoted.next().unwrap_or_default(),
        suppressed: suppressed.next().unwrap_or_default(),
        nearest: nearest.next().unwrap_or_default().into_iter().zip(cosines.next().unwrap_or_default()).collect(),
    };
    Ok(latents.map(feature).collect())
}

/// The tokens of each latent that the columns `{kind}_tokens`, `{kind}_texts` and `{kind}_weights` list.
fn read_tokens(table: &TableReader, kind: &str) -> Result<Vec<Vec<TokenWeight>>> {
    let tokens = table.read::<Vec<u32>>(&format!("{kind}_tokens"))?;
    let texts = table.read::<Vec<String>>(&format!("{kind}_texts"))?;
    let weights = table.read::<Vec<f32>>(&format!("{kind}_weights"))?;
    let one = |((token, text), weight)| TokenWeight { token, text, weight };
    let row = |((tokens, texts), weights): ((Vec<u32>, Vec<String>), Vec<f32>)| {
        tokens.into_iter().zip(texts).zip(weights).map(one).collect()
    };
    Ok(tokens.into_iter().zip(texts).zip(weights).map(row).collect())
}

/// Every row of a table of examples.
pub(crate) fn read_examples(table: &TableReader) -> Result<Vec<Example>> {
    let rank = table.read::<u32>("rank")?;
    let activation = table.read::<f32>("activation")?;
    let (document, context) = (table.read::<u64>("document")?, table.read::<u64>("context")?);
    let (position, peak) = (table.read::<u32>("position")?, table.read::<u32>("peak")?);
    let mut tokens = table.read::<Vec<u32>>("tokens")?.into_iter();
    let mut texts = table.read::<Vec<String>>("texts")?.into_iter();
    let mut activations = table.read::<Vec<f32>>("activations")?.into_iter();
    let latents = table.read::<u32>("latent")?.into_iter().enumerate();
    let example = |(row, latent)| Example {
        latent,
        rank: rank[row],
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

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::fs;

    use super::*;

    fn feature(latent: u32) -> Feature {
        let lens = |n| vec![TokenWeight { token: n, text: format!(" é{n}"), weight: n as f32 }];
        Feature {
            latent,
            n_active: 7,
            density: 0.25,
            max: 3.5,
            mean: 1.5,
            histogram: vec![1, 2, 3],
            density_by_source: vec![0.5, 0.0],
            promoted: lens(latent),
            suppressed: vec![],
            nearest: vec![(latent + 1, 0.5)],
        }
    }

    #[test]
    fn features_and_examples_survive_a_round_trip() {
        let folder = tempfile::tempdir().unwrap();
        let features = vec![feature(0), feature(1)];
        FEATURES.write(folder.path(), &features).unwrap();
        assert_eq!(read_features(&FEATURES.open(folder.path()).unwrap()).unwrap(), features);
        let example = Example {
            latent: 1,
            rank: 0,
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
        assert_eq!(read_examples(&EXAMPLES.open(folder.path()).unwrap()).unwrap(), [example]);
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
        for columns in [FEATURES.markdown(), EXAMPLES.markdown()] {
            assert!(documented.contains(&columns), "data/README.md should have:\n{columns}");
        }
    }
}
