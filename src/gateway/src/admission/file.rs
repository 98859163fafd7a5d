//! The file in which costs outlive the gateway: `costs.json` in the state directory.
//!
//! Both the gateway and `rendergate calibrate` write it. A gateway that finds a calibration newer than
//! the one it knows takes that over before it writes its own, so neither undoes the other's.
//!
//! Invariants:
//! - Whoever reads sees a whole file: it is written aside and renamed.
//! - A file that can't be understood, or that a newer gateway has written, is set aside; one that can't
//!   be read is left alone. Neither is overwritten, and neither is an obstacle: what is learnt meanwhile
//!   is kept in memory.
//! - What is wrong is said once, until it has been right again.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde::{Deserialize, Serialize};
use tracing::warn;

use super::costs::Costs;
use crate::config::Config;

/// Of the form of the file. Another one is set aside: figures are soon learnt anew.
const VERSION: u32 = 1;
const NAME: &str = "costs.json";
/// Far more than all GPUs of a machine and all their drivers take, bytes.
const MOST: u64 = 16 * 1024 * 1024;
/// The dearest that a task can be, in engine-seconds per megapixel: a hundred times what the slowest
/// software takes. What is above is no measurement, and would have sums overflow.
const DEAREST: f64 = 1000.0;

/// What is kept.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub(crate) struct Kept {
    version: u32,
    /// When `rendergate calibrate` last measured, in seconds of Unix time; 0 for never.
    #[serde(default)]
    pub calibrated: u64,
    /// What is known.
    #[serde(flatten)]
    pub costs: Costs,
}

/// The file.
#[derive(Debug, Clone)]
pub(crate) struct StateFile {
    path: PathBuf,
    /// That something is wrong has been said.
    said: Arc<AtomicBool>,
}

impl StateFile {
    /// Where the configuration and the environment say; none if no place can be written.
    pub(crate) fn find(config: &Config, variable: impl Fn(&str) -> Option<String>) -> Option<Self> {
        let directory = directory(config.state.directory.as_deref(), variable)?;
        Some(Self::in_directory(&directory))
    }

    /// In that directory, which is made when it is needed.
    pub(crate) fn in_directory(directory: &Path) -> Self {
        Self { path: directory.join(NAME), said: Arc::default() }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    fn text(&self) -> io::Result<String> {
        // Of a pipe nobody may come to write.
        if !fs::metadata(&self.path)?.is_file() {
            return Err(io::Error::other("it is no regular file"));
        }
        let mut text = String::new();
        let read = File::open(&self.path)?.take(MOST + 1).read_to_string(&mut text)?;
        if read as u64 > MOST {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "it is too large"));
        }
        Ok(text)
    }

    /// What was kept; nothing if there is no such file, or it was set aside.
    ///
    /// # Errors
    /// Why what is there has to be left alone: it can neither be read nor set aside.
    pub(crate) fn read(&self) -> io::Result<Kept> {
        let text = match self.text() {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Kept::default()),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                return self.set_aside(&error.to_string());
            }
            Err(error) => return Err(error),
        };
        #[derive(Deserialize)]
        struct Version {
            version: u32,
        }
        let version = serde_json::from_str::<Version>(&text).map(|kept| kept.version);
        let why = match (version, serde_json::from_str::<Kept>(&text)) {
            (Ok(VERSION), Ok(kept)) => match kept.costs.is_sane() {
                true => return Ok(kept),
                false => "it has costs that are no costs".to_owned(),
            },
            (Ok(VERSION), Err(error)) | (Err(error), _) => error.to_string(),
            (Ok(other), _) => format!("its form is number {other}, expected {VERSION}"),
        };
        self.set_aside(&why)
    }

    fn set_aside(&self, why: &str) -> io::Result<Kept> {
        let aside = self.path.with_extension("json.aside");
        fs::rename(&self.path, &aside).map_err(|error| {
            io::Error::new(error.kind(), format!("{why}, and it can't be set aside: {error}"))
        })?;
        let (path, aside) = (self.path.display(), aside.display());
        warn!(%path, why, %aside, "what streams cost is learnt anew");
        Ok(Kept::default())
    }

    /// Says, unless it has been said, that nothing is kept, why, and what to do.
    pub(crate) fn complain(&self, error: &io::Error) {
        if self.said.swap(true, Ordering::Relaxed) {
            return;
        }
        warn!(
            path = %self.path.display(),
            %error,
            "what streams cost is learnt, but not kept beyond the gateway's end: see to it that the \
             gateway's user may read and write this file and its folder, or name another folder \
             (state.directory)"
        );
    }

    /// Keeps it. May wait for a disk.
    ///
    /// # Errors
    /// That of the file system.
    pub(crate) fn write(&self, kept: &Kept) -> io::Result<()> {
        let kept = Kept { version: VERSION, ..kept.clone() };
        if let Some(directory) = self.path.parent() {
            fs::create_dir_all(directory)?;
        }
        let temporary = self.path.with_extension(format!("json.{}.tmp", std::process::id()));
        let written = File::create(&temporary).and_then(|mut file| {
            file.write_all(&serde_json::to_vec_pretty(&kept)?)?;
            file.sync_all()
        });
        let renamed = written.and_then(|()| fs::rename(&temporary, &self.path));
        match renamed {
            Ok(()) => self.said.store(false, Ordering::Relaxed),
            Err(_) => _ = fs::remove_file(&temporary),
        }
        renamed
    }
}

impl Costs {
    fn is_sane(&self) -> bool {
        let costs = self.devices.values().flat_map(|device| device.tasks.values());
        let mut seconds = costs.flat_map(|cost| cost.seconds.values());
        let mut engines = self.devices.values().flat_map(|device| device.engines.values());
        // Something that isn't a number isn't in the range either.
        seconds.all(|seconds| (0.0..=DEAREST).contains(seconds)) && engines.all(|count| *count > 0)
    }
}

/// Where state is kept: as configured, or the first of the usual places that can be written.
fn directory(
    configured: Option<&Path>,
    variable: impl Fn(&str) -> Option<String>,
) -> Option<PathBuf> {
    if let Some(directory) = configured {
        return Some(directory.to_owned());
    }
    let get = |name| variable(name).filter(|v| v.starts_with('/'));
    // systemd gives several with colons between them; the first is ours.
    if let Some(directories) = get("STATE_DIRECTORY") {
        return directories.split(':').next().map(PathBuf::from);
    }
    let places = [
        Some(PathBuf::from("/var/lib/rendergate")),
        get("XDG_STATE_HOME").map(|dir| Path::new(&dir).join("rendergate")),
        get("HOME").map(|dir| Path::new(&dir).join(".local/state/rendergate")),
    ];
    let writable = |dir: &PathBuf| -> io::Result<()> {
        fs::create_dir_all(dir)?;
        Ok(rustix::fs::access(dir, rustix::fs::Access::WRITE_OK)?)
    };
    places.into_iter().flatten().find(|dir| writable(dir).is_ok())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use gpu::Task;

    use super::*;
    use crate::admission::costs::{Cost, DeviceCosts};

    fn kept(seconds: f64) -> Kept {
        let cost = Cost { seconds: BTreeMap::from([("video".into(), seconds)]), samples: 3 };
        let device = DeviceCosts {
            engines: BTreeMap::from([("video".into(), 2)]),
            tasks: BTreeMap::from([(Task::decode("h264"), cost)]),
        };
        let costs = Costs { devices: BTreeMap::from([("0000:00:02.0 a driver".into(), device)]) };
        Kept { version: VERSION, calibrated: 7, costs }
    }

    #[test]
    fn what_is_written_reads_back_and_leaves_nothing_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        let file = StateFile::in_directory(&folder.path().join("new"));
        assert_eq!(file.read().unwrap(), Kept::default());
        for seconds in [0.001, 0.25] {
            file.write(&kept(seconds)).unwrap();
            assert_eq!(file.read().unwrap(), kept(seconds));
        }
        let names = fs::read_dir(file.path().parent().unwrap()).unwrap();
        let names: Vec<_> = names.map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, [NAME]);
    }

    #[test]
    fn what_cant_be_written_leaves_the_old_one() {
        let folder = tempfile::tempdir().unwrap();
        let file = StateFile::in_directory(folder.path());
        file.write(&kept(0.5)).unwrap();
        // Where the new one would be written stands a directory.
        let temporary = file.path().with_extension(format!("json.{}.tmp", std::process::id()));
        fs::create_dir(&temporary).unwrap();
        file.write(&kept(0.7)).unwrap_err();
        assert_eq!(file.read().unwrap(), kept(0.5));
    }

    #[test]
    fn what_cant_be_understood_is_set_aside() {
        let whole = serde_json::to_string(&kept(0.5)).unwrap();
        let half = &whole[..whole.len() / 2];
        let other = whole.replace("\"version\":1", "\"version\":2");
        let negative = whole.replace("0.5", "-0.5");
        let endless = whole.replace("0.5", "1e300");
        let none = whole.replace("\"video\":2", "\"video\":0");
        for text in ["", "{}", "null", half, &other, &negative, &endless, &none] {
            let folder = tempfile::tempdir().unwrap();
            let file = StateFile::in_directory(folder.path());
            fs::write(file.path(), text).unwrap();
            assert_eq!(file.read().unwrap(), Kept::default(), "{text}");
            assert!(!file.path().exists());
            let aside = fs::read_to_string(folder.path().join("costs.json.aside")).unwrap();
            assert_eq!(aside, text);
            file.write(&kept(0.5)).unwrap();
            assert_eq!(file.read().unwrap(), kept(0.5));
        }
    }

    #[test]
    fn what_cant_be_read_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let file = StateFile::in_directory(folder.path());
        // Who opens it waits for somebody to write.
        let mode = rustix::fs::Mode::from_raw_mode(0o600);
        let kind = rustix::fs::FileType::Fifo;
        rustix::fs::mknodat(rustix::fs::CWD, file.path(), kind, mode, 0).unwrap();
        assert!(file.read().unwrap_err().to_string().contains("no regular file"));
        assert!(fs::symlink_metadata(file.path()).is_ok());
        // Not understood, and where it would be set aside stands a folder.
        fs::remove_file(file.path()).unwrap();
        fs::write(file.path(), "what is this?").unwrap();
        fs::create_dir(folder.path().join("costs.json.aside")).unwrap();
        assert!(file.read().unwrap_err().to_string().contains("can't be set aside"));
        assert_eq!(fs::read_to_string(file.path()).unwrap(), "what is this?");
    }

    #[test]
    fn the_directory_is_the_first_that_there_is() {
        let of = |pairs: &[(&str, &str)]| {
            directory(None, |name| {
                let pair = pairs.iter().find(|(known, _)| *known == name);
                pair.map(|(_, value)| (*value).to_owned())
            })
        };
        assert_eq!(directory(Some(Path::new("/x")), |_| None), Some("/x".into()));
        let systemd = of(&[("STATE_DIRECTORY", "/var/lib/a:/var/lib/b"), ("HOME", "/root")]);
        assert_eq!(systemd, Some("/var/lib/a".into()));
    }
}
