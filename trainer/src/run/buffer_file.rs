//! [`save`] and [`restore`]: the shuffle buffer of a run on a running model, in a file beside the checkpoints, written
//! when the run is stopped. The rows could be computed again, but that takes minutes.
//!
//! ```text
//! shuffle-buffer         = header, a line of JSON; first rows of the next batch, f32; the other rows, as they are stored
//! shuffle-buffer.sha256  = the hash of that file
//! ```
//!
//! Nothing depends on these files: if they are missing, damaged or of another step, the buffer is filled again. So the
//! rows are not flushed to the disk, and a full disk is no error.

use std::{
    fs::{self, File},
    io::{BufRead, BufReader, BufWriter, Read, Write},
    path::{Path, PathBuf},
};

use harvester::{Monitor, StorageDtype, human, sha256_file, write_atomically};
use serde::{Deserialize, Serialize};

use crate::{
    Error, Result,
    data::{
        activation_source::ActivationSource,
        rows::Rows,
        shuffle_buffer::{InMemory, ShuffleBuffer, Stopped},
    },
    manifest::checkpoint_files::FOLDER,
    tensors::le_bytes,
};

/// Rows that are read or written at once.
const CHUNK_ROWS: usize = 4096;

/// Extension of the file with the hash.
const HASH: &str = "sha256";

/// The first line.
#[derive(Debug, Serialize, Deserialize)]
struct Header {
    /// [`crate::SaeManifest::run_id`].
    run: String,
    /// Steps done.
    step: u64,
    state: Stopped,
    /// Dtype of each column.
    dtypes: Vec<StorageDtype>,
    /// Number of values of the rows that a batch begins with.
    begun: usize,
    n_rows: usize,
}

fn path_in(dir: &Path) -> PathBuf {
    dir.join(FOLDER).join("shuffle-buffer")
}

/// Saves `buffer` after `step` steps of `run`. If that is not possible, it says so.
pub(crate) fn save(
    dir: &Path,
    run: &str,
    step: u64,
    buffer: &ShuffleBuffer<impl ActivationSource>,
    monitor: &dyn Monitor,
) {
    let Some(InMemory { state, begun, rows }) = buffer.stopped() else { return };
    let dtypes = rows.first().map_or_else(Vec::new, |(rows, _)| rows.dtypes());
    let header = Header { run: run.into(), step, state, dtypes, begun: begun.len(), n_rows: rows.len() };
    let path = path_in(dir);
    match write(&path, &header, &begun, &rows) {
        Ok(_) if rows.is_empty() => {}
        Ok(bytes) => monitor.say(&format!(
            "the shuffle buffer is kept too, so that it need not be filled again: {} tokens, {} in {}",
            human::grouped(rows.len() as u64),
            human::bytes(bytes),
            path.display()
        )),
        Err(error) => {
            // Best effort: a torn file is noticed when it is read.
            let _ = remove(dir);
            let cause = std::error::Error::source(&error).map_or_else(String::new, |cause| format!(": {cause}"));
            monitor.say(&format!("the shuffle buffer is not kept and will be filled again: {error}{cause}"));
        }
    }
}

/// Writes the files and returns the size of the rows.
fn write(path: &Path, header: &Header, begun: &[f32], rows: &[(&Rows, usize)]) -> Result<u64> {
    let folder = path.with_file_name("");
    fs::create_dir_all(&folder).map_err(Error::io("create", &folder))?;
    let mut file = BufWriter::new(File::create(path).map_err(Error::io("create", path))?);
    let mut bytes = serde_json::to_vec(header).map_err(|error| Error::io("write", path)(error.into()))?;
    bytes.push(b'\n');
    bytes.extend(le_bytes(begun, f32::to_le_bytes));
    for rows in std::iter::once(&[][..]).chain(rows.chunks(CHUNK_ROWS)) {
        rows.iter().for_each(|(rows, row)| rows.append_row_bytes(*row, &mut bytes));
        file.write_all(&bytes).map_err(Error::io("write", path))?;
        bytes.clear();
    }
    file.flush().map_err(Error::io("write", path))?;
    write_atomically(&path.with_extension(HASH), sha256_file(path)?.as_bytes())?;
    Ok(fs::metadata(path).map_err(Error::io("read", path))?.len())
}

/// Puts the rows that were in memory after `step` steps of `run` back into `buffer`, if they were saved.
pub(crate) fn restore(dir: &Path, run: &str, step: u64, buffer: &mut ShuffleBuffer<impl ActivationSource>) {
    let path = path_in(dir);
    if !path.exists() {
        return;
    }
    match read(&path, run, step, buffer.widths()) {
        Some(kept) => buffer.go_on_from(kept),
        None => {
            tracing::warn!("{} is damaged or of another step: the shuffle buffer is filled again", path.display());
        }
    }
}

/// Reads a whole file of this run and step.
fn read(path: &Path, run: &str, step: u64, widths: &[usize]) -> Option<InMemory<Rows>> {
    if sha256_file(path).ok()? != fs::read_to_string(path.with_extension(HASH)).ok()? {
        return None;
    }
    let (mut file, mut header) = (BufReader::new(File::open(path).ok()?), vec![]);
    file.read_until(b'\n', &mut header).ok()?;
    let header: Header = serde_json::from_slice(&header).ok().filter(|of: &Header| of.run == run && of.step == step)?;
    let mut next = |len| {
        let mut bytes = vec![0; len];
        file.read_exact(&mut bytes).ok().map(|()| bytes)
    };
    let begun = next(4 * header.begun)?.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
    let row_bytes: usize = header.dtypes.iter().zip(widths).map(|(dtype, width)| dtype.row_bytes(*width)).sum();
    let chunks = (0..header.n_rows).step_by(CHUNK_ROWS).map(|first| CHUNK_ROWS.min(header.n_rows - first));
    let rows = chunks.map(|n| Rows::from_row_bytes(&header.dtypes, widths, &next(n * row_bytes)?));
    Some(InMemory { rows: rows.collect::<Option<_>>()?, state: header.state, begun })
}

/// Removes the files, if there are any: they are of no use after another step has been saved, and take room on the disk.
pub(crate) fn remove(dir: &Path) -> Result<()> {
    let rows = path_in(dir);
    for path in [rows.with_extension(HASH), rows] {
        match fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(Error::io("remove", path)(error)),
            _ => {}
        }
    }
    Ok(())
}
