//! [`HookPoint`]: a named point in the forward pass, with TransformerLens' names. Strings are parsed once, on input.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use super::{ModelConfig, NormPlaces};
use crate::{Error, Result};

/// A point in the forward pass whose activation can be read or replaced, e.g. `blocks.14.hook_resid_post`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum HookPoint {
    /// `hook_embed`: the token embeddings, scaled if the family does so, before any position embedding is added.
    Embed,
    /// `blocks.{layer}.{site}`.
    Block {
        /// Block number, from 0.
        layer: usize,
        /// Point in the block.
        site: Site,
    },
}

/// A point in a block. Listed in the order of the pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Site {
    /// `hook_resid_pre`: the residual stream entering the block. `[rows, d_model]`
    ResidPre,
    /// `ln1.hook_normalized`: the input of attention: the norm's output including its weight and bias. Absent if there
    /// is no norm before attention (OLMo 2): its input is then `hook_resid_pre`. `[rows, d_model]`
    Ln1Normalized,
    /// `attn.hook_z`: the heads' outputs, concatenated, before W_O. `[rows, n_heads * d_head]`
    AttnZ,
    /// `hook_attn_out`: the output of attention that is added to the residual stream; in Gemma 2, Gemma 3 and OLMo 2,
    /// after its norm. `[rows, d_model]`
    AttnOut,
    /// `hook_resid_mid`: the residual stream after attention. Absent in parallel blocks (GPT-NeoX). `[rows, d_model]`
    ResidMid,
    /// `ln2.hook_normalized`: the input of the MLP. Absent in OLMo 2, like `ln1`. `[rows, d_model]`
    Ln2Normalized,
    /// `mlp.hook_post`: the MLP's hidden activations, the input of its last matrix. `[rows, d_mlp]`
    MlpPost,
    /// `hook_mlp_out`: the output of the MLP that is added to the residual stream; in some families, after its norm.
    /// `[rows, d_model]`
    MlpOut,
    /// `hook_resid_post`: the residual stream leaving the block. `[rows, d_model]`
    ResidPost,
}

impl Site {
    /// Every site, in the order of the pass.
    pub(crate) const ALL: [Self; 9] = [
        Self::ResidPre,
        Self::Ln1Normalized,
        Self::AttnZ,
        Self::AttnOut,
        Self::ResidMid,
        Self::Ln2Normalized,
        Self::MlpPost,
        Self::MlpOut,
        Self::ResidPost,
    ];

    /// TransformerLens' name of the site, without the block.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::ResidPre => "hook_resid_pre",
            Self::Ln1Normalized => "ln1.hook_normalized",
            Self::AttnZ => "attn.hook_z",
            Self::AttnOut => "hook_attn_out",
            Self::ResidMid => "hook_resid_mid",
            Self::Ln2Normalized => "ln2.hook_normalized",
            Self::MlpPost => "mlp.hook_post",
            Self::MlpOut => "hook_mlp_out",
            Self::ResidPost => "hook_resid_post",
        }
    }
}

impl HookPoint {
    /// `blocks.{layer}.hook_resid_post`, the hook point of most SAEs.
    pub fn resid_post(layer: usize) -> Self {
        Self::Block { layer, site: Site::ResidPost }
    }

    /// Number of values per token at this point.
    pub fn width(self, config: &ModelConfig) -> usize {
        match self {
            Self::Block { site: Site::AttnZ, .. } => config.n_heads * config.d_head,
            Self::Block { site: Site::MlpPost, .. } => config.d_mlp,
            _ => config.d_model,
        }
    }

    /// True if vectors here are in the residual stream, or are added to it, so that the head can read them.
    pub fn writes_to_resid(self) -> bool {
        let Self::Block { site, .. } = self else { return true };
        matches!(site, Site::ResidPre | Site::ResidMid | Site::ResidPost | Site::AttnOut | Site::MlpOut)
    }

    /// Number of blocks that a pass must run to reach this point.
    pub(crate) fn layers_needed(self) -> usize {
        match self {
            Self::Embed => 0,
            Self::Block { layer, site: Site::ResidPre } => layer,
            Self::Block { layer, .. } => layer + 1,
        }
    }

    /// Checks that the model has this point.
    ///
    /// # Errors
    /// The layer does not exist, the point is `hook_resid_mid` of a block that adds attention and MLP in parallel, or
    /// the point is a norm that the family does not have.
    pub fn check(self, config: &ModelConfig) -> Result<()> {
        let Self::Block { layer, site } = self else { return Ok(()) };
        if layer >= config.n_layers {
            let last = config.n_layers.saturating_sub(1);
            let expected = format!("a layer from 0 to {last}: {} has {} layers", config.family, config.n_layers);
            return Err(Error::invalid("hook point", expected, self.to_string()));
        }
        if site == Site::ResidMid && config.parallel_residual {
            let expected =
                "another site: attention and MLP are added in parallel here, so there is no point between them";
            return Err(Error::invalid("hook point", expected, self.to_string()));
        }
        if matches!(site, Site::Ln1Normalized | Site::Ln2Normalized) && config.norm_places == NormPlaces::After {
            let expected = format!("another site: {} has no norms before attention and MLP", config.family);
            return Err(Error::invalid("hook point", expected, self.to_string()));
        }
        Ok(())
    }
}

impl fmt::Display for HookPoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Embed => f.write_str("hook_embed"),
            Self::Block { layer, site } => write!(f, "blocks.{layer}.{}", site.name()),
        }
    }
}

impl FromStr for HookPoint {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        if text == "hook_embed" {
            return Ok(Self::Embed);
        }
        parse_block_point(text).ok_or_else(|| {
            if parse_block_point(&text.replace('*', "0")).is_some() {
                let expected = "one hook point, such as blocks.14.hook_resid_post";
                return Error::invalid("hook point", expected, format!("`{text}`, a pattern of several"));
            }
            let sites: Vec<_> = Site::ALL.iter().map(|site| site.name()).collect();
            let expected = format!("hook_embed, blocks.LAYER.SITE or blocks.*.SITE, SITE one of {}", sites.join(", "));
            Error::invalid("hook point", expected, format!("`{text}`"))
        })
    }
}

fn parse_block_point(text: &str) -> Option<HookPoint> {
    let (layer, name) = text.strip_prefix("blocks.")?.split_once('.')?;
    // `parse` alone would accept "+1" and "007", which print differently: names must round-trip.
    let layer = layer.parse::<usize>().ok().filter(|number| number.to_string() == layer)?;
    let site = Site::ALL.into_iter().find(|site| site.name() == name)?;
    Some(HookPoint::Block { layer, site })
}

impl TryFrom<String> for HookPoint {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<HookPoint> for String {
    fn from(point: HookPoint) -> Self {
        point.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_survives_a_round_trip() {
        for site in Site::ALL {
            let point = HookPoint::Block { layer: 14, site };
            assert_eq!(point.to_string().parse::<HookPoint>().ok(), Some(point));
        }
        assert_eq!("hook_embed".parse::<HookPoint>().ok(), Some(HookPoint::Embed));
    }

    #[test]
    fn near_misses_are_refused() {
        for text in
            ["", "blocks.14", "blocks.x.hook_resid_post", "blocks.014.hook_resid_post", "blocks.+1.hook_resid_post"]
        {
            assert!(text.parse::<HookPoint>().is_err(), "{text} was accepted");
        }
    }
}
