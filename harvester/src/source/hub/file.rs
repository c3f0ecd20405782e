//! Downloads one file of a repository into the cache: asks about it, downloads it in resumable pieces, checks it, names
//! it.

use std::{
    fs::{self, File, OpenOptions},
    io::{Read, Write},
    path::{Path, PathBuf},
    time::Duration,
};

use super::{
    answer::{Answer, Failure},
    request::Client,
    snapshot::{RepoCache, is_plain},
};
use crate::{
    Error, Monitor, Result,
    source::cache::{pause, wait_for_lock},
    store::sha256_file,
};

/// The Hub's answer about a file.
struct RemoteFile<'a> {
    url: &'a str,
    name: &'a str,
    etag: String,
    /// `None` with some mirrors.
    bytes: Option<u64>,
}

/// Finds a file in the cache, or downloads it. Returns its path in the snapshot.
pub(super) fn get(
    client: &Client,
    cache: &RepoCache,
    commit: &str,
    name: &str,
    monitor: &dyn Monitor,
) -> Result<PathBuf> {
    let linked = cache.snapshot(commit).join(name);
    if linked.exists() {
        return Ok(linked);
    }
    let url = client.url(name);
    let remote = describe(client, &url, name, monitor)?;
    let blob = cache.blob(&remote.etag)?;
    if !blob.exists() {
        download(client, &remote, &blob, cache.folder(), monitor)?;
    }
    cache.link(&remote.etag, commit, name)
}

fn describe<'a>(client: &Client, url: &'a str, name: &'a str, monitor: &dyn Monitor) -> Result<RemoteFile<'a>> {
    let mut answer = client.file_head(url, monitor)?;
    // A renamed repository redirects to its new name on the same host, and only that answer has the file's headers.
    for _ in 0..3 {
        match answer.header("location").filter(|location| location.starts_with('/') && !location.starts_with("//")) {
            Some(location) => answer = client.file_head(&format!("{}{location}", origin(url)), monitor)?,
            None => break,
        }
    }
    let etag = answer.header("x-linked-etag").or_else(|| answer.header("etag"));
    let etag = etag.map(|etag| etag.trim_start_matches("W/").trim_matches('"').to_owned());
    let Some(etag) = etag.filter(|etag| is_plain(etag)) else {
        return Err(Error::download(url, "the answer has no usable etag", "Check HF_ENDPOINT"));
    };
    let linked_size = answer.header("x-linked-size").and_then(|size| size.parse().ok());
    Ok(RemoteFile { url, name, etag, bytes: linked_size.or_else(|| total(&answer)) })
}

/// `scheme://host` of an address.
fn origin(url: &str) -> &str {
    let path = url.find("://").and_then(|at| url[at + 3..].find('/').map(|slash| at + 3 + slash));
    path.map_or(url, |path| &url[..path])
}

/// Length of a file, from `Content-Range: bytes 0-0/1234`, or from a server that sends the whole file at once.
fn total(answer: &Answer) -> Option<u64> {
    match answer.status {
        206 => answer.header("content-range")?.rsplit('/').next()?.parse().ok(),
        200 => answer.header("content-length")?.parse().ok(),
        _ => None,
    }
}

/// Downloads a blob beside its final path, checks it, and moves it there. Continues after the bytes that a broken
/// connection left.
fn download(client: &Client, remote: &RemoteFile<'_>, blob: &Path, kept: &Path, monitor: &dyn Monitor) -> Result<()> {
    let part = blob.with_extension("refract-part");
    let mut file = OpenOptions::new().append(true).create(true).open(&part).map_err(Error::io("create", &part))?;
    wait_for_lock(&file, kept, monitor)?;
    if blob.exists() {
        // Another process held the lock, and finished the download.
        return Ok(());
    }
    monitor.start(&format!("download {}", remote.name), remote.bytes.unwrap_or(0), "bytes");
    monitor.skip(length(&file, &part)?);
    let result = receive_all(client, remote, &mut file, &part, monitor);
    monitor.finish();
    result?;
    file.sync_all().map_err(Error::io("flush to disk", &part))?;
    check(remote, &part)?;
    fs::rename(&part, blob).map_err(Error::io("rename to", blob))
}

/// Receives the missing bytes of a file. Connections may break any number of times as long as each one gets further
/// than all before it (a server that sends the whole file each time starts again at byte 0). A connection that gets no
/// further is followed by a wait, each longer than the last, and in the end by the error.
fn receive_all(
    client: &Client,
    remote: &RemoteFile<'_>,
    file: &mut File,
    part: &Path,
    monitor: &dyn Monitor,
) -> Result<()> {
    let mut waits = client.waits();
    let mut most = length(file, part)?;
    loop {
        let Err(failure) = receive(client, remote, file, part, monitor) else { return Ok(()) };
        let arrived = length(file, part)?;
        let wait = if arrived > most {
            most = arrived;
            waits = client.waits();
            Some(Duration::ZERO)
        } else {
            waits.next()
        };
        let Some(wait) = wait.filter(|_| failure.passing) else { return Err(failure.into()) };
        tracing::warn!("continuing in {wait:?}: {failure}");
        pause(wait, part, monitor)?;
    }
}

/// Receives the bytes of one connection. Bytes that arrived before it breaks or stalls are kept.
fn receive(
    client: &Client,
    remote: &RemoteFile<'_>,
    file: &mut File,
    part: &Path,
    monitor: &dyn Monitor,
) -> Result<(), Failure> {
    let mut start = length(file, part)?;
    if remote.bytes == Some(start) {
        return Ok(());
    }
    let mut restart = remote.bytes.is_none_or(|bytes| start > bytes);
    let answer = client.file_from(remote.url, if restart { 0 } else { start }, monitor)?;
    // Some servers ignore the range and send the whole file.
    restart |= answer.status != 206;
    let given = answer.header("content-range").unwrap_or("no range");
    if !restart && !given.starts_with(&format!("bytes {start}-")) {
        let reason = format!("asked for the bytes from {start} on, the server answered with {given}");
        return Err(Error::download(remote.url, reason, "Check HF_ENDPOINT").into());
    }
    if restart {
        file.set_len(0).map_err(Error::io("truncate", part))?;
        start = 0;
    }
    let mut body = answer.body;
    let mut buffer = vec![0; 1 << 18];
    let mut received = start;
    loop {
        pause(Duration::ZERO, part, monitor)?;
        let broken = |found: String| {
            let total = remote.bytes.map_or_else(|| "an unknown number of".to_owned(), |bytes| bytes.to_string());
            let reason = format!("the connection broke after {received} of {total} bytes: {found}");
            let hint = "Run the command again: it continues from there";
            Failure::passing(Error::download(remote.url, reason, hint))
        };
        let read = body.read(&mut buffer).map_err(|source| broken(source.to_string()))?;
        if read == 0 {
            let whole = remote.bytes.is_none_or(|bytes| received >= bytes);
            return if whole { Ok(()) } else { Err(broken("it was closed".to_owned())) };
        }
        file.write_all(&buffer[..read]).map_err(Error::io("write", part))?;
        received += read as u64;
        monitor.advance(read as u64);
    }
}

fn length(file: &File, path: &Path) -> Result<u64> {
    file.metadata().map(|data| data.len()).map_err(Error::io("read", path))
}

/// Checks a downloaded file and removes a wrong one. The etag of a large file is its SHA-256.
fn check(remote: &RemoteFile<'_>, part: &Path) -> Result<()> {
    let bytes = fs::metadata(part).map_err(Error::io("read", part))?.len();
    let right_size = remote.bytes.is_none_or(|expected| expected == bytes);
    let is_sha256 = remote.etag.len() == 64 && remote.etag.bytes().all(|byte| byte.is_ascii_hexdigit());
    let reason = if !right_size {
        format!("it has {bytes} bytes instead of {}", remote.bytes.unwrap_or(0))
    } else if is_sha256 && sha256_file(part)? != remote.etag {
        "the downloaded file has another SHA-256 than the Hub states".to_owned()
    } else {
        return Ok(());
    };
    fs::remove_file(part).map_err(Error::io("remove", part))?;
    Err(Error::download(remote.url, reason, "Run the command again"))
}

#[cfg(test)]
mod tests {
    use super::origin;

    #[test]
    fn the_origin_of_an_address_ends_before_its_path() {
        assert_eq!(origin("http://127.0.0.1:80/org/name"), "http://127.0.0.1:80");
        assert_eq!(origin("https://host"), "https://host");
    }
}
