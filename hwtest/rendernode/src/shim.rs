//! The one state of the library: which nodes there are, and which descriptors are theirs.

use std::collections::HashMap;
use std::ffi::{CStr, CString, OsString};
use std::os::unix::ffi::OsStringExt;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};

use crate::config::{self, Node};
use crate::device::Device;
use crate::{route, tree};

/// Device and inode number of a file.
pub(crate) type FileId = (u64, u64);

/// See the module's description.
#[derive(Debug)]
pub(crate) struct Shim {
    /// The tree, without a slash at the end.
    pub(crate) root: Vec<u8>,
    /// Placeholders of the nodes in the tree.
    placeholders: HashMap<FileId, Node>,
    /// Opened nodes. Entries stay after the descriptor is closed: inode numbers of memfds aren't
    /// used twice, and a copy of the descriptor may live on unseen.
    devices: Mutex<HashMap<FileId, Arc<Device>>>,
    /// The group that owns the nodes.
    pub(crate) group: u32,
    /// Name unanswered ioctls.
    pub(crate) log: bool,
}

static SHIM: OnceLock<Shim> = OnceLock::new();

/// The state. `None` while it is being made, when the hooks let everything pass.
pub(crate) fn shim() -> Option<&'static Shim> {
    SHIM.get()
}

/// Makes the state when the library is loaded, before `main` and thus before other threads.
#[cfg(not(test))]
#[used]
#[unsafe(link_section = ".init_array")]
static START: extern "C" fn() = {
    extern "C" fn start() {
        match Shim::new() {
            Ok(shim) => drop(SHIM.set(shim)),
            Err(message) => {
                eprintln!("rendernode: {message}");
                // SAFETY: ends the process without running what isn't initialised yet.
                unsafe { libc::_exit(127) }
            }
        }
    }
    start
};

impl Shim {
    fn new() -> Result<Self, String> {
        let nodes = config::nodes(|name| std::env::var(name).ok())?;
        // SAFETY: takes no argument and can't fail.
        let uid = unsafe { libc::geteuid() };
        let temporary = std::env::temp_dir();
        let root = tree::make(&nodes, &temporary, uid)
            .map_err(|error| format!("can't make files in {}: {error}", temporary.display()))?;
        let mut placeholders = HashMap::new();
        for node in nodes {
            use std::os::unix::fs::MetadataExt;
            let path = root.join(format!("dev/dri/renderD{}", node.minor));
            let file = match std::fs::metadata(&path) {
                // Pulled out.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
                found => {
                    found.map_err(|error| format!("can't look at {}: {error}", path.display()))?
                }
            };
            placeholders.insert((file.dev(), file.ino()), node);
        }
        Ok(Self {
            root: OsString::from(root).into_vec(),
            placeholders,
            devices: Mutex::default(),
            group: render_group(&std::fs::read_to_string("/etc/group").unwrap_or_default()),
            log: std::env::var_os("RENDERNODE_LOG").is_some(),
        })
    }

    fn devices(&self) -> MutexGuard<'_, HashMap<FileId, Arc<Device>>> {
        self.devices.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Where `path` really is, if it is ours.
    pub(crate) fn rewrite(&self, directory: i32, path: &CStr) -> Option<CString> {
        let path = path.to_bytes();
        let base = if path.starts_with(b"/") || path.is_empty() || directory == libc::AT_FDCWD {
            None
        } else {
            descriptor_path(directory)
        };
        CString::new(route::rewrite(&self.root, base.as_deref(), path)?).ok()
    }

    /// The node whose placeholder this file is.
    pub(crate) fn placeholder(&self, file: FileId) -> Option<Node> {
        self.placeholders.get(&file).copied()
    }

    /// The node that this file shows, opened or not.
    pub(crate) fn node(&self, file: FileId) -> Option<Node> {
        self.placeholder(file).or_else(|| Some(self.devices().get(&file)?.node))
    }

    /// The opened node that this file is.
    pub(crate) fn device(&self, file: FileId) -> Option<Arc<Device>> {
        self.devices().get(&file).cloned()
    }

    /// Notes that this file is an opened node.
    pub(crate) fn opened(&self, file: FileId, device: Device) {
        self.devices().insert(file, Arc::new(device));
    }
}

/// What the kernel calls an open file.
pub(crate) fn descriptor_path(descriptor: i32) -> Option<Vec<u8>> {
    let link = CString::new(format!("/proc/self/fd/{descriptor}")).ok()?;
    let mut path = vec![0_u8; libc::PATH_MAX as usize];
    // SAFETY: the path is a C string, and the buffer is as long as is said. The system call, as the
    // function may be our own hook.
    let length = unsafe {
        libc::syscall(
            libc::SYS_readlinkat,
            libc::AT_FDCWD,
            link.as_ptr(),
            path.as_mut_ptr(),
            path.len(),
        )
    };
    path.truncate(usize::try_from(length).ok()?);
    Some(path)
}

/// The group that udev's rules give render nodes to: `render`, or `video` on older systems.
fn render_group(groups: &str) -> u32 {
    let number = |wanted: &str| {
        groups.lines().find_map(|line| {
            let mut fields = line.split(':');
            (fields.next()? == wanted).then(|| fields.nth(1)?.parse().ok())?
        })
    };
    number("render").or_else(|| number("video")).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_group_is_render_or_video_or_root() {
        assert_eq!(render_group("root:x:0:\nvideo:x:44:\nrender:x:105:jelly\n"), 105);
        assert_eq!(render_group("video:x:44:\n"), 44);
        assert_eq!(render_group(""), 0);
    }
}
