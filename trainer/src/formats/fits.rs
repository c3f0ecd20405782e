//! [`Fits`]: which SAEs a format can express. Asked before anything is written, so that a file never holds less than
//! the SAE that it was made from.

use std::path::Path;

use harvester::HookPoint;

use crate::{
    Error, Result,
    formats::SaeFormat,
    sae::{Architecture, Sae, SaeConfig},
};

/// Where in the model an SAE reads, and what a transcoder rebuilds, as far as it is known.
pub(crate) type Places = (Option<HookPoint>, Option<HookPoint>);

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
            let made = match architecture {
                Architecture::JumpRelu => " (as which batch-topk is saved; train --arch topk gives a topk SAE)",
                _ => "",
            };
            return self.refuse(names.join(" or "), format!("{architecture}{made}"));
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

    /// Of a format that keeps the place in the name of the folder: refuses one that `places_of` would read back as
    /// another place, and of a transcoder as none. `folders` are those that say a place, with LAYER for its number,
    /// the last of them a transcoder's.
    pub(crate) fn check_folder(
        &self,
        config: &SaeConfig,
        dir: &Path,
        places_of: impl Fn(&Path) -> Result<Places>,
        folders: &[&str],
    ) -> Result<()> {
        let same = |said: Option<HookPoint>, known: Option<_>| said.is_none() || known.is_none() || said == known;
        let agrees = |(said, said_out): Places| {
            said_out.is_some() == config.is_transcoder()
                && same(said, config.hook_point)
                && same(said_out, config.hook_point_out)
        };
        if places_of(dir).is_ok_and(agrees) {
            return Ok(());
        }
        let layer = [config.hook_point, config.hook_point_out].into_iter().flatten().find_map(|point| match point {
            HookPoint::Block { layer, .. } => Some(layer.to_string()),
            HookPoint::Embed => None,
        });
        let mut named = layer.iter().flat_map(|layer| folders.iter().map(|name| name.replace("LAYER", layer)));
        let fitting = named.find(|name| places_of(Path::new(name)).is_ok_and(|said| said.0.is_some() && agrees(said)));
        let expected = match fitting {
            Some(name) => format!("a folder {name}, whose name says the place"),
            None if config.is_transcoder() => {
                let name = folders.last().map(|name| name.replace("LAYER", "10")).unwrap_or_default();
                format!("a transcoder from an MLP's input to its output, in a folder such as {name}")
            }
            None => "a folder whose name says no place".into(),
        };
        self.refuse(expected, dir.display().to_string())
    }

    pub(crate) fn refuse<T>(&self, expected: String, found: String) -> Result<T> {
        let what = format!("SAE to be written as {}", self.format);
        let other = if self.format == SaeFormat::SaeLens { "" } else { "; --to saelens has a place for it" };
        Err(Error::invalid(what, expected, format!("{found}{other}")))
    }
}
