//! A virtual GPU for the tests: stock GStreamer with a render node that isn't there and the driver
//! of this crate. ffmpeg makes the streams and is the judge of pictures.
#![allow(dead_code)] // Each test binary uses its part.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;

/// What a pipeline runs on.
pub struct Gpu {
    shim: PathBuf,
    drivers: PathBuf,
    registry: PathBuf,
}

/// The folder that Cargo builds into (`target/debug`), from the place of this test.
fn target() -> PathBuf {
    let test = std::env::current_exe().expect("the test's own path");
    let deps = test.parent().expect("a folder");
    deps.parent().expect("a folder").to_owned()
}

/// The one virtual GPU of a test binary.
///
/// The render node's shim is `librendernode.so` beside the test (`cargo build -p rendernode`), or
/// what `RENDERNODE_SHIM` names.
pub fn virtual_gpu() -> &'static Gpu {
    static GPU: OnceLock<Gpu> = OnceLock::new();
    GPU.get_or_init(|| {
        let shim = std::env::var_os("RENDERNODE_SHIM")
            .map_or_else(|| target().join("librendernode.so"), PathBuf::from);
        assert!(
            shim.is_file(),
            "expected the render node's shim at {}: `cargo build -p rendernode`, or set \
             RENDERNODE_SHIM",
            shim.display()
        );
        let built = [target().join("deps/libsoftva.so"), target().join("libsoftva.so")];
        let newest = built
            .iter()
            .filter_map(|path| Some((path.metadata().ok()?.modified().ok()?, path)))
            .max()
            .expect("Cargo builds the driver with its tests")
            .1;
        // Per binary, as Cargo may run several at a time.
        let name = std::env::current_exe().expect("a path");
        let name = name.file_name().expect("a name").to_owned();
        let place = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        let drivers = place.join("drivers");
        std::fs::create_dir_all(&drivers).expect("a folder for the driver");
        let driver = drivers.join("softva_drv_video.so");
        let _ = std::fs::remove_file(&driver);
        std::os::unix::fs::symlink(newest, &driver).expect("a link to the driver");
        let registry = place.join("registry.bin");
        let _ = std::fs::remove_file(&registry);
        let gpu = Gpu { shim, drivers, registry };
        // The first process writes the registry that the others read.
        let elements = gpu.output(gpu.command("gst-inspect-1.0").arg("va"));
        assert!(elements.status.success(), "no `va` plugin: install gstreamer1.0-plugins-bad");
        gpu
    })
}

impl Gpu {
    /// A program that sees the GPU.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command
            .env("LD_PRELOAD", &self.shim)
            .env("RENDERNODE_FACE", "softva")
            .env("RENDERNODE_COUNT", "1")
            .env("LIBVA_DRIVERS_PATH", &self.drivers)
            .env("LIBVA_DRIVER_NAME", "softva")
            .env("GST_REGISTRY", &self.registry)
            .env("GST_VA_ALL_DRIVERS", "1")
            .env_remove("SOFTVA_TRACE")
            .env_remove("SOFTVA_ACCOUNT")
            .env_remove("SOFTVA_FAULT");
        command
    }

    /// A pipeline, not started yet.
    pub fn pipeline(&self, description: &str) -> Command {
        let mut command = self.command("gst-launch-1.0");
        command.arg("-q").args(description.split_whitespace());
        command
    }

    /// Runs a program to its end.
    pub fn output(&self, command: &mut Command) -> Output {
        command.stdin(Stdio::null()).output().unwrap_or_else(|error| {
            panic!("{command:?}: {error}; install gstreamer1.0-tools and vainfo")
        })
    }

    /// Runs a pipeline, which must succeed.
    pub fn run(&self, description: &str) {
        let output = self.output(&mut self.pipeline(description));
        assert!(output.status.success(), "{description}\n{}", text(&output.stderr));
    }

    /// Runs a pipeline that ends in `filesink location=OUT`, and reads what it wrote.
    pub fn bytes(&self, description: &str, out: &Path) -> Vec<u8> {
        self.run(&format!("{description} ! filesink location={}", out.display()));
        std::fs::read(out).expect("the pipeline's output")
    }
}

/// Major and minor version of GStreamer: some caps are written otherwise from 1.24 on.
pub fn gstreamer_version() -> (u32, u32) {
    let output = Command::new("gst-inspect-1.0").arg("--version").output();
    let output = text(&output.expect("install gstreamer1.0-tools").stdout);
    let numbers = output.split_whitespace().find(|word| word.contains('.') && !word.contains('-'));
    let mut numbers = numbers.into_iter().flat_map(|version| version.split('.'));
    let mut next = || numbers.next().and_then(|number| number.parse().ok()).expect("a version");
    (next(), next())
}

/// Output of a program as text.
pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A folder for a test's files.
pub fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("a temporary folder")
}

/// Runs ffmpeg with arguments in one string, `{}`s filled with paths beforehand.
pub fn ffmpeg(arguments: &str) -> Output {
    let output = Command::new("ffmpeg")
        .args(["-hide_banner", "-nostdin", "-y"])
        .args(arguments.split_whitespace())
        .output()
        .expect("install ffmpeg");
    assert!(output.status.success(), "ffmpeg {arguments}\n{}", text(&output.stderr));
    output
}

/// Pictures of a moving pattern as ffmpeg's input.
pub fn pattern(size: &str, rate: &str, seconds: &str) -> String {
    format!("-f lavfi -i testsrc2=size={size}:rate={rate}:duration={seconds}")
}

/// The pictures of a file as ffmpeg's own decoders make them.
pub fn reference(file: &Path, pixels: &str) -> Vec<u8> {
    let file = file.display();
    let output = ffmpeg(&format!(
        "-v error -i {file} -fps_mode passthrough -pix_fmt {pixels} -f rawvideo -"
    ));
    // Pictures that ffmpeg had to conceal would prove nothing. Times don't matter here: streams of
    // fields without a container have none of their own.
    let log = text(&output.stderr);
    let mut complaints = log.lines().filter(|line| !line.trim().is_empty());
    assert!(complaints.all(|line| line.contains("monotonically increasing dts")), "{file}: {log}");
    output.stdout
}

/// SSIM of two inputs, each given as ffmpeg's arguments and a filter; 1 is the same picture.
pub fn ssim(first: (&str, &str), second: (&str, &str)) -> f64 {
    let graph = format!("[0:v]{}[a];[1:v]{}[b];[a][b]ssim", first.1, second.1);
    let output = ffmpeg(&format!("{} {} -lavfi {graph} -f null -", first.0, second.0));
    let log = text(&output.stderr);
    let line = log.lines().rfind(|line| line.contains("SSIM")).expect("ffmpeg's SSIM");
    let all = line.split("All:").nth(1).and_then(|rest| rest.split(' ').next());
    all.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("{line}"))
}

/// What ffprobe says of each frame: the fields asked for, one line a frame.
pub fn frames(file: &Path, fields: &str) -> Vec<String> {
    let mut command = Command::new("ffprobe");
    command.args(["-v", "error", "-select_streams", "v", "-of", "csv=p=0"]);
    command.arg("-show_entries").arg(format!("frame={fields}")).arg(file);
    let output = command.output().expect("install ffmpeg");
    assert!(output.status.success(), "{}", text(&output.stderr));
    let lines = text(&output.stdout);
    lines.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect()
}

/// What ffprobe says of the video stream.
pub fn stream(file: &Path, field: &str) -> String {
    let mut command = Command::new("ffprobe");
    command.args(["-v", "error", "-select_streams", "v:0", "-of", "csv=p=0"]);
    command.arg("-show_entries").arg(format!("stream={field}")).arg(file);
    let output = command.output().expect("install ffmpeg");
    text(&output.stdout).trim().trim_end_matches(',').to_owned()
}

/// A file's path as a pipeline's text.
pub fn path(file: &(impl AsRef<OsStr> + ?Sized)) -> String {
    Path::new(file).display().to_string()
}
