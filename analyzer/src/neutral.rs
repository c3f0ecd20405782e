//! [`Fork`]: texts that many edited copies continue from a hook point on. What stands before the edited tokens is
//! computed once and shared, so a copy of one token costs the blocks after the hook point and the head, for one token.

use candle_core::Tensor;
use harvester::{Batch, Edit, Hook, HookPoint, KvCache, LanguageModel, NoHook, Row, Rows};

use crate::{Result, SaeSite, tensor_rows};

/// Prompts that say little about what comes next, and that end in different places: inside a sentence, after a verb or
/// an article, where a sentence, a quotation or a line of code begins. An effect is its mean over them.
pub(crate) const NEUTRAL_PROMPTS: [&str; 8] = [
    "From my experience,",
    "Findings show that",
    "The explanation is simple:",
    "I think that the",
    "In the end, she",
    "\"Well,\" he said, \"",
    "It was reported on Monday.",
    "# Example\n\nx =",
];

/// Edits one row at the place where the SAE writes: `(row, x, y)`, with `x` the SAE's input on that row and `y` the
/// activation to change. `row.variant` is the number of the copy.
pub(crate) type EditRow<'e> = dyn FnMut(Row, &[f32], &mut [f32]) + Send + 'e;

/// Texts whose last tokens run in several copies.
#[derive(Debug)]
pub(crate) struct Fork<'a> {
    model: &'a LanguageModel,
    site: SaeSite<'a>,
    /// The hook point that is edited: the one that the SAE writes.
    place: HookPoint,
    cache: KvCache,
    /// The tokens that run in several copies.
    new: Batch,
}

impl<'a> Fork<'a> {
    /// `texts`: for each, the tokens that all copies share, then those that run in every copy.
    ///
    /// # Errors
    /// An SAE that does not write where or after it reads, or has another width than its hook points; a text without
    /// tokens to run.
    pub(crate) fn new(model: &'a LanguageModel, site: SaeSite<'a>, texts: &[(&[u32], &[u32])]) -> Result<Self> {
        let place = site.spliced().ok_or_else(|| {
            let expected = "one that writes one hook point, where or after it reads";
            harvester::Error::invalid("SAE", expected, site.sae.config().hook_points.to_string())
        })?;
        for (point, width) in [(site.hook_point, site.sae.d_in()), (place, site.sae.d_out())] {
            point.check(model.config())?;
            let expected = point.width(model.config());
            if width != expected {
                let expected = format!("one of {expected} values per token, as {point} of {} has", model.source());
                return Err(harvester::Error::invalid("SAE", expected, format!("one of {width}")).into());
            }
        }
        let mut cache = KvCache::new(model.config());
        let (mut past, mut new) = (Batch::default(), Batch::default());
        for (seen, unseen) in texts {
            let sequence = cache.add(seen.len() + unseen.len())?;
            new.push(sequence, unseen);
            if !seen.is_empty() {
                past.push(sequence, seen);
            }
        }
        if past != Batch::default() {
            model.resid_final(&past, Some(&mut cache), &mut NoHook)?;
        }
        Ok(Self { model, site, place, cache, new })
    }

    /// The hook point that is edited.
    pub(crate) fn place(&self) -> HookPoint {
        self.place
    }

    /// Runs `n` copies. Returns the last residual stream of the last token of each text.
    ///
    /// # Shapes
    /// -> `[n * texts, d_model]`, copy after copy
    pub(crate) fn run(&mut self, n: usize, edit: &mut EditRow<'_>) -> Result<Tensor> {
        let mut hook = Copies { site: self.site, place: self.place, n, edit, x: vec![] };
        let resid = self.model.resid_final(&self.new, Some(&mut self.cache), &mut hook)?;
        let rows = resid.dim(0)? / n;
        let last: Vec<u32> = (0..n)
            .flat_map(|copy| self.new.last_rows().into_iter().map(move |row| (copy * rows) as u32 + row))
            .collect();
        Ok(resid.index_select(&Tensor::new(last, resid.device())?, 0)?)
    }
}

struct Copies<'a, 'e, 'f> {
    site: SaeSite<'a>,
    place: HookPoint,
    n: usize,
    edit: &'e mut EditRow<'f>,
    /// The SAE's input in this pass. `[rows, d_in]`
    x: Vec<f32>,
}

impl Hook for Copies<'_, '_, '_> {
    fn wants(&self, point: HookPoint) -> bool {
        point == self.site.hook_point || point == self.place
    }

    fn apply(&mut self, point: HookPoint, rows: &Rows, activation: &Tensor) -> harvester::Result<Edit> {
        let read = |activation| tensor_rows::rows(activation).map_err(|error| harvester::Error::Hook(error.into()));
        if point == self.site.hook_point {
            self.x = read(activation)?;
        }
        if point != self.place {
            return Ok(Edit::Keep);
        }
        let (y, d_in, d_out) = (read(activation)?, self.site.sae.d_in(), self.site.sae.d_out());
        let mut copies = Vec::with_capacity(self.n);
        for variant in 0..self.n {
            let mut y = y.clone();
            for ((row, x), y) in rows.iter().zip(self.x.chunks_exact(d_in)).zip(y.chunks_exact_mut(d_out)) {
                (self.edit)(Row { variant, ..row }, x, y);
            }
            copies.push(tensor_rows::replaced(activation, y).map_err(|error| harvester::Error::Hook(error.into()))?);
        }
        Ok(Edit::Variants(copies))
    }
}
