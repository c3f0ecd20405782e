//! [`SweepPlan`]: which runs a sweep has, what they are called, and which of them are trained together. Settled before
//! anything is written, so that a run that cannot work is refused while the others have not begun.

use harvester::{ActivationDataset, VectorDataset, machine::memory_bytes};
use serde_json::Value;

use crate::{
    Error, Result, TrainConfig,
    config::Resolved,
    data::{harvested_data::HarvestedData, training_data::TrainingData, vector_data::VectorData},
    run::train::{resolve, split},
    step::memory::LearnerMemory,
};

/// Settings that need no part of their own in a name: it says them first, as the place, the architecture, k and width.
const NAMED_APART: [&str; 6] = ["architecture", "hook_points", "target_hook_point", "k", "d_sae", "expansion_factor"];
/// Of a machine whose memory cannot be asked for.
const USUAL_MEMORY: u64 = 8 << 30;

/// What all runs of a sweep read.
#[derive(Debug, Clone, Copy)]
pub enum SweepData<'a> {
    /// A folder that `harvest` wrote.
    Harvested(&'a ActivationDataset),
    /// Vectors of any origin.
    Vectors(&'a VectorDataset),
}

impl<'a> SweepData<'a> {
    /// What `config` names of them.
    pub(super) fn of(self, config: &TrainConfig) -> Result<Box<dyn TrainingData + 'a>> {
        match self {
            Self::Harvested(dataset) => {
                Ok(Box::new(HarvestedData::new(dataset, config.hook_points_in(dataset.manifest())?)))
            }
            Self::Vectors(vectors) => {
                config.check_vectors(vectors.dir())?;
                Ok(Box::new(VectorData(vectors)))
            }
        }
    }
}

/// One run of a sweep.
#[derive(Debug, Clone)]
pub struct PlannedRun {
    /// Its folder's name.
    pub name: String,
    /// What was asked for.
    pub config: TrainConfig,
    /// Where its rows are from: `A, B`, and `A -> B` of a transcoder.
    pub place: String,
    /// Width of all inputs together.
    pub d_in: usize,
    /// Number of latents.
    pub d_sae: usize,
    /// The config with what the data decide.
    pub(super) resolved: TrainConfig,
    memory: LearnerMemory,
}

/// What a sweep will do.
#[derive(Debug)]
pub struct SweepPlan<'a> {
    pub(super) data: SweepData<'a>,
    runs: Vec<PlannedRun>,
    /// Runs that are trained together, one pass over their rows each.
    passes: Vec<Vec<usize>>,
}

impl<'a> SweepPlan<'a> {
    /// A run each of `configs`, at most `at_once` of them in memory together; where that is not said, as many as fit in
    /// half of the machine's.
    ///
    /// # Errors
    /// When a config does not fit the data, or two are the same.
    pub fn new(data: SweepData<'a>, configs: Vec<TrainConfig>, at_once: Option<usize>) -> Result<Self> {
        if configs.is_empty() || at_once == Some(0) {
            let what = if configs.is_empty() { "runs of the sweep" } else { "`at_once`" };
            return Err(Error::invalid(what, "1 or more", "0"));
        }
        let mut runs = vec![];
        for config in configs {
            let of_run = data.of(&config)?;
            let place = place(of_run.as_ref())?;
            let resolved = resolve(&config, of_run.as_ref())?;
            split(of_run.as_ref(), &resolved.config)?;
            let Resolved { d_in, d_out, d_sae, config: resolved, .. } = resolved;
            let memory = LearnerMemory::of(d_in, d_out, d_sae);
            runs.push(PlannedRun { name: String::new(), config, place, d_in, d_sae, resolved, memory });
        }
        name(&mut runs)?;
        let passes = groups(&runs).into_iter().flat_map(|group| cut(&runs, &group, at_once)).collect();
        Ok(Self { data, runs, passes })
    }

    /// The runs, in the order in which they were asked for.
    pub fn runs(&self) -> &[PlannedRun] {
        &self.runs
    }

    /// The places in [`Self::runs`] of those trained together, pass after pass.
    pub fn passes(&self) -> &[Vec<usize>] {
        &self.passes
    }

    /// Tokens of all runs together.
    pub fn tokens(&self) -> u64 {
        self.runs.iter().map(|run| run.config.trained_tokens()).sum()
    }

    /// Bytes of the learners of the largest pass, while one of them is saved.
    pub fn memory(&self) -> u64 {
        self.passes.iter().map(|pass| bytes_of(&self.runs, pass)).max().unwrap_or(0)
    }
}

/// Where rows are from. What is read and what is predicted are told apart: a transcoder from A to B is none of a group,
/// and competes with none, of crosscoders over A and B.
fn place(data: &dyn TrainingData) -> Result<String> {
    let mut names: Vec<_> = data.columns()?.into_iter().map(|column| column.name).collect();
    let target = if data.hook_points().is_transcoder() { names.pop() } else { None };
    Ok(std::iter::once(names.join(", ")).chain(target).collect::<Vec<_>>().join(" -> "))
}

/// Bytes of runs that are trained together.
fn bytes_of(runs: &[PlannedRun], pass: &[usize]) -> u64 {
    LearnerMemory::of_all(pass.iter().map(|&run| runs[run].memory))
}

/// Runs that see the same rows in the same order.
fn groups(runs: &[PlannedRun]) -> Vec<Vec<usize>> {
    let key = |run: &PlannedRun| {
        let TrainConfig { batch, tokens, seed, buffer_bytes, held_out_fraction, .. } = run.config;
        (run.place.clone(), batch, tokens, seed, buffer_bytes, held_out_fraction.to_bits())
    };
    let mut groups: Vec<Vec<usize>> = vec![];
    for (index, run) in runs.iter().enumerate() {
        match groups.iter_mut().find(|group| key(&runs[group[0]]) == key(run)) {
            Some(group) => group.push(index),
            None => groups.push(vec![index]),
        }
    }
    groups
}

/// Cuts a group into passes: never more runs than `at_once`, or than fit in half of the memory beside the buffer.
fn cut(runs: &[PlannedRun], group: &[usize], at_once: Option<usize>) -> Vec<Vec<usize>> {
    if let Some(n) = at_once {
        return group.chunks(n).map(<[usize]>::to_vec).collect();
    }
    let buffer = runs[group[0]].config.buffer_bytes;
    let budget = (memory_bytes().unwrap_or(USUAL_MEMORY) / 2).saturating_sub(buffer);
    let mut passes: Vec<Vec<usize>> = vec![];
    for &index in group {
        match passes.last_mut() {
            Some(pass) if bytes_of(runs, &[&pass[..], &[index]].concat()) <= budget => pass.push(index),
            _ => passes.push(vec![index]),
        }
    }
    passes
}

/// Names every run by its architecture, k and width, and by whatever else differs among the runs.
fn name(runs: &mut [PlannedRun]) -> Result<()> {
    let settings: Vec<Value> = runs
        .iter()
        .map(|run| serde_json::to_value(&run.config).expect("plain data, which serde_json can always write"))
        .collect();
    let differs = |of: &dyn Fn(usize) -> String| (1..settings.len()).any(|index| of(index) != of(0));
    let names = settings[0].as_object().map(|first| first.keys().cloned().collect::<Vec<_>>()).unwrap_or_default();
    let is_own = |name: &String| !NAMED_APART.contains(&name.as_str()) && name != "init_from";
    let mut others: Vec<String> = names.into_iter().filter(is_own).collect();
    // Not among the first run's settings where that begins from random weights.
    others.push("init_from".into());
    others.retain(|name| differs(&|index| shown(&settings[index][name])));
    let in_places = differs(&|index| runs[index].place.clone());
    let all: Vec<String> = (0..runs.len())
        .map(|index| {
            let PlannedRun { resolved, place, d_sae, .. } = &runs[index];
            let place =
                if in_places { format!("{}-", place.replace(", ", "+").replace(" -> ", "+")) } else { String::new() };
            let rest =
                others.iter().map(|name| format!("-{}-{}", name.replace('_', "-"), shown(&settings[index][name])));
            format!("{place}{}-k{}-d{d_sae}{}", resolved.architecture, resolved.k, rest.collect::<String>())
        })
        .collect();
    if let Some(twice) = all.iter().enumerate().find(|(index, name)| all[..*index].contains(name)) {
        return Err(Error::invalid("runs of the sweep", "each one once", format!("{} twice", twice.1)));
    }
    runs.iter_mut().zip(all).for_each(|(run, name)| run.name = name);
    Ok(())
}

/// A setting's value as a part of a file's name.
fn shown(value: &Value) -> String {
    let text = match value {
        Value::Null => "default".to_string(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let kept = |letter: char| letter.is_ascii_alphanumeric() || ".-_".contains(letter);
    text.chars().map(|letter| if kept(letter) { letter } else { '_' }).collect::<String>().trim_matches('_').to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::TrainArchitecture;

    fn planned(k: usize, lr: f64, place: &str, seed: u64) -> PlannedRun {
        let config =
            TrainConfig { architecture: TrainArchitecture::TopK, k, lr: Some(lr), seed, ..TrainConfig::default() };
        let (place, resolved) = (place.to_string(), config.clone());
        PlannedRun {
            name: String::new(),
            config,
            place,
            d_in: 8,
            d_sae: 64,
            resolved,
            memory: LearnerMemory { held: 10, saving: 5 },
        }
    }

    #[test]
    fn a_name_says_what_differs_and_no_more() {
        let named = |mut runs: Vec<PlannedRun>| {
            name(&mut runs)
                .map(|()| runs.into_iter().map(|run| run.name).collect::<Vec<_>>())
                .map_err(|e| e.to_string())
        };
        assert_eq!(
            named(vec![planned(4, 0.1, "a", 0), planned(8, 0.1, "a", 0)]),
            Ok(vec!["topk-k4-d64".into(), "topk-k8-d64".into()])
        );
        assert_eq!(
            named(vec![planned(4, 0.1, "a", 0), planned(4, 0.003, "b", 0)]),
            Ok(vec!["a-topk-k4-d64-lr-0.1".into(), "b-topk-k4-d64-lr-0.003".into()])
        );
        let twice = named(vec![planned(4, 0.1, "a", 0), planned(4, 0.1, "a", 0)]);
        assert_eq!(twice, Err("runs of the sweep: expected each one once, found topk-k4-d64 twice".into()));
    }

    #[test]
    fn what_sees_the_same_rows_is_a_group_and_is_cut_to_size() {
        let runs = [planned(4, 0.1, "a", 0), planned(4, 0.1, "b", 0), planned(8, 0.2, "a", 0), planned(8, 0.2, "a", 1)];
        assert_eq!(groups(&runs), [vec![0, 2], vec![1], vec![3]]);
        assert_eq!(cut(&runs, &[0, 2, 3], Some(2)), [vec![0, 2], vec![3]]);
        assert_eq!(cut(&runs, &[0, 2, 3], None), [vec![0, 2, 3]], "thirty bytes fit");
        let huge = LearnerMemory { held: 1 << 60, saving: 0 };
        let huge = [0, 1, 2].map(|seed| PlannedRun { memory: huge, ..planned(4, 0.1, "a", seed) });
        assert_eq!(cut(&huge, &[0, 1, 2], None), [vec![0], vec![1], vec![2]], "one at least");
        let to_save = LearnerMemory { held: 0, saving: 1 << 60 };
        let to_save = [0, 1].map(|seed| PlannedRun { memory: to_save, ..planned(4, 0.1, "a", seed) });
        assert_eq!(cut(&to_save, &[0, 1], None), [vec![0], vec![1]], "the file's copy counts");
    }
}
