//! [`Object`]: a name in an object store, with blocking operations. The store's own client is asynchronous and runs on
//! a small separate runtime, so that any thread may call, even one of another runtime. Without the feature `cloud`,
//! `no_object.rs` replaces this file.

use std::{
    fs::File,
    future::Future,
    io::Read,
    path::Path as FilePath,
    sync::{Arc, OnceLock, mpsc},
    time::Duration,
};

use bytes::Bytes;
use object_store::{
    BackoffConfig, MultipartUpload, ObjectStore, ObjectStoreExt, ObjectStoreScheme, PutPayload, RetryConfig,
    aws::AmazonS3Builder, azure::MicrosoftAzureBuilder, gcp::GoogleCloudStorageBuilder, path::Path,
};
use tokio::runtime::Runtime;

use super::Location;
use crate::{Error, Result};

/// Bytes per part of an upload. Stores accept at most 10,000 parts, and only the last may be under 5 MiB: 160 GB per
/// file.
const UPLOAD_PART: usize = 16 << 20;

/// A name in a store.
#[derive(Debug, Clone)]
pub(super) struct Object {
    store: Arc<dyn ObjectStore>,
    path: Path,
    /// Scheme and bucket, without a slash at the end.
    root: String,
}

impl Object {
    /// The object or folder that `url` names. Sends no request yet.
    pub(super) fn open(url: &str) -> Result<Self> {
        let unusable = |found: String| Error::invalid("URL", format!("one of {}", Location::SCHEMES), found);
        let parsed = url::Url::parse(url).map_err(|error| unusable(format!("{url} ({error})")))?;
        let (scheme, path) = ObjectStoreScheme::parse(&parsed).map_err(|_| unusable(url.to_string()))?;
        let failed =
            |source: object_store::Error| Error::Store { action: "use", url: url.to_string(), source: source.into() };
        let store: Arc<dyn ObjectStore> = match scheme {
            ObjectStoreScheme::AmazonS3 => {
                Arc::new(AmazonS3Builder::from_env().with_url(url).with_retry(retries()).build().map_err(failed)?)
            }
            ObjectStoreScheme::GoogleCloudStorage => Arc::new(
                GoogleCloudStorageBuilder::from_env().with_url(url).with_retry(retries()).build().map_err(failed)?,
            ),
            ObjectStoreScheme::MicrosoftAzure => {
                Arc::new(MicrosoftAzureBuilder::from_env().with_url(url).with_retry(retries()).build().map_err(failed)?)
            }
            _ => return Err(unusable(url.to_string())),
        };
        let root =
            url.trim_end_matches('/').strip_suffix(path.as_ref()).unwrap_or(url).trim_end_matches('/').to_string();
        Ok(Self { store, path, root })
    }

    /// An object in a store that lives as long as this process.
    #[cfg(test)]
    pub(super) fn in_memory(url: &str) -> Self {
        let (root, path) = url.split_at(url.find("bucket").unwrap_or(0) + "bucket".len());
        let store = Arc::new(object_store::memory::InMemory::new());
        Self { store, path: Path::from(path), root: root.to_string() }
    }

    pub(super) fn join(&self, name: &str) -> Self {
        let path = name.split('/').fold(self.path.clone(), |path, part| path.join(part));
        Self { path, ..self.clone() }
    }

    pub(super) fn parent(&self) -> Option<Self> {
        let (parent, _) = self.path.as_ref().rsplit_once('/')?;
        Some(Self { path: Path::from(parent), ..self.clone() })
    }

    pub(super) fn name(&self) -> String {
        self.path.filename().unwrap_or_default().to_string()
    }

    pub(super) fn url(&self) -> String {
        if self.path.as_ref().is_empty() { self.root.clone() } else { format!("{}/{}", self.root, self.path) }
    }

    pub(super) fn not_found(&self) -> Error {
        let source = object_store::Error::NotFound { path: self.path.to_string(), source: "no such object".into() };
        self.failed("read")(source)
    }

    pub(super) fn bytes(&self) -> Result<Option<u64>> {
        let (store, path) = (self.store.clone(), self.path.clone());
        match blocking(async move { store.head(&path).await }) {
            Ok(meta) => Ok(Some(meta.size)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(self.failed("read")(error)),
        }
    }

    pub(super) fn stamp(&self) -> Result<String> {
        let (store, path) = (self.store.clone(), self.path.clone());
        let meta = blocking(async move { store.head(&path).await }).map_err(self.failed("read"))?;
        Ok(format!("{} bytes, {}", meta.size, meta.e_tag.unwrap_or_else(|| meta.last_modified.to_string())))
    }

    pub(super) fn read(&self) -> Result<Bytes> {
        let (store, path) = (self.store.clone(), self.path.clone());
        blocking(async move { store.get(&path).await?.bytes().await }).map_err(self.failed("read"))
    }

    pub(super) fn read_range(&self, offset: u64, len: u64) -> Result<Bytes> {
        let (store, path) = (self.store.clone(), self.path.clone());
        let bytes = blocking(async move { store.get_range(&path, offset..offset + len).await });
        let bytes = bytes.map_err(self.failed("read"))?;
        if bytes.len() as u64 != len {
            let expected = format!("{len} bytes from byte {offset} on");
            let hint = "The object is shorter than it was: restore it";
            return Err(Error::malformed(self.url(), expected, bytes.len().to_string(), hint));
        }
        Ok(bytes)
    }

    /// The entries directly below, and whether each is a folder.
    pub(super) fn list(&self) -> Result<Vec<(Self, bool)>> {
        let (store, path) = (self.store.clone(), self.path.clone());
        let listed =
            blocking(async move { store.list_with_delimiter(Some(&path)).await }).map_err(self.failed("list"))?;
        let folders = listed.common_prefixes.into_iter().map(|path| (path, true));
        let objects = listed.objects.into_iter().map(|meta| (meta.location, false));
        let mut entries: Vec<_> =
            folders.chain(objects).map(|(path, folder)| (Self { path, ..self.clone() }, folder)).collect();
        entries.sort_by(|a, b| a.0.path.cmp(&b.0.path));
        Ok(entries)
    }

    pub(super) fn write(&self, bytes: Bytes) -> Result<()> {
        let (store, path) = (self.store.clone(), self.path.clone());
        let put = async move { store.put(&path, PutPayload::from_bytes(bytes)).await };
        blocking(put).map(drop).map_err(self.failed("write"))
    }

    /// Sends a local file; a large one in parts. The object appears when everything has arrived.
    pub(super) fn upload(&self, local: &FilePath) -> Result<()> {
        let file = File::open(local).map_err(Error::io("open", local))?;
        if file.metadata().map_err(Error::io("read", local))?.len() <= UPLOAD_PART as u64 {
            return self.write(std::fs::read(local).map_err(Error::io("read", local))?.into());
        }
        let (store, path) = (self.store.clone(), self.path.clone());
        let upload = blocking(async move { store.put_multipart(&path).await }).map_err(self.failed("write"))?;
        self.send(file, local, upload)
    }

    /// Sends `local`, open as `file`, and completes the object. On any failure the upload is aborted: parts that are
    /// never completed cost their owner money.
    fn send(&self, file: impl Read, local: &FilePath, mut upload: Box<dyn MultipartUpload>) -> Result<()> {
        if let Err(error) = self.send_parts(file, local, &mut *upload) {
            let _ = blocking(async move { upload.abort().await }); // best effort; the error is that of the parts
            return Err(error);
        }
        let completing = async move {
            let completed = upload.complete().await;
            if completed.is_err() {
                let _ = upload.abort().await; // best effort, as above
            }
            completed.map(drop)
        };
        blocking(completing).map_err(self.failed("write"))
    }

    fn send_parts(&self, mut file: impl Read, local: &FilePath, upload: &mut dyn MultipartUpload) -> Result<()> {
        loop {
            let mut part = Vec::with_capacity(UPLOAD_PART);
            let read = (&mut file).take(UPLOAD_PART as u64).read_to_end(&mut part).map_err(Error::io("read", local))?;
            if read == 0 {
                return Ok(());
            }
            blocking(upload.put_part(PutPayload::from(part))).map_err(self.failed("write"))?;
        }
    }

    pub(super) fn remove(&self) -> Result<()> {
        let (store, path) = (self.store.clone(), self.path.clone());
        match blocking(async move { store.delete(&path).await }) {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(self.failed("remove")(error)),
        }
    }

    fn failed(&self, action: &'static str) -> impl FnOnce(object_store::Error) -> Error {
        let url = self.url();
        move |source| Error::Store { action, url, source: source.into() }
    }
}

/// Gives up on a store that does not answer for a minute.
fn retries() -> RetryConfig {
    RetryConfig {
        backoff: BackoffConfig { max_backoff: Duration::from_secs(10), ..BackoffConfig::default() },
        max_retries: 10,
        retry_timeout: Duration::from_secs(60),
    }
}

/// Runs `work` on the stores' runtime and waits for it.
fn blocking<T: Send + 'static>(
    work: impl Future<Output = object_store::Result<T>> + Send + 'static,
) -> object_store::Result<T> {
    static RUNTIME: OnceLock<std::io::Result<Runtime>> = OnceLock::new();
    let start = || tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let runtime = match RUNTIME.get_or_init(start) {
        Ok(runtime) => runtime,
        Err(error) => return Err(generic(error.to_string())),
    };
    let (sender, receiver) = mpsc::channel();
    runtime.spawn(async move {
        let _ = sender.send(work.await); // the receiver waits below
    });
    receiver.recv().unwrap_or_else(|_| Err(generic("the store's client stopped")))
}

fn generic(reason: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> object_store::Error {
    object_store::Error::Generic { store: "object store", source: reason.into() }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::{future::ready, io, pin::Pin, sync::Mutex};

    use object_store::{PutResult, UploadPart};

    use super::*;

    /// An upload that records its requests, and fails at a given one.
    #[derive(Debug)]
    struct Noting {
        asked: Arc<Mutex<Vec<&'static str>>>,
        fails_at: &'static str,
    }

    impl Noting {
        fn note(&self, what: &'static str) -> object_store::Result<()> {
            self.asked.lock().unwrap().push(what);
            if what == self.fails_at { Err(generic("told to fail")) } else { Ok(()) }
        }
    }

    /// Return type of an asynchronous trait function.
    type Answer<'a, T> = Pin<Box<dyn Future<Output = object_store::Result<T>> + Send + 'a>>;

    impl MultipartUpload for Noting {
        fn put_part(&mut self, _: PutPayload) -> UploadPart {
            Box::pin(ready(self.note("part")))
        }

        fn complete<'a, 'b>(&'a mut self) -> Answer<'b, PutResult>
        where
            'a: 'b,
            Self: 'b,
        {
            let completed = self.note("complete").map(|()| PutResult { e_tag: None, version: None });
            Box::pin(ready(completed))
        }

        fn abort<'a, 'b>(&'a mut self) -> Answer<'b, ()>
        where
            'a: 'b,
            Self: 'b,
        {
            Box::pin(ready(self.note("abort")))
        }
    }

    /// A file of 3 bytes, with a read error after them.
    struct Broken(&'static [u8]);

    impl Read for Broken {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            match self.0.read(buffer)? {
                0 => Err(io::Error::other("the disk is gone")),
                read => Ok(read),
            }
        }
    }

    /// The requests of an upload of `file`, and its result.
    fn send(file: impl Read, fails_at: &'static str) -> (Vec<&'static str>, Result<()>) {
        let asked = Arc::default();
        let upload = Box::new(Noting { asked: Arc::clone(&asked), fails_at });
        let object = Object::in_memory("memory://bucket/part");
        let sent = object.send(file, FilePath::new("part-00000.parquet"), upload);
        (asked.lock().unwrap().clone(), sent)
    }

    #[test]
    fn an_upload_that_fails_anywhere_is_given_up() {
        let (asked, sent) = send(&b"abc"[..], "nowhere");
        assert!(sent.is_ok() && asked == ["part", "complete"], "{asked:?}");
        let (asked, sent) = send(&b"abc"[..], "part");
        assert!(sent.is_err() && asked == ["part", "abort"], "{asked:?}");
        let (asked, sent) = send(&b"abc"[..], "complete");
        assert!(sent.is_err() && asked == ["part", "complete", "abort"], "{asked:?}");
        let (asked, sent) = send(Broken(b"abc"), "nowhere");
        assert!(sent.unwrap_err().to_string().contains("part-00000.parquet") && asked == ["abort"], "{asked:?}");
    }
}
