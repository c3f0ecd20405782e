//! Encoding of any text, without activations on disk: [`Workbench::encode_texts`], for texts in memory.
//!
//! A text is encoded in contexts of its own, made as for the activations of the SAE: with the same token at their
//! beginning, and of the same length at most. So its latents are those that a harvest of f32 would give.

use candle_core::Tensor;
use harvester::{ActivationRows, Batch, Edit, Hook, HookPoint, Monitor, Rows, TokenRows, Values};

use crate::{EncodedRows, Error, Result, Workbench, tensor_rows};

/// Tokens of a pass.
const PASS: usize = 2048;

impl Workbench {
    /// The active latents of every token of some texts. The document of a row is the number of its text.
    ///
    /// # Errors
    /// As [`Self::model`]; an SAE that does not read one hook point of the model; the tokenizer refuses a text; or the
    /// monitor stops it.
    pub fn encode_texts<T: AsRef<str>>(&self, texts: &[T], monitor: &dyn Monitor) -> Result<EncodedRows> {
        let (sae, config) = (self.sae(), self.model(monitor)?.config());
        sae.hook_point.check(config)?;
        sae.check_input(sae.hook_point.width(config))?;
        let mut encoded = EncodedRows::default();
        monitor.start("encoding", texts.len() as u64, "texts");
        let mut next = TokenRows::default();
        for (document, text) in texts.iter().enumerate() {
            for context in self.contexts(text.as_ref(), monitor)? {
                if next.token.len() + context.len() > PASS {
                    encoded.append(&self.encode_contexts(std::mem::take(&mut next), monitor)?);
                }
                let number = next.context.last().or(encoded.rows.context.last()).map_or(0, |last| last + 1);
                next.document.extend(context.iter().map(|_| document as u64));
                next.context.extend(context.iter().map(|_| number));
                next.position.extend(0..context.len() as u32);
                next.token.extend(context);
            }
            monitor.advance(1);
        }
        encoded.append(&self.encode_contexts(next, monitor)?);
        monitor.finish();
        Ok(encoded)
    }

    /// The contexts of a text.
    fn contexts(&self, text: &str, monitor: &dyn Monitor) -> Result<Vec<Vec<u32>>> {
        let model = self.model(monitor)?;
        let longest = model.config().ctx_len;
        let len = self.sae().ctx_len().map_or(longest, |len| len.min(longest));
        let tokens = self.prompt(text, monitor)?;
        let bos = model.tokenizer().prompt(self.sae().prompt_bos(), "")?;
        let (begin, body) = if tokens.starts_with(&bos) { tokens.split_at(bos.len()) } else { tokens.split_at(0) };
        let context = |part: &[u32]| [begin, part].concat();
        Ok(body.chunks(len.saturating_sub(begin.len()).max(1)).map(context).collect())
    }

    /// One pass over whole contexts.
    fn encode_contexts(&self, rows: TokenRows, monitor: &dyn Monitor) -> Result<EncodedRows> {
        if rows.token.is_empty() {
            return Ok(EncodedRows::default());
        }
        if monitor.cancelled() {
            return Err(Error::Stopped);
        }
        let (sae, mut read) = (self.sae(), Read { point: self.sae().hook_point, x: vec![] });
        let batch = Batch::of(rows.contexts().into_iter().map(|context| &rows.token[context]));
        self.model(monitor)?.run(&batch, &mut read)?;
        let d_model = sae.sae.d_in();
        let norm = read.x.chunks_exact(d_model).map(harvester::norm).collect();
        let values = Values::F32(read.x);
        EncodedRows::encode(&sae.sae, ActivationRows { rows, norm, values, d_model }, sae.sink_norm)
    }
}

/// Keeps the activation at a hook point.
struct Read {
    point: HookPoint,
    /// `[rows, width]`
    x: Vec<f32>,
}

impl Hook for Read {
    fn wants(&self, point: HookPoint) -> bool {
        point == self.point
    }

    fn apply(&mut self, _point: HookPoint, _rows: &Rows, activation: &Tensor) -> harvester::Result<Edit> {
        self.x = tensor_rows::rows(activation).map_err(|error| harvester::Error::Hook(error.into()))?;
        Ok(Edit::Keep)
    }
}
