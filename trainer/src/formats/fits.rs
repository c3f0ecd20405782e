//! [`Fits`]: the SAEs that a format can express. This is checked before anything is written, so that a file never loses
//! a part of the SAE.

use std::path::Path;

use harvester::HookPoint;

use super::format::SaeFormat;
use crate::{
    Error, Result,
    sae::{Architecture, HookPoints, Sae},
};

/// The hook point that an SAE reads and, for a transcoder, the one that it reconstructs, as far as a folder's name
/// gives them.
pub(crate) type Said = (Option<HookPoint>, Option<HookPoint>);

/// The SAEs that a format can express.
pub(crate) struct Fits {
    pub(crate) format: SaeFormat,
    pub(crate) architectures: &'static [Architecture],
    pub(crate) transcoder: bool,
    pub(crate) skip: bool,
}

impl Fits {
    /// Checks the SAE, except its input norm, which each writer checks itself.
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
                self.refuse("an SAE that reconstructs the hook point that it reads".into(), "a transcoder".into())?;
            }
            HookPoints::Transcoder { .. } | HookPoints::Autoencoder(_) => {}
        }
        if sae.has_skip() && !self.skip {
            return self.refuse("an SAE without a skip connection".into(), "one with W_skip".into());
        }
        Ok(())
    }

    /// For a format that stores the hook point in the name of the folder: refuses a folder that `said_by` would read
    /// back as another hook point, or for a transcoder as none. `folders` are the names that stand for a hook point,
    /// with LAYER for its layer; the last one is a transcoder's.
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
            Some(name) => format!("a folder {name}, whose name gives the hook point"),
            None if is_transcoder => {
                let name = folders.last().map(|name| name.replace("LAYER", "10")).unwrap_or_default();
                format!("a transcoder from an MLP's input to its output, in a folder such as {name}")
            }
            None => "a folder whose name gives no hook point".into(),
        };
        self.refuse(expected, dir.display().to_string())
    }

    pub(crate) fn refuse<T>(&self, expected: String, found: String) -> Result<T> {
        let what = format!("SAE to be written as {}", self.format);
        let other = if self.format == SaeFormat::SaeLens { "" } else { "; the format saelens can express it" };
        Err(Error::invalid(what, expected, format!("{found}{other}")))
    }
}
