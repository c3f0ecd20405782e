//! [`convert()`]: writes an SAE in the format of another tool.

use std::{
    fmt::{self, Display, Formatter},
    fs,
    path::{Path, PathBuf},
};

use harvester::HookPoint;

use crate::{
    Error, Result, SaeManifest,
    formats::{SaeFormat, folder_of},
    sae::{Sae, SaeConfig},
};

/// A conversion that is done.
#[derive(Debug)]
pub struct Conversion {
    /// The format that was read.
    pub from: SaeFormat,
    /// The format that was written.
    pub to: SaeFormat,
    /// The folder that was written.
    pub out: PathBuf,
    /// The SAE, with the facts that were added to it.
    pub sae: Sae,
    /// Facts for which the new format has no field.
    pub lost: Vec<&'static str>,
}

impl Display for Conversion {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { from, to, out, sae, .. } = self;
        let (out, architecture, d_in, d_sae) = (out.display(), sae.architecture(), sae.d_in(), sae.d_sae());
        write!(f, "{out}: {architecture}, d_in {d_in}, d_sae {d_sae}, from {from} to {to}")
    }
}

impl Conversion {
    /// The result for programs.
    pub fn to_json(&self) -> serde_json::Value {
        let config = self.sae.config();
        serde_json::json!({
            "out": self.out, "from": self.from.to_string(), "to": self.to.to_string(),
            "architecture": self.sae.architecture().to_string(), "d_in": config.d_in, "d_out": config.d_out,
            "d_sae": config.d_sae, "hook_point": config.hook_points.reads().first(), "lost": self.lost,
        })
    }
}

/// Reads the SAE at `path`, completes its hook point and the name of its model, and writes it in the format `to` into
/// the folder `out`, which appears whole.
///
/// # Errors
/// When the SAE cannot be read, names another hook point, or cannot be expressed in the format; or `out` is not empty.
pub fn convert(
    path: &Path,
    hook_point: Option<HookPoint>,
    model_name: Option<&str>,
    to: SaeFormat,
    out: &Path,
) -> Result<Conversion> {
    let (mut config, weights) = Sae::load(path)?.into_parts();
    let from = SaeFormat::of(path)?;
    complete(&mut config, path, hook_point, model_name)?;
    let sae = Sae::new(config, weights)?;
    refuse_full(out)?;
    // Beside `out`, so that it can be renamed; with the same name, from which some formats know the layer.
    let name = out.file_name().ok_or_else(|| Error::invalid("`out`", "a folder's name", out.display().to_string()))?;
    let unfinished = out.with_file_name(format!(".{}.tmp", name.to_string_lossy()));
    remove(&unfinished)?;
    let folder = unfinished.join(name);
    fs::create_dir_all(&folder).map_err(Error::io("create", &folder))?;
    let _ = fs::remove_dir(out); // an empty one
    let written = sae.save_as(to, &folder).and_then(|()| fs::rename(&folder, out).map_err(Error::io("create", out)));
    remove(&unfinished)?;
    written?;
    // Read again, to know these facts without a list that could be wrong.
    let lost = sae.config().lost_in(Sae::load(out)?.config());
    Ok(Conversion { from, to, out: out.into(), sae, lost })
}

/// Adds the hook point, if the SAE does not name it itself, and names its model as other tools know it. A name that is
/// given wins: the SAE may have been trained on a copy that only this machine has.
fn complete(
    config: &mut SaeConfig,
    path: &Path,
    hook_point: Option<HookPoint>,
    model_name: Option<&str>,
) -> Result<()> {
    if let Some(point) = hook_point {
        // For a crosscoder, this is the first one that it reads.
        if let Some(said) = config.hook_points.reads().first().filter(|said| **said != point) {
            let expected = format!("{said}, which {} names itself, or none", path.display());
            return Err(Error::invalid("`hook_point`", expected, point.to_string()));
        }
        config.hook_points = config.hook_points.clone().or_reading(point);
    }
    let folder = folder_of(path);
    let of_manifest = match SaeManifest::is_in(&folder.as_path().into()) {
        true => SaeManifest::read(&folder)?.model.map(|model| model.public_name()),
        false => None,
    };
    if let Some(name) = model_name.map(str::to_string).or(of_manifest) {
        config.model_name = name;
    }
    Ok(())
}

/// Refuses a folder that holds files.
fn refuse_full(out: &Path) -> Result<()> {
    let entry = match fs::read_dir(out) {
        Ok(mut entries) => entries.next().transpose().map_err(Error::io("list", out))?,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        Err(error) => return Err(Error::io("list", out)(error)),
    };
    let Some(entry) = entry else { return Ok(()) };
    let found = format!("a folder that holds `{}`", entry.file_name().to_string_lossy());
    let hint = "Choose another `out`, or remove the folder if it is of an earlier conversion";
    Err(Error::malformed(out, "an empty folder or none", found, hint))
}

/// Removes a folder if it exists.
fn remove(folder: &Path) -> Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Error::io("remove", folder)(error)),
        _ => Ok(()),
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn a_damaged_manifest_is_no_missing_one() {
        let dir = tempfile::tempdir().unwrap();
        let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/formats/saelens-topk/sae");
        for entry in fs::read_dir(fixture).unwrap() {
            let entry = entry.unwrap();
            fs::copy(entry.path(), dir.path().join(entry.file_name())).unwrap();
        }
        fs::write(dir.path().join("manifest.json"), "{\"format\": \"refract.sae\", ").unwrap();
        for path in [dir.path().to_path_buf(), dir.path().join("sae_weights.safetensors")] {
            let message = convert(&path, None, None, SaeFormat::SaeLens, &dir.path().join("out")).unwrap_err();
            assert!(message.to_string().contains("manifest.json"), "{message}");
        }
    }

    #[test]
    fn a_folder_of_files_is_refused_and_leftovers_of_a_killed_conversion_are_not_in_the_way() {
        let dir = tempfile::tempdir().unwrap();
        let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/formats/sparsify-sae/layers.3");
        let to = |out: &str| convert(&fixture, None, None, SaeFormat::Sparsify, &dir.path().join(out));
        fs::create_dir_all(dir.path().join(".layers.3.tmp/layers.3")).unwrap();
        fs::write(dir.path().join(".layers.3.tmp/layers.3/cfg.json"), "half").unwrap();
        fs::create_dir(dir.path().join("layers.3")).unwrap();
        assert!(to("layers.3").unwrap().lost.iter().all(|fact| *fact != "hook point"));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "nothing is left beside it");
        let message = to("layers.3").unwrap_err().to_string();
        assert!(message.contains("expected an empty folder or none, found a folder that holds `"), "{message}");
    }
}
