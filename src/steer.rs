//! `refract steer` and `refract direction`.

use std::{io::BufRead, path::PathBuf};

use analyzer::{
    Columns, ControlVector, Facts, FeatureIndex, GenerateConfig, GuardRules, MonitorReport, Prompt, SteerEdit,
    Steering, Watched, Workbench,
};
use harvester::{Compute, LanguageModel, ModelSource, Monitor};

use crate::{
    cli::{DirectionArgs, MonitorArgs, SteerArgs, usage},
    settings::{config, of_args},
    terminal::Terminal,
};

/// `model` is the model of the SAE if it is open already.
pub(crate) fn run(args: &SteerArgs, model: Option<&LanguageModel>, terminal: &Terminal) -> anyhow::Result<()> {
    let generate = GenerateConfig::from_settings(&of_args(&args.config)?)?;
    let rules = args.guard.as_deref().map(GuardRules::read).transpose()?;
    let given = of_args(&args.edits)?;
    let is_watched = rules.is_some() && given.is_empty();
    let edits = if is_watched { vec![] } else { SteerEdit::of_settings(&given)? };
    let prompts = Prompt::of_names(&args.prompt)?;
    let are_there = !prompts.is_empty() || args.interactive;
    anyhow::ensure!(are_there, usage("steer needs `prompt`, as a flag or in --config"));
    let bench = args.sae.source()?.workbench(model, terminal)?;
    let index = args.features.as_deref().map(FeatureIndex::open).transpose()?;
    let steering = match &rules {
        Some(rules) => rules.open(&bench, edits, index.as_ref())?,
        None => Steering::open(&bench, edits, index.as_ref())?,
    };
    let writer = Writer { bench: &bench, index: index.as_ref(), config: &generate, chat: args.chat, terminal };
    if let Some(rules) = &rules {
        return prompts.iter().try_for_each(|prompt| writer.guarded(&prompt.text, rules, &steering));
    }
    if args.interactive {
        return writer.converse(steering);
    }
    if let ([prompt], []) = (&prompts[..], &args.sweep[..]) {
        return writer.write(&prompt.text, &steering);
    }
    let factors: Vec<f32> = args.sweep.iter().map(|factor| *factor as f32).collect();
    let factors = if factors.is_empty() { vec![1.0] } else { factors };
    let sweep = bench.sweep(&prompts, args.chat, &steering, &factors, &generate, terminal)?;
    terminal.table(&sweep.table());
    if factors.len() > 1 {
        sweep.plot().iter().for_each(|line| terminal.line(line));
    }
    terminal.json(&sweep)
}

struct Writer<'a> {
    bench: &'a Workbench,
    index: Option<&'a FeatureIndex>,
    config: &'a GenerateConfig,
    chat: bool,
    terminal: &'a Terminal,
}

impl Writer<'_> {
    /// Writes both texts line by line, and then what moved.
    fn write(&self, prompt: &str, steering: &Steering) -> anyhow::Result<()> {
        let Self { bench, index, config, terminal, .. } = *self;
        self.beside(prompt, "with", |prompt, each| {
            let result = bench.side_by_side(prompt, steering, config, each, terminal)?;
            Ok((result.facts(index)?, serde_json::to_value(&result)?))
        })
    }

    /// Writes both texts line by line, the second one as a guard lets it, and then what the guard saw.
    fn guarded(&self, prompt: &str, rules: &GuardRules, steering: &Steering) -> anyhow::Result<()> {
        let Self { bench, config, terminal, .. } = *self;
        self.beside(prompt, "guarded", |prompt, each| {
            let result = bench.guarded(prompt, rules, steering, config, each, terminal)?;
            each([&result.without, &result.with]); // with the text of a stop
            Ok((result.facts(), serde_json::to_value(&result)?))
        })
    }

    /// Writes two texts in columns as they grow, and then the facts of the result. `write` calls its last argument with
    /// both texts so far.
    fn beside(
        &self,
        prompt: &str,
        name: &str,
        write: impl FnOnce(&str, &mut dyn FnMut([&str; 2])) -> anyhow::Result<(Facts, serde_json::Value)>,
    ) -> anyhow::Result<()> {
        let Self { bench, terminal, .. } = *self;
        let prompt = if self.chat { bench.chat_prompt(prompt, terminal)? } else { prompt.to_string() };
        let mut columns = Columns::new(terminal.width());
        terminal.fact("prompt", &analyzer::on_one_line(&prompt));
        terminal.heading(&columns.heading(["without", name]));
        let mut each = |texts: [&str; 2]| columns.grow(texts).iter().for_each(|line| terminal.line(line));
        let (facts, result) = write(&prompt, &mut each)?;
        columns.finish().iter().for_each(|line| terminal.line(line));
        terminal.line("");
        terminal.facts(&facts);
        terminal.json(&result)
    }

    /// Writes after each line of standard input.
    fn converse(&self, mut steering: Steering) -> anyhow::Result<()> {
        self.terminal.say("a prompt in each line; /clamp 12=4 changes the edits; the end of the input ends it");
        for line in std::io::stdin().lock().lines() {
            let line = line?;
            let done = match line.strip_prefix('/') {
                Some(edit) => steering.replace(edit, self.bench, self.index).map_err(anyhow::Error::new),
                None if line.trim().is_empty() => Ok(()),
                None => self.write(&line, &steering),
            };
            done.or_else(|error| self.terminal.go_on(error))?;
        }
        Ok(())
    }
}

pub(crate) fn monitor(args: &MonitorArgs, terminal: &Terminal) -> anyhow::Result<()> {
    let rules = GuardRules::read(&args.guard)?;
    let bench = args.sae.source()?.workbench(None, terminal)?;
    if args.corpus.is_empty() {
        let group = |files: &[PathBuf]| -> anyhow::Result<Vec<Watched>> {
            let mut documents = vec![];
            let keep = |document| {
                documents.push(document);
                Ok(())
            };
            bench.monitor(&rules, files, args.tokens, terminal, keep)?;
            Ok(documents)
        };
        let report = MonitorReport::new(&rules, &group(&args.positive)?, &group(&args.negative)?)?;
        terminal.table(&report.table());
        return terminal.json(&report);
    }
    let (mut n, mut found) = (0u64, 0u64);
    let model = bench.model(terminal)?;
    bench.monitor(&rules, &args.corpus, args.tokens, terminal, |document| {
        n += 1;
        if !document.events.is_empty() {
            found += 1;
            terminal.heading(&document.record.place());
            document.lines(model).iter().for_each(|line| terminal.line(format!("  {line}")));
        }
        terminal.json(&document).expect("numbers and text can be written as JSON");
        Ok(())
    })?;
    terminal.line(format!("\na rule held in {found} of {n} documents"));
    Ok(())
}

pub(crate) fn direction(args: &DirectionArgs, terminal: &Terminal) -> anyhow::Result<()> {
    let [positive, negative] = [Prompt::of_names(&args.positive)?, Prompt::of_names(&args.negative)?];
    let model = LanguageModel::open(&args.model.parse::<ModelSource>()?, Compute::F32, terminal)?;
    let config = config(&args.config)?;
    let made = analyzer::direction(&model, args.hook_point, [&positive, &negative], &config, terminal)?;
    let exported = args.export.as_ref().map(|_| ControlVector::of(&made, model.config().family.to_string()));
    let exported = exported.transpose()?; // refused before anything is written
    made.write(&args.out)?;
    exported.iter().zip(&args.export).try_for_each(|(vector, file)| vector.write(file))?;
    terminal.report(args.out.display(), &made.summary());
    terminal.json(&made)
}
