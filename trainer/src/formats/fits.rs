//! [`Fits`]: which SAEs a format can express. Asked before anything is written, so that a file never holds less than
//! the SAE that it was made from.

use std::path::Path;

use harvester::HookPoint;

use super::format::SaeFormat;
use crate::{
    Error, Result,
    sae::{Architecture, HookPoints, Sae},
};

/// The hook point that an SAE reads and, of a transcoder, the one that it rebuilds, as far as a folder's name says so.
pub(crate) type Said = (Option<HookPoint>, Option<HookPoint>);

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
        let architecture = sae.architecture();
        if !self.architectures.contains(&architecture) {
            let names: Vec<_> = self.architectures.iter().map(ToString::to_string).collect();
            let made = match architecture {
                Architecture::JumpRelu => " (as which batch-topk is saved; `architecture` topk gives a topk SAE)",
                _ => "",
            };
            return self.refuse(names.join(" or "), format!("{architecture}{made}"));
        }
        match sae.config().hook_points {
            HookPoints::Crosscoder(_) => self.refuse("an SAE of one hook point".into(), "a crosscoder".into())?,
            HookPoints::Transcoder { .. } if !self.transcoder => {
                self.refuse("an SAE that rebuilds what it reads".into(), "a transcoder".into())?;
            }
            HookPoints::Transcoder { .. } | HookPoints::Autoencoder(_) => {}
        }
        if sae.has_skip() && !self.skip {
            return self.refuse("an SAE without a skip connection".into(), "one with W_skip".into());
        }
        Ok(())
    }

    /// Of a format that keeps the hook point in the name of the folder: refuses one that `said_by` would read back as
    /// another hook point, and of a transcoder as none. `folders` are those that say a hook point, with LAYER for its
    /// layer, the last of them a transcoder's.
    pub(crate) fn check_folder(
        &self,
        hook_points: &HookPoints,
        dir: &Path,
        said_by: impl Fn(&Path) -> Result<Said>,
        folders: &[&str],
    ) -> Result<()> {
        let (from, to) = hook_points.ends();
        let is_transcoder = hook_points.is_transcoder();
        let same = |said: Option<HookPoint>, known: Option<_>| said.is_none() || known.is_none() || said == known;
        let agrees =
            |(said, said_to): Said| said_to.is_some() == is_transcoder && same(said, from) && same(said_to, to);
        if said_by(dir).is_ok_and(agrees) {
            return Ok(());
        }
        let layer = [from, to].into_iter().flatten().find_map(|point| match point {
            HookPoint::Block { layer, .. } => Some(layer.to_string()),
            HookPoint::Embed => None,
        });
        let mut named = layer.iter().flat_map(|layer| folders.iter().map(|name| name.replace("LAYER", layer)));
        let fitting = named.find(|name| said_by(Path::new(name)).is_ok_and(|said| said.0.is_some() && agrees(said)));
        let expected = match fitting {
            Some(name) => format!("a folder {name}, whose name says the hook point"),
            None if is_transcoder => {
                let name = folders.last().map(|name| name.replace("LAYER", "10")).unwrap_or_default();
                format!("a transcoder from an MLP's input to its output, in a folder such as {name}")
            }
            None => "a folder whose name says no hook point".into(),
        };
        self.refuse(expected, dir.display().to_string())
    }

    pub(crate) fn refuse<T>(&self, expected: String, found: String) -> Result<T> {
        let what = format!("SAE to be written as {}", self.format);
        let other = if self.format == SaeFormat::SaeLens { "" } else { "; the format saelens has a place for it" };
        Err(Error::invalid(what, expected, format!("{found}{other}")))
    }
}
