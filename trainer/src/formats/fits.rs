//! [`Fits`]: which SAEs a format can express. Asked before anything is written, so that a file never holds less than
//! the SAE that it was made from.

use crate::{
    Error, Result,
    formats::SaeFormat,
    sae::{Architecture, Sae},
};

/// What a format has a place for.
pub(crate) struct Fits {
    pub(crate) format: SaeFormat,
    pub(crate) architectures: &'static [Architecture],
    pub(crate) transcoder: bool,
    pub(crate) skip: bool,
}

impl Fits {
    /// Checks the SAE; norms of the input are each writer's own business.
    pub(crate) fn check(&self, sae: &Sae) -> Result<()> {
        let architecture = sae.config.architecture;
        if !self.architectures.contains(&architecture) {
            let names: Vec<_> = self.architectures.iter().map(ToString::to_string).collect();
            return self.refuse(names.join(" or "), format!("{architecture}"));
        }
        if !sae.config.columns.is_empty() {
            return self.refuse("an SAE of one place".into(), "a crosscoder".into());
        }
        if sae.config.is_transcoder() && !self.transcoder {
            return self.refuse("an SAE that rebuilds what it reads".into(), "a transcoder".into());
        }
        if sae.w_skip.is_some() && !self.skip {
            return self.refuse("an SAE without a skip connection".into(), "one with W_skip".into());
        }
        Ok(())
    }

    pub(crate) fn refuse<T>(&self, expected: String, found: String) -> Result<T> {
        let what = format!("SAE to be written as {}", self.format);
        let other = if self.format == SaeFormat::SaeLens { "" } else { "; --to saelens has a place for it" };
        Err(Error::invalid(what, expected, format!("{found}{other}")))
    }
}
