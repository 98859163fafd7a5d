//! The ground that the tests of this room stand on: programs of the workspace, run under the
//! preloaded library that shows virtual render nodes.
//!
//! `./dev test` runs those that need nothing but the workspace. `./dev hwtest` also runs those on
//! the drivers of GPU makers, which it fetches first.
#![forbid(unsafe_code)]

pub mod report;
pub mod rows;
pub mod survive;

use std::ffi::OsStr;
use std::path::Path;
use std::process::{Command, Output};

use gpu::Machine;
pub use stand::built;

/// A machine with virtual render nodes, on which programs are run.
#[derive(Debug)]
pub struct VirtualMachine {
    variables: Vec<(String, String)>,
    /// Holds the registry of GStreamer, which remembers devices.
    cache: tempfile::TempDir,
}

impl VirtualMachine {
    /// With nodes as the variables of `librendernode.so` say.
    ///
    /// # Panics
    /// If there is no temporary directory.
    pub fn new(variables: &[(&str, &str)]) -> Self {
        let mut machine = Self {
            variables: Vec::new(),
            cache: tempfile::tempdir().expect("a temporary directory"),
        };
        for (name, value) in variables {
            machine.set(name, value);
        }
        machine
    }

    /// With nodes of the software VA-API driver, whose library is built.
    ///
    /// # Panics
    /// If the library isn't there.
    pub fn softva(variables: &[(&str, &str)]) -> Self {
        let mut machine = Self::new(variables);
        // GStreamer from 1.24 on takes drivers it doesn't know by name only if told so.
        machine.set("GST_VA_ALL_DRIVERS", "1");
        machine.set("RENDERGATE_SANDBOX_READ", &stand::gpu::virtual_places());
        // The driver's name is that of its file.
        let link = machine.no_drivers().join("softva_drv_video.so");
        std::os::unix::fs::symlink(built("libsoftva.so"), link).expect("the folder is new");
        machine
    }

    /// Sets one more variable.
    pub fn set(&mut self, name: &str, value: &str) {
        self.variables.push((name.into(), value.into()));
    }

    /// A folder without any VA-API driver.
    pub fn no_drivers(&self) -> &Path {
        self.cache.path()
    }

    /// What a process needs in its environment to be on it.
    pub fn environment(&self) -> Vec<(String, String)> {
        let text = |path: &Path| path.display().to_string();
        let own = [
            ("LD_PRELOAD", text(&built("librendernode.so"))),
            ("XDG_CACHE_HOME", text(self.cache.path())),
            ("GST_REGISTRY", text(&self.cache.path().join("registry.bin"))),
            ("LIBVA_DRIVERS_PATH", text(self.no_drivers())),
            // The files that stand for those in /dev and /sys.
            ("RENDERGATE_SANDBOX_READ", text(&std::env::temp_dir())),
        ];
        let own = own.map(|(name, value)| (name.to_owned(), value));
        own.into_iter().chain(self.variables.iter().cloned()).collect()
    }

    /// A program that is going to run on it.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        command
            .env_remove("LIBVA_DRIVER_NAME")
            .env_remove("RENDERGATE_CONFIG")
            .env("RENDERGATE_WORKER", built("rendergate-worker"))
            .envs(self.environment());
        command
    }

    /// Runs a program on it.
    ///
    /// # Panics
    /// If it can't be started.
    pub fn run(&self, program: impl AsRef<OsStr>, arguments: &[&str]) -> Output {
        let program = program.as_ref();
        self.command(program)
            .args(arguments)
            .output()
            .unwrap_or_else(|error| panic!("{} can't be run: {error}", program.display()))
    }

    /// What `rendergate probe --json` finds on it.
    ///
    /// # Panics
    /// If it gives no JSON, or an exit status that doesn't go with it.
    pub fn probe(&self) -> Machine {
        let output = self.run(built("rendergate"), &["probe", "--json"]);
        let errors = String::from_utf8_lossy(&output.stderr);
        let machine: Machine = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|error| panic!("no JSON from rendergate probe: {error}\n{errors}"));
        assert_eq!(output.status.code(), Some(i32::from(!machine.usable)), "{errors}");
        machine
    }
}

/// Standard output of a program that has succeeded.
///
/// # Panics
/// If it hasn't.
pub fn text(output: &Output) -> String {
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {errors}", output.status);
    String::from_utf8_lossy(&output.stdout).into_owned()
}
