//! [`Workbench`]: an SAE with its hook point and its model, opened once. Evaluation, the index and steering start from
//! it, in a command, a server or a notebook.

use std::{ops::Range, sync::OnceLock};

use harvester::{ActivationDataset, ChatMessage, Hook, LanguageModel, Monitor, NoHook};
use serde::Serialize;

use crate::{
    Evaluation, EvaluationConfig, Example, GenerateConfig, Intervention, Interventions, PlacedSae, Result, Shift,
    evaluate, generate, shift,
};

/// Positions with enough text before them to set a topic, and little enough to read.
const READABLE: Range<u32> = 24..80;
/// Number of listed tokens whose probability changes most.
const MOVED_TOKENS: usize = 8;

/// An SAE and its model.
#[derive(Debug)]
pub struct Workbench {
    sae: PlacedSae,
    model: OnceLock<LanguageModel>,
}

/// An evaluation, and what it was measured on.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Measured {
    /// The evaluation.
    #[serde(flatten)]
    pub evaluation: Evaluation,
    /// True if measured on the contexts that training held out; false if on all of the activations.
    pub held_out: bool,
}

/// A prompt continued without and with interventions.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SideBySide {
    /// The text that both continue.
    pub prompt: String,
    /// The edits.
    pub interventions: Vec<Intervention>,
    /// The continuation without them.
    pub without: String,
    /// The continuation with them.
    pub with: String,
    /// The change of the model's next-token distribution on the prompt.
    pub shift: Shift,
}

impl Workbench {
    /// An SAE with its model if that is open already; otherwise the model is opened when it is first needed.
    ///
    /// # Errors
    /// When the SAE belongs to another model.
    pub fn new(sae: PlacedSae, model: Option<&LanguageModel>) -> Result<Self> {
        model.map_or(Ok(()), |model| model.check(&sae.model))?;
        Ok(Self { sae, model: model.cloned().map(OnceLock::from).unwrap_or_default() })
    }

    /// The SAE.
    pub fn sae(&self) -> &PlacedSae {
        &self.sae
    }

    /// The model.
    ///
    /// # Errors
    /// When it no longer exists, or its files have changed.
    pub fn model(&self, monitor: &dyn Monitor) -> Result<&LanguageModel> {
        if let Some(model) = self.model.get() {
            return Ok(model);
        }
        let found = LanguageModel::find(&self.sae.model, monitor)?;
        Ok(self.model.get_or_init(|| found))
    }

    /// Evaluates the SAE on the contexts of `dataset` that its training held out. If it was not trained on `dataset`,
    /// as far as is known, all contexts are used.
    ///
    /// # Errors
    /// As [`evaluate()`]; activations of another model, or of which training held out no contexts.
    pub fn evaluate(
        &self,
        dataset: &ActivationDataset,
        config: &EvaluationConfig,
        monitor: &dyn Monitor,
    ) -> Result<Measured> {
        self.sae.check_model(dataset)?;
        let held_out = self.sae.held_out(dataset)?;
        if held_out.as_ref().is_some_and(Range::is_empty) {
            let expected = format!(
                "others than those that {} was trained on: with `held_out_fraction` 0, or of so few contexts, none was \
                 held out",
                self.sae.path.display()
            );
            return Err(
                harvester::Error::invalid("`activations`", expected, dataset.dir().display().to_string()).into()
            );
        }
        let model = self.sae.site().spliced().map(|_| self.model(monitor)).transpose()?;
        let contexts = held_out.clone().unwrap_or(0..dataset.context_end());
        let evaluation = evaluate(model, self.sae.site(), dataset, contexts, config, monitor)?;
        Ok(Measured { evaluation, held_out: held_out.is_some() })
    }

    /// A message as the prompt that the model's chat template makes of it.
    ///
    /// # Errors
    /// A model without a chat template, or one that refuses the message.
    pub fn chat_prompt(&self, message: &str, monitor: &dyn Monitor) -> Result<String> {
        Ok(self.model(monitor)?.tokenizer().render_chat(&[ChatMessage::user(message)], true)?)
    }

    /// A prompt on which a latent is active: the text up to the peak of its first example that has some text before the
    /// peak, but not too much to read. `None` if it has no example.
    ///
    /// # Errors
    /// A context that is not in `dataset`, or a file that cannot be read.
    pub fn prompt_before_peak(
        &self,
        examples: &[Example],
        dataset: &ActivationDataset,
        monitor: &dyn Monitor,
    ) -> Result<Option<String>> {
        let readable = examples.iter().find(|example| READABLE.contains(&example.position));
        let Some(example) = readable.or(examples.first()) else { return Ok(None) };
        for &group in dataset.row_groups() {
            let rows = dataset.tokens(group)?;
            let places = (0..rows.len()).filter(|&row| rows.context[row] == example.context);
            let tokens: Vec<u32> = places.take(example.position as usize + 1).map(|row| rows.token[row]).collect();
            if !tokens.is_empty() {
                return Ok(Some(self.model(monitor)?.tokenizer().decode(&tokens)));
            }
        }
        let expected = format!("context {}, which the index names", example.context);
        let hint = "Index these activations again";
        Err(harvester::Error::malformed(dataset.dir(), expected, "none of this number", hint).into())
    }

    /// Continues `prompt` without and with `interventions`, and measures their effect on the model's predictions for
    /// the prompt.
    ///
    /// # Errors
    /// An SAE of another width than its hook point, or of several; as [`generate()`] and [`shift()`].
    pub fn side_by_side(
        &self,
        prompt: &str,
        interventions: &[Intervention],
        config: &GenerateConfig,
        monitor: &dyn Monitor,
    ) -> Result<SideBySide> {
        let site = self.sae.site();
        let mut hook = Interventions::new(site, interventions.to_vec())?;
        let model = self.model(monitor)?;
        self.check_width(model)?;
        let tokens = model.prompt(prompt)?;
        let write = |hook: &mut dyn Hook| -> Result<String> {
            let written = generate(model, &[&tokens], config, hook, monitor)?;
            Ok(written.iter().map(|text| model.tokenizer().decode(text)).collect())
        };
        Ok(SideBySide {
            prompt: prompt.to_string(),
            interventions: interventions.to_vec(),
            without: write(&mut NoHook)?,
            with: write(&mut hook)?,
            shift: shift(model, site, interventions, &tokens, MOVED_TOKENS)?,
        })
    }

    /// Refuses an SAE whose width differs from its hook point's.
    fn check_width(&self, model: &LanguageModel) -> Result<()> {
        let (point, d_in) = (self.sae.hook_point, self.sae.sae.d_in());
        point.check(model.config())?;
        let width = point.width(model.config());
        if d_in == width {
            return Ok(());
        }
        let expected = format!("one that reads {width} values per token, as {point} of {} has", model.source());
        Err(harvester::Error::invalid("SAE", expected, format!("one that reads {d_in}")).into())
    }
}
