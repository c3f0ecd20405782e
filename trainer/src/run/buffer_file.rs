//! [`save`] and [`restore`]: the shuffle buffer of a run on a running model, in a file beside the checkpoints, written
//! when the run is stopped. The rows could be computed again, but that takes minutes.
//!
//! ```text
//! file = record(header) record(first rows of the next batch, f32) record(rows) record(rows) ..
//! ```
//!
//! Nothing depends on the file: if it is missing, damaged or of another step, the buffer is filled again. So it is not
//! flushed to the disk, and a full disk is no error.

use std::{
    fs,
    path::{Path, PathBuf},
};

use harvester::{Monitor, RecordLog, StorageDtype, human};
use serde::{Deserialize, Serialize};

use crate::{
    Error, Result,
    data::{
        activation_source::ActivationSource,
        rows::Rows,
        shuffle_buffer::{InMemory, ShuffleBuffer, Stopped},
    },
    manifest::checkpoint_files::FOLDER,
};

/// Rows of one record.
const RECORD_ROWS: usize = 4096;

/// The first record.
#[derive(Debug, Serialize, Deserialize)]
struct Header {
    /// [`crate::SaeManifest::run_id`].
    run: String,
    /// Steps done.
    step: u64,
    state: Stopped,
    /// Dtype of each column.
    dtypes: Vec<StorageDtype>,
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
    let header = Header { run: run.into(), step, state, dtypes, n_rows: rows.len() };
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
            let _ = fs::remove_file(&path);
            let cause = std::error::Error::source(&error).map_or_else(String::new, |cause| format!(": {cause}"));
            monitor.say(&format!("the shuffle buffer is not kept and will be filled again: {error}{cause}"));
        }
    }
}

/// Writes the file and returns its size.
fn write(path: &Path, header: &Header, begun: &[f32], rows: &[(&Rows, usize)]) -> Result<u64> {
    let folder = path.with_file_name("");
    fs::create_dir_all(&folder).map_err(Error::io("create", &folder))?;
    let mut log = RecordLog::create(path)?;
    log.append(&serde_json::to_vec(header).map_err(|error| Error::io("write", path)(error.into()))?)?;
    log.append(&begun.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<_>>())?;
    let mut bytes = vec![];
    for rows in rows.chunks(RECORD_ROWS) {
        bytes.clear();
        rows.iter().for_each(|(rows, row)| rows.append_row_bytes(*row, &mut bytes));
        log.append(&bytes)?;
    }
    Ok(fs::metadata(path).map_err(Error::io("read", path))?.len())
}

/// Puts the rows that were in memory after `step` steps of `run` back into `buffer`, if they were saved.
pub(crate) fn restore(dir: &Path, run: &str, step: u64, buffer: &mut ShuffleBuffer<impl ActivationSource>) {
    let path = path_in(dir);
    match RecordLog::open(&path) {
        Ok(None) => return,
        Ok(Some(log)) => {
            if let Ok(Some(kept)) = read(log, run, step, buffer.widths()) {
                return buffer.go_on_from(kept);
            }
        }
        Err(_) => {}
    }
    tracing::warn!("{} is damaged or of another step: the shuffle buffer is filled again", path.display());
}

/// Reads a whole file of this run and step.
fn read(mut log: RecordLog, run: &str, step: u64, widths: &[usize]) -> Result<Option<InMemory<Rows>>> {
    let header = log.next(|bytes| serde_json::from_slice::<Header>(bytes).ok())?;
    let Some(header) = header.filter(|header| header.run == run && header.step == step) else { return Ok(None) };
    let floats = |bytes: &[u8]| bytes.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
    let Some(begun) = log.next(|bytes| Some(floats(bytes)))? else { return Ok(None) };
    let (mut rows, mut n_rows) = (vec![], 0);
    while n_rows < header.n_rows {
        let Some(next) = log.next(|bytes| Rows::from_row_bytes(&header.dtypes, widths, bytes))? else {
            return Ok(None);
        };
        n_rows += next.len();
        rows.push(next);
    }
    Ok((n_rows == header.n_rows).then_some(InMemory { state: header.state, begun, rows }))
}

/// Removes the file, if there is one: it is of no use after another step has been saved, and takes room on the disk.
pub(crate) fn remove(dir: &Path) -> Result<()> {
    let path = path_in(dir);
    match fs::remove_file(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Error::io("remove", path)(error)),
        _ => Ok(()),
    }
}
