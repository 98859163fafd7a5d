//! Keeps libgcc_s out of the binary, which then needs nothing but libc.
//!
//! The standard library asks the linker for `-lgcc_s` (the unwinder). A linker script of that name
//! in a directory that is searched first turns the wish into gcc's static libraries, which hold
//! the same code. Without it every start of the hook maps one library more, and an image with
//! libc alone could not run it.

use std::path::PathBuf;
use std::{env, fs};

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    let dir = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR")).join("static-gcc");
    fs::create_dir_all(&dir).expect("OUT_DIR is writable");
    fs::write(dir.join("libgcc_s.so"), "GROUP ( -lgcc_eh -lgcc )\n").expect("OUT_DIR is writable");
    println!("cargo:rustc-link-search=native={}", dir.display());
}
