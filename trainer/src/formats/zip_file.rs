//! The zip files in which PyTorch and NumPy store arrays. A member is read whole and its checksum is verified; members
//! are written uncompressed. `torch_file` and `npz` interpret the members.

use std::io::{Cursor, Read, Write};

use zip::{CompressionMethod, ZipWriter, read::ZipFile, result::ZipResult, write::SimpleFileOptions};

/// The uncompressed bytes of a member, at most `most`. An error describes what was found.
pub(super) fn unpacked<R: Read>(mut member: ZipFile<'_, R>, most: u64) -> Result<Vec<u8>, String> {
    if member.size() > most {
        return Err(format!("{} bytes, more than {most}", member.size()));
    }
    // Reading to the end verifies the checksum, and fails for a member that is longer than its declared size.
    let mut bytes = vec![];
    member.read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    Ok(bytes)
}

/// A zip file of uncompressed members. Its bytes depend only on them.
pub(super) fn zipped(members: Vec<(String, Vec<u8>)>, folder: &str) -> ZipResult<Vec<u8>> {
    let mut writer = ZipWriter::new(Cursor::new(vec![]));
    for (name, bytes) in members {
        let large = bytes.len() >= u32::MAX as usize;
        let options = SimpleFileOptions::default().compression_method(CompressionMethod::Stored).large_file(large);
        writer.start_file(format!("{folder}{name}"), options)?;
        writer.write_all(&bytes)?;
    }
    Ok(writer.finish()?.into_inner())
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use zip::ZipArchive;

    use super::*;

    #[test]
    fn a_member_is_as_long_as_it_may_be_and_as_its_checksum_says() {
        let zip = zipped(vec![("a".into(), b"twelve bytes".to_vec())], "").unwrap();
        let read = |zip: &[u8], most| unpacked(ZipArchive::new(Cursor::new(zip)).unwrap().by_index(0).unwrap(), most);
        assert_eq!(read(&zip, 12).unwrap(), b"twelve bytes");
        assert_eq!(read(&zip, 11).unwrap_err(), "12 bytes, more than 11");
        let spoiled = |signature: &[u8], offset: usize, byte: u8| {
            let at = zip.windows(signature.len()).position(|window| window == signature).unwrap();
            let mut spoiled = zip.clone();
            spoiled[at + offset] = byte;
            read(&spoiled, 12).unwrap_err()
        };
        assert!(spoiled(b"twelve", 0, b'T').contains("checksum"));
        // The size in the zip directory, which is compared with `most`.
        assert!(spoiled(b"PK\x01\x02", 24, 5).contains("larger than its declared"));
    }
}
