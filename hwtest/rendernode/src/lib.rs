//! `librendernode.so`: render nodes that aren't there.
//!
//! Preloaded into a program, it answers for `/dev/dri/renderD128` and its neighbours: the device
//! files themselves, their ioctls, and what sysfs and udev say about them. Everything that asks
//! through libc sees the nodes: libdrm, libva, GStreamer, libudev, the `drm` crate (whose calls go
//! through libc if rustix is built with `use-libc`), a shell's `ls`.
//!
//! | variable | |
//! |---|---|
//! | `RENDERNODE_FACE` | `softva` (default): a node for the software VA-API driver. `i915`: Intel's UHD 630 as far as drivers can tell before they wait for a result; it accepts everything and executes nothing |
//! | `RENDERNODE_COUNT` | how many such nodes (default 1; 0: a machine without a GPU) |
//! | `RENDERNODE_FACES` | instead of both: a face per node, as in `i915,softva` |
//! | `RENDERNODE_FAULT` | `no-permission`: opening gives EACCES. `gone:N`: after N ioctls per open file all give ENODEV (`gone`: at once). `...@129` only on that node; a comma between several |
//! | `RENDERNODE_LOG` | set: each ioctl that has no answer is named on stderr |
//!
//! How it works: paths below `/dev/dri`, `/sys/class/drm` and the like are rewritten to a tree of
//! ordinary files in the temporary directory, which the kernel then walks as it walks any other; an
//! opened node is a memfd of its name (`/proc/PID/fd` shows which), and the buffers of a GPU are ranges of it, so that mapping needs no help.
//! A memfd and a placeholder are known by their inode, which holds for copies of a descriptor too.
//!
//! The tree is `rendernode-UID-…` in the temporary directory. A GPU is pulled out by moving its files
//! out of the tree, and put back by moving (not copying) them into it.
//!
//! Real GPUs are hidden from the program. What doesn't go through libc (static programs, Go, raw
//! system calls) sees the machine as it is.
//!
//! Invariants:
//! - A call that isn't about a node reaches the real function with its arguments unchanged.
//! - A setting that isn't understood ends the program with a line that says what was expected.
#![cfg_attr(
    test,
    allow(
        dead_code,
        unused_imports,
        unused_macros,
        reason = "the hooks call most of it, and stay out of the test program"
    )
)]

mod buffers;
mod config;
mod device;
mod drm;
#[cfg(not(test))]
mod hooks;
mod i915;
mod i915_uapi;
mod real;
mod route;
mod shim;
mod tree;
