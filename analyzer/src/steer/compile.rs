//! [`Compiler`]: makes of edits the steps at each hook point. Whatever cannot be done is refused here, before the model
//! runs.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    mem::discriminant,
};

use harvester::{Error as Harvester, HookPoint, LanguageModel, norm};
use trainer::{InputNorm, LatentEncoder, Sae};

use super::{
    direction::SteerVector,
    intervention::{Direction, Intervention, SteerEdit},
    scope::{CompiledScope, Condition},
    step::{DirectionChange, DirectionStep, LatentChange, LatentEdit, LatentStep, Place, Step},
    strength::{Amount, LatentScales, Strength, finite},
};
use crate::{Result, SaeSite};

/// An SAE whose latents may be edited.
#[derive(Debug, Clone)]
pub struct SteeredSae<'a> {
    /// The name by which edits refer to it.
    pub name: String,
    /// The SAE.
    pub site: SaeSite<'a>,
    /// Its SHA-256, as [`crate::PlacedSae`] has it; `None`: not known.
    pub sha256: Option<&'a str>,
    /// What was measured of its latents, for strengths in `max` and `kl`.
    pub scales: Option<&'a LatentScales>,
}

impl<'a> From<SaeSite<'a>> for SteeredSae<'a> {
    fn from(site: SaeSite<'a>) -> Self {
        Self { name: String::new(), site, sha256: None, scales: None }
    }
}

/// Makes the steps of each hook point from edits.
pub(super) struct Compiler<'c, 'a> {
    pub(super) model: &'c LanguageModel,
    pub(super) saes: &'c [SteeredSae<'a>],
    pub(super) places: BTreeMap<HookPoint, Place<'a>>,
    pub(super) conditions: Vec<Condition<'a>>,
}

impl<'a> Compiler<'_, 'a> {
    pub(super) fn add(&mut self, number: usize, edit: &SteerEdit) -> Result<CompiledScope> {
        let SteerEdit { what, scope } = edit;
        let point = match what {
            Intervention::Add { direction, value } => {
                let (step, point) = self.direction(number, edit, direction)?;
                self.watch(edit, direction, point)?;
                let scales = self.sae_of(edit).ok().and_then(|sae| self.saes[sae].scales);
                let change = DirectionChange::Add(value.amount(direction.latent(), scales)?);
                self.place(point)?.steps.push(Step::Direction(DirectionStep { change, ..step }));
                point
            }
            Intervention::Ablate { direction } => {
                let (step, point) = self.direction(number, edit, direction)?;
                self.watch(edit, direction, point)?;
                self.place(point)?.steps.push(Step::Direction(step));
                point
            }
            Intervention::Swap { direction, to } => {
                let (step, point) = self.direction(number, edit, direction)?;
                self.watch(edit, direction, point)?;
                let (other, _) = self.direction(number, edit, to)?;
                let change = DirectionChange::Swap(other.unit);
                self.place(point)?.steps.push(Step::Direction(DirectionStep { change, ..step }));
                point
            }
            latents => {
                let sae = self.sae_of(edit)?;
                let change = latent_change(latents, self.saes[sae].scales)?;
                self.add_latent(sae, LatentEdit { number, change })?;
                self.saes[sae].site.hook_point
            }
        };
        let when = scope.when.is_some().then(|| self.condition(edit, point)).transpose()?;
        if !(scope.decay > 0.0 && scope.decay <= 1.0) {
            return Err(Harvester::invalid("`decay`", "above 0 and at most 1", scope.decay.to_string()).into());
        }
        let tokens = (!scope.tokens.is_empty()).then(|| self.tokens(&scope.tokens)).transpose()?;
        let (at, special_tokens, decay) = (scope.at.clone(), scope.special_tokens, scope.decay);
        Ok(CompiledScope { hook_point: point, at, tokens, special_tokens, when, decay })
    }

    /// Adds an edit of a latent to the step of its SAE.
    fn add_latent(&mut self, sae: usize, edit: LatentEdit) -> Result<()> {
        edit.change.latent().map_or(Ok(()), |latent| check_latent(latent, self.saes[sae].site.sae))?;
        let step = self.latent_step(sae)?;
        edit.change.latent().map_or(Ok(()), |latent| step.read_latent(latent))?;
        step.edits.push(edit);
        Ok(())
    }

    /// Reads the latent whose direction is edited, if there is one, to say how strongly it fires by itself.
    fn watch(&mut self, edit: &SteerEdit, direction: &Direction, point: HookPoint) -> Result<()> {
        let Some(latent) = direction.latent() else { return Ok(()) };
        let sae = self.sae_of(edit)?;
        if self.saes[sae].site.hook_point == point { self.latent_step(sae)?.read_latent(latent) } else { Ok(()) }
    }

    /// The last step at the hook point of an SAE if that edits its latents, or else a new one.
    fn latent_step(&mut self, sae: usize) -> Result<&mut LatentStep<'a>> {
        let site = self.saes[sae].site;
        site.sae.config().hook_points.check_autoencoder()?;
        check_width("SAE", site.sae.d_in(), site.hook_point, self.model)?;
        let place = self.place(site.hook_point)?;
        place.sink_norm = place.sink_norm.min(site.sink_norm);
        if !matches!(place.steps.last(), Some(Step::Latents(step)) if step.sae == sae) {
            let encoder = LatentEncoder::new(site.sae, &[])?;
            place.steps.push(Step::Latents(Box::new(LatentStep { sae, site, encoder, edits: vec![] })));
        }
        let Some(Step::Latents(step)) = place.steps.last_mut() else { unreachable!("it is there now") };
        Ok(step)
    }

    /// The edits at a hook point.
    fn place(&mut self, point: HookPoint) -> Result<&mut Place<'a>> {
        point.check(self.model.config())?;
        let sites = self.saes.iter().map(|sae| sae.site).filter(|site| site.hook_point == point);
        let sink_norm = sites.map(|site| site.sink_norm).fold(f32::INFINITY, f32::min);
        Ok(self.places.entry(point).or_insert_with(|| Place { hook_point: point, sink_norm, steps: vec![] }))
    }

    /// Number of the SAE of an edit.
    fn sae_of(&self, edit: &SteerEdit) -> Result<usize> {
        self.sae(edit.scope.sae.as_deref(), edit.scope.hook_point.filter(|_| edit.what.latent().is_some()))
    }

    /// Number of the SAE of a name, or else of a hook point, or else the first.
    fn sae(&self, name: Option<&str>, point: Option<HookPoint>) -> Result<usize> {
        let known = || {
            let known = |sae: &SteeredSae<'_>| format!("{} at {}", sae.name, sae.site.hook_point).trim().to_string();
            let known: Vec<String> = self.saes.iter().map(known).collect();
            if known.is_empty() { "no SAE".to_string() } else { known.join(", ") }
        };
        let is_it = |sae: &SteeredSae<'_>| {
            name.is_none_or(|name| sae.name == name) && point.is_none_or(|point| sae.site.hook_point == point)
        };
        self.saes.iter().position(is_it).ok_or_else(|| {
            let (of_name, at) = (name.map(|name| format!(" {name}")), point.map(|point| format!(" at {point}")));
            let expected = format!("an SAE{}{}", of_name.unwrap_or_default(), at.unwrap_or_default());
            Harvester::invalid("edit", expected, known()).into()
        })
    }

    /// A direction as the step that ablates it, and its hook point.
    fn direction(&self, number: usize, edit: &SteerEdit, of: &Direction) -> Result<(DirectionStep, HookPoint)> {
        let first = || self.saes.first().map(|sae| sae.site.hook_point);
        let (vector, input_norm, natural) = match of {
            Direction::Latent(latent) => {
                let site = self.saes[self.sae_of(edit)?].site;
                site.sae.config().hook_points.check_autoencoder()?;
                check_latent(*latent, site.sae)?;
                let row = site.sae.decoder_row(*latent as usize).to_vec();
                (row, site.sae.config().input_norm, Some(site.hook_point))
            }
            Direction::File(path) => {
                let read = SteerVector::read(path)?;
                read.check_model(self.model)?;
                (read.vector, InputNorm::None, read.hook_point.or_else(first))
            }
            Direction::Vector(vector) => (vector.clone(), InputNorm::None, first()),
        };
        let Some(point) = edit.scope.hook_point.or(natural) else {
            return Err(Harvester::invalid("direction", "a `hook_point` for it", "none").into());
        };
        point.check(self.model.config())?;
        check_width("vector", vector.len(), point, self.model)?;
        let length = norm(&vector);
        if !length.is_finite() || length == 0.0 {
            return Err(Harvester::invalid("direction", "a vector with a length", format!("length {length}")).into());
        }
        let unit = vector.iter().map(|value| value / length).collect();
        Ok((DirectionStep { number, unit, length, input_norm, change: DirectionChange::Ablate }, point))
    }

    /// The condition of an edit at `point`.
    fn condition(&mut self, edit: &SteerEdit, point: HookPoint) -> Result<usize> {
        let when = edit.scope.when.as_ref().expect("the caller has looked");
        let sae = match &when.sae {
            Some(name) => self.sae(Some(name), None)?,
            None => self.sae_of(edit)?,
        };
        let site = self.saes[sae].site;
        site.sae.config().hook_points.check_autoencoder()?;
        check_latent(when.latent, site.sae)?;
        finite("`above`", when.above)?;
        if site.hook_point > point {
            let expected = format!("a condition at {point} or before it in the pass");
            return Err(Harvester::invalid("`when`", expected, format!("one at {}", site.hook_point)).into());
        }
        let place = self.place(site.hook_point)?;
        place.sink_norm = place.sink_norm.min(site.sink_norm);
        let encoder = LatentEncoder::new(site.sae, &[when.latent])?;
        let (above, per) = (when.above, when.per);
        let (rows, prompts) = (vec![], HashMap::new());
        self.conditions.push(Condition { hook_point: site.hook_point, encoder, above, per, rows, prompts });
        Ok(self.conditions.len() - 1)
    }

    /// The tokens with these texts.
    fn tokens(&self, texts: &[String]) -> Result<HashSet<u32>> {
        let mut found = HashSet::new();
        let all = 0..self.model.config().d_vocab as u32;
        let all: Vec<(u32, String)> = all.map(|token| (token, self.model.tokenizer().token_text(token))).collect();
        for text in texts {
            let before = found.len();
            found.extend(all.iter().filter(|(_, of_token)| of_token == text).map(|(token, _)| token));
            if found.len() == before {
                let expected = "texts of single tokens, with the space before them";
                return Err(Harvester::invalid("`tokens`", expected, format!("\"{text}\"")).into());
            }
        }
        Ok(found)
    }
}

/// An edit of a latent with its strength in numbers.
fn latent_change(what: &Intervention, scales: Option<&LatentScales>) -> Result<LatentChange> {
    Ok(match what {
        Intervention::Clamp { latent, value } => LatentChange::Set(*latent, value.amount(Some(*latent), scales)?),
        Intervention::Floor { latent, value } => LatentChange::Floor(*latent, value.amount(Some(*latent), scales)?),
        Intervention::Cap { latent, value } => LatentChange::Cap(*latent, value.amount(Some(*latent), scales)?),
        Intervention::Suppress { latent } => LatentChange::Set(*latent, Amount::Fixed(0.0)),
        Intervention::Scale { latent, factor } => {
            finite("factor", *factor)?;
            LatentChange::Scale(*latent, *factor)
        }
        Intervention::Splice {} => LatentChange::Splice,
        Intervention::Add { .. } | Intervention::Ablate { .. } | Intervention::Swap { .. } => {
            unreachable!("edits of directions are steps of their own")
        }
    })
}

fn check_latent(latent: u32, sae: &Sae) -> Result<()> {
    if (latent as usize) < sae.d_sae() {
        return Ok(());
    }
    Err(Harvester::invalid("latent", format!("below {}", sae.d_sae()), latent.to_string()).into())
}

/// Refuses what has another width than a hook point.
pub(crate) fn check_width(what: &str, found: usize, point: HookPoint, model: &LanguageModel) -> Result<()> {
    let width = point.width(model.config());
    if found == width {
        return Ok(());
    }
    let expected = format!("{width} values, the width of {point} of {}", model.source());
    Err(Harvester::invalid(what, expected, format!("{found} values")).into())
}

/// Refuses edits of which one takes away what the other does.
pub(super) fn contradictions(edits: &[SteerEdit]) -> Result<()> {
    for (i, b) in edits.iter().enumerate() {
        for a in &edits[..i] {
            let is_same_place = a.what.latent().is_some()
                && a.what.latent() == b.what.latent()
                && (&a.scope.sae, a.scope.hook_point) == (&b.scope.sae, b.scope.hook_point)
                && (&a.scope.when, &a.scope.tokens) == (&b.scope.when, &b.scope.tokens)
                && a.scope.at.overlaps(&b.scope.at);
            if is_same_place && contradict(&a.what, &b.what) {
                let expected = "edits of one latent that do not contradict each other";
                return Err(Harvester::invalid("edits", expected, format!("{} and {}", a.what, b.what)).into());
            }
        }
    }
    Ok(())
}

/// True if, on the same latent and row, `b` leaves nothing of what `a` does, or neither can hold.
fn contradict(a: &Intervention, b: &Intervention) -> bool {
    use Intervention::{Cap, Clamp, Floor, Scale, Suppress};
    let is_above = |a: &Strength, b: &Strength| discriminant(a) == discriminant(b) && a.number() > b.number();
    match (a, b) {
        (Clamp { .. } | Suppress { .. } | Floor { .. } | Cap { .. } | Scale { .. }, Clamp { .. } | Suppress { .. }) => {
            true
        }
        (Floor { value: low, .. }, Cap { value: high, .. }) | (Cap { value: high, .. }, Floor { value: low, .. }) => {
            is_above(low, high)
        }
        _ => false,
    }
}
