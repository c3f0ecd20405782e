//! `MetricsLog`: `metrics.jsonl`, with a line every few steps, and `metrics.parquet`, the same as a table. They contain
//! only computed values and no wall-clock times, so that a resumed run's files equal the uninterrupted run's, byte for
//! byte.

use std::{
    fs::{self, File, OpenOptions},
    io::Write,
    path::{Path, PathBuf},
};

use harvester::write_atomically;

use crate::{Error, MetricsLine, Result, run::metrics_file::write_metrics};

const FILE: &str = "metrics.jsonl";

/// The lines of the run in `dir`, up to the first truncated one.
pub(crate) fn read(dir: &Path) -> Result<Vec<MetricsLine>> {
    let path = dir.join(FILE);
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(Error::io("read", &path)(error)),
    };
    Ok(text.lines().map_while(|line| serde_json::from_str(line).ok()).collect())
}

/// The file, open for appending, and its lines.
#[derive(Debug)]
pub(crate) struct MetricsLog {
    dir: PathBuf,
    path: PathBuf,
    file: File,
    lines: Vec<MetricsLine>,
}

impl MetricsLog {
    /// Opens the log of a run that continues after `step` steps. Later lines are removed: those steps will be run
    /// again.
    pub(crate) fn open(dir: &Path, step: u64) -> Result<Self> {
        let path = dir.join(FILE);
        let mut lines = read(dir)?;
        lines.truncate(lines.partition_point(|line| line.step <= step));
        write_atomically(&path, text_of(&lines, &path)?.as_bytes())?;
        let file = OpenOptions::new().append(true).open(&path).map_err(Error::io("open", &path))?;
        Ok(Self { dir: dir.to_path_buf(), path, file, lines })
    }

    pub(crate) fn write(&mut self, line: &MetricsLine) -> Result<()> {
        let text = text_of(std::slice::from_ref(line), &self.path)?;
        self.file.write_all(text.as_bytes()).map_err(Error::io("write", &self.path))?;
        self.lines.push(*line);
        Ok(())
    }

    /// Warns if lines of a run that has done `step` steps are missing.
    pub(crate) fn say_lost(&self, step: u64, every: u64) {
        let (there, expected) = (self.lines.len() as u64, MetricsLine::due(step, every));
        if there < expected {
            tracing::warn!("{}: {} lines of steps before {step} are lost", self.path.display(), expected - there);
        }
    }

    /// All lines so far, in the order of training.
    pub(crate) fn lines(&self) -> &[MetricsLine] {
        &self.lines
    }

    /// Flushes the log to disk and updates the table. This is done before every checkpoint, so that no checkpoint is
    /// newer than its lines.
    pub(crate) fn sync(&self) -> Result<()> {
        self.file.sync_all().map_err(Error::io("flush to disk", &self.path))?;
        write_metrics(&self.dir, &self.lines)
    }
}

/// `lines` as the text of the file.
fn text_of(lines: &[MetricsLine], path: &Path) -> Result<String> {
    let mut text = String::new();
    for line in lines {
        text += &serde_json::to_string(line).map_err(|error| Error::io("write", path)(error.into()))?;
        text.push('\n');
    }
    Ok(text)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::run::metrics_file::METRICS_FILE;

    fn line(step: u64) -> MetricsLine {
        MetricsLine {
            step,
            tokens: 512 * step,
            loss: 1.0,
            fvu: 0.5,
            held_out_fvu: step.is_multiple_of(2).then_some(0.75),
            l0: 3.0,
            sparsity_loss: 0.25,
            sparsity_coefficient: 8.0,
            aux_loss: 0.0,
            dead: 0,
            lr: 0.1,
            grad_norm: 2.0,
        }
    }

    #[test]
    fn the_first_steps_have_a_line_each() {
        for (step, every) in [(0, 10), (7, 10), (50, 10), (51, 10), (60, 10), (9, 1), (23, 4)] {
            let due = (1..=step).filter(|step| MetricsLine::is_due(*step, every)).count() as u64;
            assert_eq!(MetricsLine::due(step, every), due, "{step} steps, every {every}");
        }
        assert_eq!(MetricsLine::due(390, 10), 50 + 34);
    }

    #[test]
    fn lines_after_the_checkpoint_are_written_again() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = MetricsLog::open(dir.path(), 0).unwrap();
        (1..5).for_each(|step| log.write(&line(step)).unwrap());
        log.sync().unwrap();
        let table = fs::read(dir.path().join(METRICS_FILE)).unwrap();
        let whole = fs::read(dir.path().join(FILE)).unwrap();
        fs::write(dir.path().join(FILE), &whole[..whole.len() - 9]).unwrap(); // as after a power cut
        let mut log = MetricsLog::open(dir.path(), 2).unwrap();
        (3..5).for_each(|step| log.write(&line(step)).unwrap());
        log.sync().unwrap();
        assert_eq!(log.lines(), (1..5).map(line).collect::<Vec<_>>());
        assert_eq!(fs::read(dir.path().join(FILE)).unwrap(), whole);
        assert_eq!(fs::read(dir.path().join(METRICS_FILE)).unwrap(), table);
    }
}
