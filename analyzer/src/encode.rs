//! Encoding of any text, without activations on disk: [`Workbench::encode_texts`], [`encode`] for a corpus too, and
//! [`encode_into`] for a folder with tables.
//!
//! A text is encoded in contexts of its own, made as for the activations of the SAE: with the same token at their
//! beginning, and of the same length at most. So its latents are those that a harvest of f32 would give.

use std::{
    collections::HashSet,
    fmt, fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use candle_core::Tensor;
use harvester::{
    ActivationRows, Batch, DocumentRecord, Edit, Hook, HookPoint, LiveModel, Monitor, Rows, TokenRows, Values,
    human::{counted, grouped},
};
use serde::Serialize;

use crate::{
    EncodedRows, Error, IndexText, Result, Workbench,
    features::{LatentsWriter, say_size},
    tensor_rows,
};

/// Tokens of a pass.
const PASS: usize = 2048;

/// The text that is encoded.
#[derive(Debug, Clone, Copy)]
pub enum EncodeText<'a> {
    /// Texts in memory.
    Texts(&'a [String]),
    /// A corpus over which the model runs.
    Corpus(&'a LiveModel),
}

/// Refuses a text without a character: it has no tokens, and so no latents.
pub(crate) fn check_texts<T: AsRef<str>>(texts: &[T]) -> Result<()> {
    match texts.iter().position(|text| text.as_ref().is_empty()) {
        None => Ok(()),
        Some(at) => {
            let found =
                if texts.len() == 1 { "an empty one".into() } else { format!("an empty one, number {}", at + 1) };
            Err(harvester::Error::invalid("`text`", "a text with at least one character", found).into())
        }
    }
}

/// The latents of a document. As JSON, an object with the lists `tokens`, `texts`, `positions`, `ordinary`, `latents` and
/// `activations`, each with an element for every token.
#[derive(Debug, Clone, PartialEq)]
pub struct EncodedDocument {
    /// The document.
    pub record: DocumentRecord,
    /// Its tokens and their active latents.
    pub encoded: EncodedRows,
    /// The text of each token.
    pub texts: Vec<String>,
}

impl Serialize for EncodedDocument {
    fn serialize<S: serde::Serializer>(&self, to: S) -> std::result::Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Object<'a> {
            #[serde(flatten)]
            record: &'a DocumentRecord,
            tokens: &'a [u32],
            texts: &'a [String],
            positions: &'a [u32],
            ordinary: &'a [bool],
            latents: Vec<&'a [u32]>,
            activations: Vec<&'a [f32]>,
        }
        let EncodedRows { rows, ordinary, acts } = &self.encoded;
        let (latents, activations) = (0..ordinary.len()).map(|row| acts.row(row)).unzip();
        let (tokens, positions) = (&rows.token, &rows.position);
        Object { record: &self.record, tokens, texts: &self.texts, positions, ordinary, latents, activations }
            .serialize(to)
    }
}

/// Encodes a text and calls `each` with every document that has a token. At most one document and one pass are in memory
/// of a corpus.
///
/// # Errors
/// As [`Workbench::encode_texts`]; the corpus cannot be read; or an error of `each`.
pub fn encode(
    bench: &Workbench,
    text: EncodeText<'_>,
    monitor: &dyn Monitor,
    mut each: impl FnMut(EncodedDocument) -> Result<()>,
) -> Result<()> {
    let tokenizer = bench.model(monitor)?.tokenizer();
    let mut finished = |record: DocumentRecord, encoded: EncodedRows| {
        let texts = tokenizer.token_texts(&encoded.rows.token);
        each(EncodedDocument { record, encoded, texts })
    };
    let live = match text {
        EncodeText::Texts(texts) => {
            check_texts(texts)?;
            let documents = bench.encode_texts(texts, monitor)?.documents();
            return documents.into_iter().try_for_each(|it| finished(of_text(it.rows.document[0]), it));
        }
        EncodeText::Corpus(live) => live,
    };
    let mut finished = |encoded: EncodedRows| {
        let mut record = live.documents(&HashSet::from([encoded.rows.document[0]]))?;
        record.pop().map_or(Ok(()), |record| finished(record, encoded))
    };
    let (sae, text) = (bench.sae(), IndexText::from(live));
    sae.check_input(sae.hook_point.width(bench.model(monitor)?.config()))?;
    text.start_progress("encoding", text.start(), monitor);
    // The last document may go on in the next pass.
    let mut last = EncodedRows::default();
    text.for_each(sae.hook_point, text.start(), monitor, |rows, _| {
        if monitor.cancelled() {
            return Err(Error::Stopped);
        }
        last.append(&EncodedRows::encode(&sae.sae, rows, sae.sink_norm)?);
        let mut documents = last.documents();
        last = documents.pop().unwrap_or_default();
        documents.into_iter().try_for_each(&mut finished)
    })?;
    monitor.finish();
    if last.is_empty() { Ok(()) } else { finished(last) }
}

/// Sizes of what was encoded.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct EncodedCounts {
    /// Number of documents.
    pub documents: u64,
    /// Number of tokens.
    pub tokens: u64,
    /// Number of rows of `latents.parquet`.
    pub latents: u64,
}

impl fmt::Display for EncodedCounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (documents, tokens) = (counted(self.documents, "document"), counted(self.tokens, "token"));
        write!(f, "{} latents of {tokens} from {documents}", grouped(self.latents))
    }
}

/// Encodes a text into the folder `out`, as `latents.parquet` and `documents.parquet`. The folder appears whole.
///
/// # Errors
/// As [`encode`]; `out` exists and is not empty, or cannot be written.
pub fn encode_into(
    bench: &Workbench,
    text: EncodeText<'_>,
    out: &Path,
    monitor: &dyn Monitor,
) -> Result<EncodedCounts> {
    let folder = Unfinished::of(out)?;
    let n_tokens = match text {
        EncodeText::Texts(texts) => {
            check_texts(texts)?;
            let n = |text: &String| Ok(bench.prompt(text, monitor)?.len() as u64);
            texts.iter().map(n).sum::<Result<_>>()?
        }
        EncodeText::Corpus(live) => live.estimated_tokens()?,
    };
    let mut latents = LatentsWriter::create(&folder.path)?;
    let (mut records, mut counts) = (vec![], EncodedCounts::default());
    encode(bench, text, monitor, |document| {
        if counts.documents == 0 {
            say_size(n_tokens, &document.encoded, monitor);
        }
        latents.add(&document.encoded)?;
        counts.documents += 1;
        counts.tokens += document.encoded.len() as u64;
        counts.latents += document.encoded.acts.n_active() as u64;
        records.push(document.record);
        Ok(())
    })?;
    latents.finish()?;
    DocumentRecord::write_table(&folder.path, &records)?;
    folder.publish(out)?;
    Ok(counts)
}

/// A text that was given by itself.
fn of_text(document: u64) -> DocumentRecord {
    let (names, kept) = (Arc::new([]), vec![]);
    DocumentRecord { document, source: "text".into(), file: String::new(), line: None, row: None, names, kept }
}

/// A folder that is written beside its place. If it is not published, it goes away.
struct Unfinished {
    path: PathBuf,
}

impl Unfinished {
    fn of(out: &Path) -> Result<Self> {
        let name = out.file_name().map(|name| name.to_string_lossy().into_owned());
        let is_free = fs::read_dir(out).map_or(!out.exists(), |mut entries| entries.next().is_none());
        let Some(name) = name.filter(|_| is_free) else {
            let hint = "Choose another `out`, or remove it";
            return Err(harvester::Error::malformed(out, "a new folder", "one that holds files", hint).into());
        };
        let path = out.with_file_name(format!(".{name}.tmp"));
        let _ = fs::remove_dir_all(&path); // of a run that was killed
        fs::create_dir_all(&path).map_err(harvester::Error::io("create", &path))?;
        Ok(Self { path })
    }

    fn publish(self, out: &Path) -> Result<()> {
        let _ = fs::remove_dir(out); // an empty one
        Ok(fs::rename(&self.path, out).map_err(harvester::Error::io("create", out))?)
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.path); // it is gone if it was published
    }
}

impl Workbench {
    /// The active latents of every token of some texts. The document of a row is the number of its text.
    ///
    /// # Errors
    /// As [`Self::model`]; an SAE that does not read one hook point of the model; the tokenizer refuses a text; or the
    /// monitor stops it.
    pub fn encode_texts<T: AsRef<str>>(&self, texts: &[T], monitor: &dyn Monitor) -> Result<EncodedRows> {
        let (sae, config) = (self.sae(), self.model(monitor)?.config());
        sae.hook_point.check(config)?;
        sae.check_input(sae.hook_point.width(config))?;
        let mut encoded = EncodedRows::default();
        monitor.start("encoding", texts.len() as u64, "texts");
        let mut next = TokenRows::default();
        for (document, text) in texts.iter().enumerate() {
            for context in self.contexts(text.as_ref(), monitor)? {
                if next.token.len() + context.len() > PASS {
                    encoded.append(&self.encode_contexts(std::mem::take(&mut next), monitor)?);
                }
                let number = next.context.last().or(encoded.rows.context.last()).map_or(0, |last| last + 1);
                next.document.extend(context.iter().map(|_| document as u64));
                next.context.extend(context.iter().map(|_| number));
                next.position.extend(0..context.len() as u32);
                next.token.extend(context);
            }
            monitor.advance(1);
        }
        encoded.append(&self.encode_contexts(next, monitor)?);
        monitor.finish();
        Ok(encoded)
    }

    /// The contexts of a text.
    fn contexts(&self, text: &str, monitor: &dyn Monitor) -> Result<Vec<Vec<u32>>> {
        let model = self.model(monitor)?;
        let longest = model.config().ctx_len;
        let len = self.sae().ctx_len().map_or(longest, |len| len.min(longest));
        let tokens = self.prompt(text, monitor)?;
        let bos = model.tokenizer().prompt(self.sae().prompt_bos(), "")?;
        let (begin, body) = if tokens.starts_with(&bos) { tokens.split_at(bos.len()) } else { tokens.split_at(0) };
        let context = |part: &[u32]| [begin, part].concat();
        Ok(body.chunks(len.saturating_sub(begin.len()).max(1)).map(context).collect())
    }

    /// One pass over whole contexts.
    fn encode_contexts(&self, rows: TokenRows, monitor: &dyn Monitor) -> Result<EncodedRows> {
        if rows.token.is_empty() {
            return Ok(EncodedRows::default());
        }
        if monitor.cancelled() {
            return Err(Error::Stopped);
        }
        let (sae, mut read) = (self.sae(), Read::at(self.sae().hook_point));
        let batch = Batch::of(rows.contexts().into_iter().map(|context| &rows.token[context]));
        self.model(monitor)?.run(&batch, &mut read)?;
        let d_model = sae.sae.d_in();
        let norm = read.x.chunks_exact(d_model).map(harvester::norm).collect();
        let values = Values::F32(read.x);
        EncodedRows::encode(&sae.sae, ActivationRows { rows, norm, values, d_model }, sae.sink_norm)
    }
}

/// Keeps the activation at a hook point.
pub(crate) struct Read {
    point: HookPoint,
    /// `[rows, width]`
    pub(crate) x: Vec<f32>,
}

impl Read {
    pub(crate) fn at(point: HookPoint) -> Self {
        Self { point, x: vec![] }
    }
}

impl Hook for Read {
    fn wants(&self, point: HookPoint) -> bool {
        point == self.point
    }

    fn apply(&mut self, _point: HookPoint, _rows: &Rows, activation: &Tensor) -> harvester::Result<Edit> {
        self.x = tensor_rows::rows(activation).map_err(|error| harvester::Error::Hook(error.into()))?;
        Ok(Edit::Keep)
    }
}
