//! The `manifest.json` of any stage's folder. Its `format` names the stage that wrote it, its `version` the layout, and
//! its last field is a checksum of the rest. All three are checked before anything else in the folder is trusted.

use std::ops::RangeInclusive;

use serde::Serialize;
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::{hash::hex, location::Location};
use crate::{Error, Result};

/// File name of every manifest.
pub(crate) const MANIFEST_FILE: &str = "manifest.json";

/// The field of [`Checked`] with the SHA-256 of the manifest's own bytes, computed with zeros in place of the hash.
const CHECKSUM_FIELD: &str = "manifest_sha256";

/// Writes the manifest to the file `place`.
pub(super) fn write_manifest<T: Serialize>(place: &Location, manifest: &T, with_checksum: bool) -> Result<()> {
    let bytes = if with_checksum { to_bytes(manifest) } else { serde_json::to_vec_pretty(manifest) };
    let bytes = bytes.map_err(|error| Error::io("write", place.to_string())(error.into()))?;
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

/// Checks that the manifest at `path` has exactly the bytes that were written.
fn check_sum(place: &Location, bytes: &[u8], repair: &str) -> Result<()> {
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
            let hint = format!("The manifest was edited or damaged. {repair}");
            Err(Error::malformed(place.to_string(), expected, found, hint))
        }
    }
}

/// Properties that a manifest must have.
pub(super) struct Expected {
    pub(super) format: &'static str,
    /// The versions that can be read.
    pub(super) versions: RangeInclusive<u32>,
    /// True if its last field is a checksum of the rest.
    pub(super) has_checksum: bool,
    /// Next step if the file is damaged.
    pub(super) repair: &'static str,
    /// The command that writes such folders.
    pub(super) command: &'static str,
}

impl Expected {
    /// The error for a file that is not such a manifest.
    pub(super) fn damaged(&self, place: &Location, reason: String) -> Error {
        let hint = format!("The file was edited or damaged. {}", self.repair);
        Error::malformed(place.to_string(), format!("a manifest of {}", self.format), reason, hint)
    }
}

/// The hint for a folder of this format that is given to another stage.
fn reader_of(format: &str) -> &'static str {
    match format {
        "refract.activations" => "`refract train` reads this folder, as `activations`",
        "refract.sae" => "`refract evaluate`, `refract index` and `refract steer` read this folder, as `sae`",
        "refract.features" => "`refract show` and `refract find` read this folder, as `features`",
        _ => "`refract inspect` says what this folder is",
    }
}

/// Reads the manifest in the file `place`: its version and all its fields.
pub(super) fn read_manifest(place: &Location, expected: &Expected) -> Result<(u32, Value)> {
    let bytes = &place.read()?;
    let unread = |reason: String| expected.damaged(place, reason);
    let text = std::str::from_utf8(bytes).map_err(|error| unread(error.to_string()))?;
    let value: Value = serde_json::from_str(text).map_err(|error| unread(error.to_string()))?;
    let refuse = |field: &str, expected: String, hint: &str| {
        let found = format!("{field} {}", value.get(field).unwrap_or(&Value::Null));
        Err(Error::malformed(place.to_string(), format!("{field} {expected}"), found, hint))
    };
    if value.get("format") != Some(&Value::from(expected.format)) {
        let found = value.get("format").and_then(Value::as_str).unwrap_or_default();
        return refuse("format", format!("\"{}\"", expected.format), reader_of(found));
    }
    let version = value.get("version").and_then(Value::as_u64).and_then(|version| u32::try_from(version).ok());
    let (oldest, newest) = (*expected.versions.start(), *expected.versions.end());
    let Some(version) = version.filter(|version| expected.versions.contains(version)) else {
        let versions = if oldest == newest { newest.to_string() } else { format!("{oldest} to {newest}") };
        let hint = match value.get("version").and_then(Value::as_u64).is_some_and(|version| version < oldest.into()) {
            true => format!(
                "An earlier refract wrote this folder: make it again with `refract {}`, into another folder",
                expected.command
            ),
            false => "Read it with the refract that wrote it, or run its stage again into another folder".into(),
        };
        return refuse("version", versions, &hint);
    };
    if expected.has_checksum {
        check_sum(place, bytes, expected.repair)?;
    }
    Ok((version, value))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::fs;

    use super::*;
    use crate::{HarvestManifest, Manifest};

    const TEST: Expected =
        Expected { format: "refract.test", versions: 2..=3, has_checksum: true, repair: "", command: "test" };

    #[test]
    fn a_flipped_bit_anywhere_in_a_manifest_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let manifest = serde_json::json!({ "format": "refract.test", "version": 2, "zeros": "0".repeat(64) });
        let path = folder.path().join(MANIFEST_FILE);
        let place = Location::from(&path);
        write_manifest(&place, &manifest, true).unwrap();
        read_manifest(&place, &TEST).unwrap();
        let bytes = fs::read(&path).unwrap();
        for bit in 0..8 * bytes.len() {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            fs::write(&path, damaged).unwrap();
            let read = read_manifest(&place, &TEST);
            let message = read.expect_err(&format!("bit {bit}")).to_string();
            assert!(message.contains(MANIFEST_FILE), "{message}");
        }
    }

    #[test]
    fn a_folder_of_an_earlier_version_is_refused_with_the_command_that_makes_it_again() {
        let folder = tempfile::tempdir().unwrap();
        let place = Location::from(folder.path().join(MANIFEST_FILE));
        let refused = |version: u64| {
            write_manifest(&place, &serde_json::json!({ "format": "refract.test", "version": version }), true).unwrap();
            read_manifest(&place, &TEST).unwrap_err().to_string()
        };
        let (older, newer) = (refused(1), refused(4));
        assert!(older.contains("expected version 2 to 3, found version 1"), "{older}");
        assert!(older.contains("make it again with `refract test`"), "{older}");
        assert!(newer.contains("found version 4") && newer.contains("the refract that wrote it"), "{newer}");
    }

    #[test]
    fn what_is_no_manifest_of_ours_is_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let refused = |text: &str| {
            fs::write(folder.path().join(MANIFEST_FILE), text).unwrap();
            HarvestManifest::read(folder.path()).unwrap_err().to_string()
        };
        let sae = refused("{\"format\": \"refract.sae\"}");
        assert!(sae.contains("found format \"refract.sae\"") && sae.contains("`refract evaluate`"), "{sae}");
        let newer = refused("{\"format\": \"refract.activations\", \"version\": 9}");
        assert!(newer.contains("expected version 1, found version 9"), "{newer}");
        let edited = refused("{\"format\": \"refract.activations\", \"version\": 1}");
        assert!(edited.contains("manifest_sha256") && edited.contains("Restore it"), "{edited}");
        let empty = serde_json::json!({ "format": "refract.activations", "version": 1 });
        write_manifest(&folder.path().join(MANIFEST_FILE).into(), &empty, true).unwrap();
        let without_fields = HarvestManifest::read(folder.path()).unwrap_err().to_string();
        assert!(without_fields.contains("missing field"), "{without_fields}");
        assert!(refused("{").contains("manifest.json"));
        fs::remove_file(folder.path().join(MANIFEST_FILE)).unwrap();
        let none = HarvestManifest::read(folder.path()).unwrap_err().to_string();
        assert!(none.contains("without a manifest.json"), "{none}");
    }
}
