//! [`Interventions`]: edits, ready to be applied inside a forward pass.
//!
//! At each hook point the edits are applied in the stated order. Edits of latents of one SAE that stand next to each
//! other are one step: they read the same encoding, `z = encode(h)`, and with `z'` after all of them
//! ```text
//! h' = h + s sum_j (z'_j - z_j) W_dec[j]      s = 1, or with an input norm the factor that undoes it for the row h
//! ```
//! or, with a `splice` among them, the same sum on the reconstruction instead of `h`. Two edits of one latent are applied
//! one after the other, to the `z'` of the first.
//!
//! With a decay, or anything that leaves a row out, a change `z' - z` or `h' - h` is multiplied by its weight: `decay^g`
//! on the g-th generated token from 0, and 0 outside the scope. The edit of a row depends only on that row and, for a
//! condition per prompt, on the prompt before it: so cached generation equals a pass over the whole text.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    path::Path,
};

use candle_core::Tensor;
use harvester::{Edit, Error as Harvester, Hook, HookPoint, LanguageModel, Row, Rows, is_ordinary, norm};

use super::{
    compile::{Compiler, SteeredSae, contradictions},
    control_vector::ControlVector,
    intervention::{Direction, Intervention, Scope, SteerEdit},
    scope::{CompiledScope, Condition},
    step::{EditCount, LatentMax, Place, PlacePass, Seen, Step},
};
use crate::{Result, tensor_rows};

/// A hook that applies edits.
#[derive(Debug)]
pub struct Interventions<'a> {
    /// In the order of the pass.
    places: Vec<Place<'a>>,
    conditions: Vec<Condition<'a>>,
    scopes: Vec<CompiledScope>,
    counts: Vec<EditCount>,
    /// Number of the edit of which each is a part: a control vector has one for each of its layers.
    owners: Vec<usize>,
    seen: BTreeMap<(usize, u32), Seen>,
    special: HashSet<u32>,
    /// The only text that is edited; `None`: all.
    only: Option<usize>,
    /// Length of every prompt, if it is given.
    prompt_len: Option<usize>,
    /// Length of each text's prompt: the rows of the pass that has its position 0.
    prompts: HashMap<usize, usize>,
    /// The point at which the pass also continues with the unedited text, before the edited one.
    fork: Option<HookPoint>,
    /// The rows of the present pass that may be edited; `None`: all.
    rows: Option<Vec<bool>>,
}

impl<'a> Interventions<'a> {
    /// Makes `edits` ready for `model`. An edit of latents refers to one of `saes` by name or hook point; without either
    /// it is of the first.
    ///
    /// # Errors
    /// An SAE that does not reconstruct the hook point that it reads, or is none of the model's; a latent, a hook point
    /// or an SAE that is not there; a vector of another width; a strength that is not finite, or whose unit was not
    /// measured; edits that contradict each other.
    pub fn new(model: &LanguageModel, saes: &[SteeredSae<'a>], edits: &[SteerEdit]) -> Result<Self> {
        contradictions(edits)?;
        let parts = edits.iter().enumerate().map(|(number, edit)| Ok((number, parts(edit)?)));
        let parts: Vec<(usize, Vec<SteerEdit>)> = parts.collect::<Result<_>>()?;
        let (owners, edits): (Vec<usize>, Vec<SteerEdit>) =
            parts.into_iter().flat_map(|(number, parts)| parts.into_iter().map(move |part| (number, part))).unzip();
        let mut compiler = Compiler { model, saes, places: BTreeMap::new(), conditions: vec![] };
        let scopes = edits
            .iter()
            .enumerate()
            .map(|(number, edit)| compiler.add(number, edit).map_err(|error| in_edit(owners[number], edit, error)));
        let scopes = scopes.collect::<Result<Vec<_>>>()?;
        let Compiler { places, conditions, .. } = compiler;
        let counts = vec![EditCount::default(); edits.len()];
        let special = model.tokenizer().special_tokens().into_keys().collect();
        Ok(Self {
            places: places.into_values().collect(),
            conditions,
            scopes,
            counts,
            owners,
            seen: BTreeMap::new(),
            special,
            only: None,
            prompt_len: None,
            prompts: HashMap::new(),
            fork: None,
            rows: None,
        })
    }

    /// Edits only the text with this number.
    pub fn only(mut self, text: usize) -> Self {
        self.only = Some(text);
        self
    }

    /// Takes the first tokens of every text for its prompt. Without it, a prompt is what a text's first pass has.
    pub fn with_prompt_len(mut self, tokens: usize) -> Self {
        self.prompt_len = Some(tokens);
        self
    }

    /// Runs the unedited text beside the edited one: two variants from the first edited hook point on, the unedited one
    /// first.
    pub(crate) fn beside_clean(mut self) -> Self {
        self.fork = Some(self.places.first().map_or(HookPoint::Embed, |place| place.hook_point));
        self
    }

    /// Edits only these rows of the passes that follow: one entry for each row.
    pub(crate) fn edit_only(&mut self, rows: Vec<bool>) {
        self.rows = Some(rows);
    }

    /// The hook points of the edits, in order of the pass.
    pub(crate) fn hook_points(&self) -> impl Iterator<Item = HookPoint> {
        self.places.iter().map(|place| place.hook_point)
    }

    /// How many rows each edit met so far, in the stated order.
    pub fn counts(&self) -> Vec<EditCount> {
        let mut of_edits = vec![EditCount::default(); self.owners.last().map_or(0, |last| last + 1)];
        for (owner, count) in self.owners.iter().zip(&self.counts) {
            of_edits[*owner].in_scope += count.in_scope;
            of_edits[*owner].changed += count.changed;
        }
        of_edits
    }

    /// The edited latents, in the order of SAEs and latents, with what was seen of each in a pass that also ran the
    /// unedited text.
    pub(crate) fn seen(&self) -> Vec<LatentMax> {
        self.seen.iter().map(|((_, latent), seen)| seen.of(*latent)).collect()
    }

    /// Length of the prompt of a text.
    fn prompt_of(&self, text: usize) -> usize {
        self.prompt_len.or_else(|| self.prompts.get(&text).copied()).unwrap_or(0)
    }

    /// Edits `x` in place. Returns true if anything changed. `x`: `[rows, width]`
    fn edit(&mut self, place: usize, rows: &[Row], x: &mut [f32]) -> Result<bool> {
        let width = x.len() / rows.len().max(1);
        let Place { hook_point, sink_norm, .. } = self.places[place];
        let is_edited = |row: &Row, x: &[f32]| {
            self.only.is_none_or(|only| only == row.sequence) && is_ordinary(row.position as u32, norm(x), sink_norm)
        };
        let edited: Vec<bool> = rows.iter().zip(x.chunks_exact(width)).map(|(row, x)| is_edited(row, x)).collect();
        self.learn_prompts(rows);
        let prompt_lens: Vec<usize> = rows.iter().map(|row| self.prompt_of(row.sequence)).collect();
        for condition in self.conditions.iter_mut().filter(|condition| condition.hook_point == hook_point) {
            condition.see(rows, &edited, &prompt_lens, x)?;
        }
        let weights: Vec<Vec<f32>> = self
            .scopes
            .iter()
            .map(|scope| {
                // A condition may be at a later place of another edit.
                let is_here = scope.hook_point == hook_point;
                let may_edit = |row: usize| edited[row] && self.rows.as_ref().is_none_or(|rows| rows[row]);
                let weight = |row: usize| match is_here && may_edit(row) {
                    true => scope.weight((row, &rows[row]), prompt_lens[row], &self.special, &self.conditions),
                    false => 0.0,
                };
                (0..rows.len()).map(weight).collect()
            })
            .collect();
        let mut pass = PlacePass {
            width,
            weights: &weights,
            watch_all: self.fork.is_some().then_some(&edited[..]),
            is_prompt: rows.iter().zip(&prompt_lens).map(|(row, len)| row.position < *len).collect(),
            counts: &mut self.counts,
            seen: &mut self.seen,
            counted: HashSet::new(),
            changed: false,
        };
        for step in &mut self.places[place].steps {
            match step {
                Step::Latents(step) => pass.edit_latents(step, x)?,
                Step::Direction(step) => pass.edit_direction(step, x),
            }
        }
        Ok(pass.changed)
    }

    /// The rows of a text that are in a pass with its position 0 are its prompt.
    fn learn_prompts(&mut self, rows: &[Row]) {
        for row in rows.iter().filter(|row| row.position == 0) {
            let len = rows.iter().filter(|other| other.sequence == row.sequence).count();
            self.prompts.insert(row.sequence, len);
        }
    }
}

impl Hook for Interventions<'_> {
    fn wants(&self, point: HookPoint) -> bool {
        self.fork == Some(point) || self.places.iter().any(|place| place.hook_point == point)
    }

    fn apply(&mut self, point: HookPoint, rows: &Rows, activation: &Tensor) -> harvester::Result<Edit> {
        let mut edited = || -> Result<Edit> {
            let mut x = tensor_rows::rows(activation)?;
            let all: Vec<Row> = rows.iter().collect();
            // After the fork the first half of the rows is the unedited text.
            let is_forked = self.fork.is_some_and(|fork| fork != point);
            let start = if is_forked { all.len() / 2 } else { 0 };
            let width = x.len() / all.len().max(1);
            let changed = match self.places.iter().position(|place| place.hook_point == point) {
                Some(place) => self.edit(place, &all[start..], &mut x[start * width..])?,
                None => false,
            };
            let x = if changed { tensor_rows::replaced(activation, x)? } else { activation.clone() };
            Ok(match (self.fork == Some(point), changed) {
                (true, _) => Edit::Variants(vec![activation.clone(), x]),
                (false, true) => Edit::Replace(x),
                (false, false) => Edit::Keep,
            })
        };
        edited().map_err(|error| Harvester::Hook(error.into()))
    }
}

/// An edit as the parts that are each at one hook point.
fn parts(edit: &SteerEdit) -> Result<Vec<SteerEdit>> {
    let is_control_vector = |path: &Path| path.extension().is_some_and(|extension| extension == "gguf");
    match &edit.what {
        Intervention::Add { direction: Direction::File(path), value } if is_control_vector(path) => {
            if let Some(point) = edit.scope.hook_point {
                let expected = "no `hook_point`: the file has a layer for each vector";
                return Err(Harvester::invalid(path.display().to_string(), expected, point.to_string()).into());
            }
            let vectors = ControlVector::read(path)?;
            let part = |(point, vector): (HookPoint, &[f32])| SteerEdit {
                what: Intervention::Add { direction: Direction::Vector(vector.to_vec()), value: *value },
                scope: Scope { hook_point: Some(point), ..edit.scope.clone() },
            };
            Ok(vectors.vectors().map(part).collect())
        }
        _ => Ok(vec![edit.clone()]),
    }
}

/// Says which edit an error is about.
fn in_edit(number: usize, edit: &SteerEdit, error: crate::Error) -> crate::Error {
    match error {
        crate::Error::Harvester(Harvester::Invalid { what, expected, found }) => {
            Harvester::Invalid { what: format!("edit {} ({}): {what}", number + 1, edit.what), expected, found }.into()
        }
        other => other,
    }
}
