//! The layer that files are behind: Landlock.

use std::fs;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, LandlockStatus, PathBeneath, PathFd, Ruleset,
    RulesetAttr, RulesetCreated, RulesetCreatedAttr, RulesetStatus, Scope, make_bitflags,
};

/// The ABI whose rights are asked for. A kernel that knows less gives what it knows: before 5 (Linux
/// 6.10) no hold on `ioctl`, before 3 (6.2) none on truncating.
const ASKED: ABI = ABI::V6;

/// To write segments: made under one name, renamed to another, removed.
const OUTPUT: BitFlags<AccessFs> = make_bitflags!(AccessFs::{
    ReadDir | WriteFile | Truncate | MakeReg | RemoveFile
});
/// To work with a device.
const DEVICE: BitFlags<AccessFs> = make_bitflags!(AccessFs::{ ReadFile | WriteFile | IoctlDev });
/// To read.
const READ: BitFlags<AccessFs> = make_bitflags!(AccessFs::{ ReadFile | ReadDir });
/// To keep files, and move them between folders.
const WRITE: BitFlags<AccessFs> = make_bitflags!(AccessFs::{
    ReadFile | ReadDir | WriteFile | Truncate | MakeReg | MakeDir | RemoveFile | RemoveDir | Refer
});

/// What may be done with files, as far as it has been said.
#[derive(Debug)]
pub(crate) struct Rules {
    ruleset: RulesetCreated,
    pins: Vec<PathFd>,
}

/// What is let in of `/proc`, open. A rule hangs on what the kernel has in memory of a file; of those in
/// `/proc` it makes another when it needs the memory and nobody has the file open.
#[derive(Debug)]
pub(crate) struct Pins {
    _open: Vec<PathFd>,
}

impl Rules {
    /// Nothing is allowed.
    pub(crate) fn new() -> Result<Self, String> {
        Ruleset::default()
            .handle_access(AccessFs::from_all(ASKED))
            .and_then(|ruleset| ruleset.handle_access(AccessNet::from_all(ASKED)))
            .and_then(|ruleset| ruleset.scope(Scope::from_all(ASKED)))
            .and_then(Ruleset::create)
            .map(|ruleset| Self { ruleset, pins: Vec::new() })
            .map_err(|error| error.to_string())
    }

    /// Lets a folder and all below it, or a file, be read.
    pub(crate) fn read(&mut self, path: impl AsRef<Path>) {
        self.allow(path.as_ref(), READ);
    }

    /// Lets the names in a folder and in those below it be listed.
    pub(crate) fn list(&mut self, path: impl AsRef<Path>) {
        self.allow(path.as_ref(), AccessFs::ReadDir.into());
    }

    /// Lets a device be worked with.
    pub(crate) fn device(&mut self, path: impl AsRef<Path>) {
        self.allow(path.as_ref(), DEVICE);
    }

    /// Lets a folder and all below it, or a file, be read and written.
    pub(crate) fn write(&mut self, path: impl AsRef<Path>) {
        self.allow(path.as_ref(), WRITE);
    }

    /// Lets files be made and replaced in a directory, and read if what is there is gone on with.
    pub(crate) fn output(
        &mut self,
        directory: BorrowedFd<'_>,
        goes_on: bool,
    ) -> Result<(), String> {
        let access = if goes_on { OUTPUT | AccessFs::ReadFile } else { OUTPUT };
        self.add(directory, access).map_err(|error| format!("the output directory: {error}"))
    }

    /// Lets a folder that is open be read, with all below it.
    pub(crate) fn folder(&mut self, folder: BorrowedFd<'_>) -> Result<(), String> {
        self.add(folder, READ).map_err(|error| format!("the folder of fonts: {error}"))
    }

    /// What isn't there needs no rule; what Landlock can't judge (it has no path) is refused, which is
    /// noticed where it is needed.
    fn allow(&mut self, path: &Path, access: BitFlags<AccessFs>) {
        let Ok(file) = PathFd::new(path) else { return };
        let folder = fs::metadata(path).is_ok_and(|metadata| metadata.is_dir());
        let access = if folder { access } else { access & AccessFs::from_file(ASKED) };
        let _ = self.add(&file, access);
        if path.starts_with("/proc") {
            self.pins.push(file);
        }
    }

    fn add(&mut self, file: impl AsFd, access: BitFlags<AccessFs>) -> Result<(), String> {
        (&mut self.ruleset)
            .add_rule(PathBeneath::new(file, access))
            .map(drop)
            .map_err(|error| error.to_string())
    }

    /// From here on, for this thread; the ABI.
    pub(crate) fn enforce(self) -> Result<(u32, Pins), String> {
        let status = self.ruleset.restrict_self().map_err(|error| error.to_string())?;
        match (status.ruleset, status.landlock) {
            (RulesetStatus::NotEnforced, LandlockStatus::NotImplemented) => {
                Err("this kernel hasn't got Landlock, or the container keeps it away".into())
            }
            (RulesetStatus::NotEnforced, _) => Err("Landlock isn't switched on (lsm=)".into()),
            (_, LandlockStatus::Available { effective_abi, .. }) => {
                Ok((effective_abi as u32, Pins { _open: self.pins }))
            }
            (_, status) => Err(format!("Landlock says {status:?}")),
        }
    }
}
