//! [`read_manifest`] and [`write_manifest`]: the `manifest.json` of any stage's folder. Its `format` says which stage
//! wrote it and its `version` how; its last field is a checksum of the rest. All three are compared before anything
//! else in the folder is believed.

use std::path::{Path, PathBuf};

use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::{hash::hex, location::Location};
use crate::{Error, Result};

/// File name of every manifest.
pub const MANIFEST_FILE: &str = "manifest.json";

/// Version of the artifacts' layout. A reader refuses any other.
pub const FORMAT_VERSION: u32 = 1;

/// The field of [`Checked`] that holds the SHA-256 of the manifest's own bytes, taken with zeros in the place of the
/// hash.
const CHECKSUM_FIELD: &str = "manifest_sha256";

/// Replaces the manifest in `dir`; shared by the folders of every stage.
///
/// # Errors
/// When it cannot be written; the old one is then still there.
pub fn write_manifest<T: Serialize>(dir: &Path, manifest: &T) -> Result<()> {
    write_manifest_to(&dir.into(), manifest)
}

/// [`write_manifest`], here or in an object store.
pub(crate) fn write_manifest_to<T: Serialize>(folder: &Location, manifest: &T) -> Result<()> {
    let place = folder.join(MANIFEST_FILE);
    let bytes = to_bytes(manifest).map_err(|error| Error::io("write", place.to_string())(error.into()))?;
    place.write(&bytes)
}

/// A manifest and its checksum, which comes last.
#[derive(Serialize)]
struct Checked<'a, T> {
    #[serde(flatten)]
    manifest: &'a T,
    manifest_sha256: &'a str,
}

/// The bytes of the file: the manifest and its checksum.
fn to_bytes<T: Serialize>(manifest: &T) -> serde_json::Result<Vec<u8>> {
    let zeros = "0".repeat(64);
    let mut text = serde_json::to_string_pretty(&Checked { manifest, manifest_sha256: &zeros })?;
    text.push('\n');
    if let Some(place) = text.rfind(&zeros) {
        let sum = hex(&Sha256::digest(&text));
        text.replace_range(place..place + 64, &sum);
    }
    Ok(text.into_bytes())
}

/// Checks that the manifest at `path` has the very bytes that were written.
fn check_sum(path: &Path, bytes: &[u8]) -> Result<()> {
    let field = format!("\"{CHECKSUM_FIELD}\": \"");
    let start = bytes.windows(field.len()).rposition(|window| window == field.as_bytes()).map(|at| at + field.len());
    let sum = start.and_then(|start| bytes.get(start..start + 64));
    let computed = start.zip(sum).map(|(start, _)| {
        let mut hasher = Sha256::new();
        hasher.update(&bytes[..start]);
        hasher.update([b'0'; 64]);
        hasher.update(&bytes[start + 64..]);
        hex(&hasher.finalize())
    });
    match (sum, computed) {
        (Some(sum), Some(computed)) if sum == computed.as_bytes() => Ok(()),
        (sum, computed) => {
            let found = sum.map_or("none".into(), String::from_utf8_lossy);
            let expected =
                format!("its own SHA-256, {}, in {CHECKSUM_FIELD}", computed.unwrap_or_else(|| "at its end".into()));
            let hint = "The manifest was edited or damaged; restore it, or run its stage again into another folder";
            Err(Error::malformed(path, expected, found, hint))
        }
    }
}

/// Reads the manifest of a folder that should hold `expected_format`; shared by the folders of every stage.
///
/// # Errors
/// When there is none, or one of another kind or version, or one that is not as it was written.
pub fn read_manifest<T: DeserializeOwned>(dir: &Path, expected_format: &str) -> Result<T> {
    read_manifest_from(&dir.into(), expected_format)
}

/// [`read_manifest`], here or in an object store.
pub(crate) fn read_manifest_from<T: DeserializeOwned>(folder: &Location, expected_format: &str) -> Result<T> {
    let place = folder.join(MANIFEST_FILE);
    if place.bytes()?.is_none() && folder.is_folder()? {
        let expected = format!("a folder that holds {expected_format}");
        let hint = "Name the output folder of the stage before; it has a manifest.json";
        return Err(Error::malformed(folder.to_string(), expected, "a folder without a manifest.json", hint));
    }
    let path = PathBuf::from(place.to_string());
    let damaged = |reason: String| {
        let hint = "The file was edited or damaged; restore it, or run its stage again into another folder";
        Error::malformed(&path, format!("a manifest of {expected_format}"), reason, hint)
    };
    let bytes = place.read()?;
    let text = std::str::from_utf8(&bytes).map_err(|error| damaged(error.to_string()))?;
    let value: Value = serde_json::from_str(text).map_err(|error| damaged(error.to_string()))?;
    check_field(&path, &value, "format", &Value::from(expected_format), "Name the output folder of the right stage")?;
    let hint = "Read it with the refract that wrote it, or run its stage again";
    check_field(&path, &value, "version", &Value::from(FORMAT_VERSION), hint)?;
    check_sum(&path, &bytes)?;
    serde_json::from_value(value).map_err(|error| damaged(error.to_string()))
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
    use std::fs;

    use super::*;
    use crate::HarvestManifest;

    #[test]
    fn a_flipped_bit_anywhere_in_a_manifest_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let manifest =
            serde_json::json!({ "format": "refract.test", "version": FORMAT_VERSION, "zeros": "0".repeat(64) });
        write_manifest(folder.path(), &manifest).unwrap();
        read_manifest::<Value>(folder.path(), "refract.test").unwrap();
        let path = folder.path().join(MANIFEST_FILE);
        let bytes = fs::read(&path).unwrap();
        for bit in 0..8 * bytes.len() {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            fs::write(&path, damaged).unwrap();
            let read = read_manifest::<Value>(folder.path(), "refract.test");
            let message = read.expect_err(&format!("bit {bit}")).to_string();
            assert!(message.contains(MANIFEST_FILE), "{message}");
        }
    }

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
        let edited = refused("{\"format\": \"refract.activations\", \"version\": 1}");
        assert!(edited.contains("manifest_sha256") && edited.contains("restore it"), "{edited}");
        write_manifest(folder.path(), &serde_json::json!({ "format": "refract.activations", "version": 1 })).unwrap();
        let without_fields = HarvestManifest::read(folder.path()).unwrap_err().to_string();
        assert!(without_fields.contains("missing field"), "{without_fields}");
        assert!(refused("{").contains("manifest.json"));
        fs::remove_file(folder.path().join(MANIFEST_FILE)).unwrap();
        let none = HarvestManifest::read(folder.path()).unwrap_err().to_string();
        assert!(none.contains("without a manifest.json"), "{none}");
    }
}
