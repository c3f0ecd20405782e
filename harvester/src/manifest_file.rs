//! [`read_manifest`] and [`write_manifest`]: the `manifest.json` of any stage's folder. Its `format` says which stage
//! wrote it and its `version` how; both are checked before anything else in the folder is believed.

use std::{fs, path::Path};

use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use crate::{Error, Result, atomic::write_atomically};

/// File name of every manifest.
pub const MANIFEST_FILE: &str = "manifest.json";

/// Version of the artifacts' layout. A reader refuses any other.
pub const FORMAT_VERSION: u32 = 1;

/// Replaces the manifest in `dir`; shared by the folders of every stage.
///
/// # Errors
/// When it cannot be written; the old one is then still there.
pub fn write_manifest<T: Serialize>(dir: &Path, manifest: &T) -> Result<()> {
    let path = dir.join(MANIFEST_FILE);
    let mut bytes = serde_json::to_vec_pretty(manifest).map_err(|error| Error::io("write", &path)(error.into()))?;
    bytes.push(b'\n');
    write_atomically(&path, &bytes)
}

/// Reads the manifest of a folder that should hold `expected_format`; shared by the folders of every stage.
///
/// # Errors
/// When there is none, or one of another kind or version, or one that is damaged.
pub fn read_manifest<T: DeserializeOwned>(dir: &Path, expected_format: &str) -> Result<T> {
    let path = dir.join(MANIFEST_FILE);
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && dir.is_dir() => {
            let expected = format!("a folder that holds {expected_format}");
            let hint = "Name the output folder of the stage before; it has a manifest.json";
            return Err(Error::malformed(dir, expected, "a folder without a manifest.json", hint));
        }
        Err(error) => return Err(Error::io("read", &path)(error)),
    };
    let damaged = |error: serde_json::Error| {
        let hint = "The file was edited or damaged; restore it, or run its stage again into another folder";
        Error::malformed(&path, format!("a manifest of {expected_format}"), error.to_string(), hint)
    };
    let value: Value = serde_json::from_str(&text).map_err(damaged)?;
    check_field(&path, &value, "format", &Value::from(expected_format), "Name the output folder of the right stage")?;
    let hint = "Read it with the refract that wrote it, or run its stage again";
    check_field(&path, &value, "version", &Value::from(FORMAT_VERSION), hint)?;
    serde_json::from_value(value).map_err(damaged)
}

fn check_field(path: &Path, manifest: &Value, field: &str, expected: &Value, hint: &str) -> Result<()> {
    let found = manifest.get(field).unwrap_or(&Value::Null);
    if found == expected {
        return Ok(());
    }
    Err(Error::malformed(path, format!("{field} {expected}"), format!("{field} {found}"), hint))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::HarvestManifest;

    #[test]
    fn what_is_no_manifest_of_ours_is_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let refused = |text: &str| {
            fs::write(folder.path().join(MANIFEST_FILE), text).unwrap();
            HarvestManifest::read(folder.path()).unwrap_err().to_string()
        };
        assert!(refused("{\"format\": \"refract.sae\"}").contains("found format \"refract.sae\""));
        let newer = refused("{\"format\": \"refract.activations\", \"version\": 9}");
        assert!(newer.contains("expected version 1, found version 9"), "{newer}");
        assert!(refused("{\"format\": \"refract.activations\", \"version\": 1}").contains("missing field"));
        assert!(refused("{").contains("manifest.json"));
        fs::remove_file(folder.path().join(MANIFEST_FILE)).unwrap();
        let none = HarvestManifest::read(folder.path()).unwrap_err().to_string();
        assert!(none.contains("without a manifest.json"), "{none}");
    }
}
