//! [`SweepPlan`]: the runs of a sweep, their names, and which of them are trained together. The plan is made before
//! anything is written, so that an invalid run is refused before any run has begun.

use std::path::Path;

use harvester::human;
use serde_json::Value;

use super::file::PARETO_FILE;
use crate::{
    Error, Result, TrainConfig,
    config::{Resolved, check_memory, memory_bytes},
    data::training_data::TrainingData,
    run::{
        estimate::{buffer_bytes, step_seconds},
        initial_weights::initial_weights_kept,
        train::{TrainData, resolve, split},
    },
    step::memory::LearnerMemory,
};

/// Settings without their own part in a name, because the name begins with the hook point, the architecture, k and
/// width.
const NAMED_APART: [&str; 6] = ["architecture", "hook_points", "target_hook_point", "k", "d_sae", "expansion_factor"];
/// Memory, in bytes, assumed if the machine's memory cannot be queried.
const USUAL_MEMORY: u64 = 8 << 30;

/// One run of a sweep.
#[derive(Debug, Clone)]
pub(crate) struct PlannedRun {
    /// Its folder's name.
    pub(crate) name: String,
    /// The requested config.
    pub(crate) config: TrainConfig,
    /// The hook points of its rows: `A, B`, or `A -> B` for a transcoder.
    pub(crate) place: String,
    /// The config, completed from the data, without the weights to begin from.
    pub(super) resolved: Resolved,
    /// What it keeps of the SAE that it begins from, in words.
    kept: Option<String>,
    memory: LearnerMemory,
}

/// The plan of a sweep.
#[derive(Debug)]
pub struct SweepPlan<'a> {
    pub(super) data: TrainData<'a>,
    runs: Vec<PlannedRun>,
    /// Indices of the runs that are trained together, one list per pass over their rows.
    passes: Vec<Vec<usize>>,
    at_once: Option<usize>,
}

impl<'a> SweepPlan<'a> {
    /// Plans one run for each of `configs`, with at most `at_once` of them in memory at the same time; `None`: as many
    /// as fit in half of the machine's memory.
    ///
    /// # Errors
    /// When a config does not fit the data, or two configs are the same.
    pub fn new(data: TrainData<'a>, configs: Vec<TrainConfig>, at_once: Option<usize>) -> Result<Self> {
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
            let kept = initial_weights_kept(&config, &resolved);
            let resolved = Resolved { initial: None, ..resolved };
            let memory = LearnerMemory::of(resolved.d_in, resolved.d_out, resolved.d_sae);
            runs.push(PlannedRun { name: String::new(), config, place, resolved, kept, memory });
        }
        name(&mut runs)?;
        let passes = groups(&runs).into_iter().flat_map(|group| cut(&runs, &group, at_once)).collect();
        Ok(Self { data, runs, passes, at_once })
    }

    /// The plan of the same runs on other data.
    pub(super) fn on<'b>(&self, data: TrainData<'b>) -> Result<SweepPlan<'b>> {
        SweepPlan::new(data, self.runs.iter().map(|run| run.config.clone()).collect(), self.at_once)
    }

    /// Refuses passes that do not fit in the memory that is left here; `left` are the runs of each that have not ended.
    pub(super) fn check_memory(&self, left: &[Vec<usize>]) -> Result<()> {
        check_memory("latents and the shuffle buffer together (`d_sae`, `at_once`, `buffer_bytes`)", self.memory(left))
    }

    /// The runs, in the order of the configs.
    pub(crate) fn runs(&self) -> &[PlannedRun] {
        &self.runs
    }

    /// For each pass, the indices in [`Self::runs`] of the runs that are trained together.
    pub(crate) fn passes(&self) -> &[Vec<usize>] {
        &self.passes
    }

    /// Tokens of all runs together.
    pub(crate) fn tokens(&self) -> u64 {
        self.runs.iter().map(|run| run.config.trained_tokens()).sum()
    }

    /// The estimate of a sweep into `out`, and what its runs keep of the SAEs that they begin from.
    pub(super) fn estimate(&self, out: &Path) -> Result<String> {
        let together = self.passes.iter().map(Vec::len).max().unwrap_or(0);
        let time: f64 =
            self.runs.iter().map(|run| step_seconds(run.resolved.d_in, run.resolved.d_sae, run.config.tokens)).sum();
        let mut lines = vec![
            format!(
                "{} in {}, at most {together} together: {} tokens in all, about {} if none has begun yet, {} of memory",
                human::counted(self.runs.len() as u64, "run"),
                if self.passes.len() == 1 { "one pass".into() } else { format!("{} passes", self.passes.len()) },
                human::grouped(self.tokens()),
                human::seconds(time),
                human::bytes(self.memory(&self.passes)),
            ),
            format!("FVU against L0, in a browser: {}", out.join(PARETO_FILE).display()),
        ];
        for run in &self.runs {
            lines.extend(run.kept.clone().filter(|kept| !lines.contains(kept)));
        }
        Ok(lines.join("\n"))
    }

    /// Bytes of the largest of `passes`: its learners, while one of them is saved, and the shuffle buffer.
    fn memory(&self, passes: &[Vec<usize>]) -> u64 {
        let buffer = |pass: &[usize]| pass.first().map_or(0, |&run| self.buffer_bytes(&self.runs[run]));
        let of_pass = |pass: &Vec<usize>| bytes_of(&self.runs, pass).saturating_add(buffer(pass));
        passes.iter().map(of_pass).max().unwrap_or(0)
    }

    /// Bytes of a run's shuffle buffer.
    pub(super) fn buffer_bytes(&self, run: &PlannedRun) -> u64 {
        buffer_bytes(&run.config, run.resolved.d_in, run.resolved.d_out, self.data.n_rows(), self.data.dtype())
    }
}

/// The hook points of the rows, with inputs and target distinguished: a transcoder from A to B is not in the same group
/// as crosscoders over A and B, and is not compared with them.
fn place(data: &dyn TrainingData) -> Result<String> {
    let mut names: Vec<_> = data.columns()?.into_iter().map(|column| column.name).collect();
    let target = if data.hook_points().is_transcoder() { names.pop() } else { None };
    Ok(std::iter::once(names.join(", ")).chain(target).collect::<Vec<_>>().join(" -> "))
}

/// Memory, in bytes, of runs that are trained together.
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

/// Cuts a group into passes: at most `at_once` runs, and only as many as fit in half of the memory beside the buffer.
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

/// Names every run by its architecture, k and width, and by all other settings that differ between the runs.
fn name(runs: &mut [PlannedRun]) -> Result<()> {
    let settings: Vec<Value> = runs
        .iter()
        .map(|run| serde_json::to_value(&run.config).expect("plain data, which serde_json can always write"))
        .collect();
    let differs = |of: &dyn Fn(usize) -> String| (1..settings.len()).any(|index| of(index) != of(0));
    let names = settings[0].as_object().map(|first| first.keys().cloned().collect::<Vec<_>>()).unwrap_or_default();
    let is_own = |name: &String| !NAMED_APART.contains(&name.as_str()) && name != "init_from";
    let mut others: Vec<String> = names.into_iter().filter(is_own).collect();
    // The first run does not have this setting if it begins from random weights.
    others.push("init_from".into());
    others.retain(|name| differs(&|index| shown(&settings[index][name])));
    let in_places = differs(&|index| runs[index].place.clone());
    let all: Vec<String> = (0..runs.len())
        .map(|index| {
            let PlannedRun { place, resolved: Resolved { config, d_sae, .. }, .. } = &runs[index];
            let place =
                if in_places { format!("{}-", place.replace(", ", "+").replace(" -> ", "+")) } else { String::new() };
            let rest =
                others.iter().map(|name| format!("-{}-{}", name.replace('_', "-"), shown(&settings[index][name])));
            format!("{place}{}-k{}-d{d_sae}{}", config.architecture, config.k, rest.collect::<String>())
        })
        .collect();
    if let Some(twice) = all.iter().enumerate().find(|(index, name)| all[..*index].contains(name)) {
        return Err(Error::invalid("runs of the sweep", "each one once", format!("{} twice", twice.1)));
    }
    runs.iter_mut().zip(all).for_each(|(run, name)| run.name = name);
    Ok(())
}

/// A setting's value as part of a file name.
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
    use crate::{HookPoints, TrainArchitecture};

    fn planned(k: usize, lr: f64, place: &str, seed: u64) -> PlannedRun {
        let config =
            TrainConfig { architecture: TrainArchitecture::TopK, k, lr: Some(lr), seed, ..TrainConfig::default() };
        let resolved = config.resolve(HookPoints::Autoencoder(None), vec![8]).expect("a config that fits");
        let (place, memory) = (place.to_string(), LearnerMemory { held: 10, saving: 5 });
        PlannedRun { name: String::new(), config, place, resolved, kept: None, memory }
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
        assert_eq!(cut(&huge, &[0, 1, 2], None), [vec![0], vec![1], vec![2]], "at least one");
        let to_save = LearnerMemory { held: 0, saving: 1 << 60 };
        let to_save = [0, 1].map(|seed| PlannedRun { memory: to_save, ..planned(4, 0.1, "a", seed) });
        assert_eq!(cut(&to_save, &[0, 1], None), [vec![0], vec![1]], "the file's copy counts");
    }
}
