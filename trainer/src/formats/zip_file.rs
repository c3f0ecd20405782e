//! The zip files in which PyTorch and NumPy keep arrays: a member is read whole, with its checksum, and all are written
//! unpacked. What the members mean is the business of `torch_file` and of `npz`.

use std::io::{Cursor, Read, Write};

use zip::{CompressionMethod, ZipWriter, read::ZipFile, result::ZipResult, write::SimpleFileOptions};

/// The bytes of a member, of which there are at most `most`. An error says what was found.
pub(super) fn unpacked<R: Read>(mut member: ZipFile<'_, R>, most: u64) -> Result<Vec<u8>, String> {
    if member.size() > most {
        return Err(format!("{} bytes, more than {most}", member.size()));
    }
    // To its end, where the checksum is compared; a member longer than it says ends there too.
    let mut bytes = vec![];
    member.read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    Ok(bytes)
}

/// A zip file of unpacked members, whose bytes depend on nothing but them.
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
        let spoilt = |signature: &[u8], offset: usize, byte: u8| {
            let at = zip.windows(signature.len()).position(|window| window == signature).unwrap();
            let mut spoilt = zip.clone();
            spoilt[at + offset] = byte;
            read(&spoilt, 12).unwrap_err()
        };
        assert!(spoilt(b"twelve", 0, b'T').contains("checksum"));
        // The size that the directory states, and that `most` is compared with.
        assert!(spoilt(b"PK\x01\x02", 24, 5).contains("larger than its declared"));
    }
}
