//! Which paths belong to the tree.

use crate::tree::PCI_ROOT;

/// Whether `path`, absolute and tidy, is ours.
fn covers(path: &[u8]) -> bool {
    let below = |prefix: &str| {
        path.strip_prefix(prefix.as_bytes())
            .is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
    };
    below("/dev/dri")
        || below("/sys/class/drm")
        || path == b"/sys/class"
        || below(PCI_ROOT)
        || path.starts_with(b"/sys/dev/char/226:")
        || path.starts_with(b"/run/udev/data/c226:")
}

/// Without doubled slashes, `.` and a slash at the end. `..` is left to the kernel.
fn tidy(path: &[u8]) -> Vec<u8> {
    let mut tidy = Vec::with_capacity(path.len());
    for part in path.split(|byte| *byte == b'/').filter(|part| !part.is_empty() && *part != b".") {
        tidy.push(b'/');
        tidy.extend_from_slice(part);
    }
    if tidy.is_empty() {
        tidy.push(b'/');
    }
    tidy
}

/// Where `path` really is, if it is ours. A relative path starts in the directory `base`, as the
/// kernel names it: below `root` if that directory was ours.
pub(crate) fn rewrite(root: &[u8], base: Option<&[u8]>, path: &[u8]) -> Option<Vec<u8>> {
    let absolute = path.starts_with(b"/");
    if absolute
        && ![&b"/dev"[..], b"/sys", b"/run", b"//", b"/."].iter().any(|p| path.starts_with(p))
    {
        return None;
    }
    let shown = if absolute {
        tidy(path)
    } else {
        let base = base?;
        let base = base.strip_prefix(root).unwrap_or(base);
        tidy(&[base, b"/", path].concat())
    };
    covers(&shown).then(|| [root, &shown].concat())
}

/// What `path` is called in the machine that is shown.
pub(crate) fn shown<'a>(root: &[u8], path: &'a [u8]) -> &'a [u8] {
    match path.strip_prefix(root) {
        Some([]) => b"/",
        Some(rest) if rest.starts_with(b"/") => rest,
        _ => path,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(base: Option<&str>, path: &str, expect: Option<&str>) {
        let found = rewrite(b"/tmp/r", base.map(str::as_bytes), path.as_bytes());
        assert_eq!(found.map(|path| String::from_utf8(path).unwrap()).as_deref(), expect, "{path}");
    }

    #[test]
    fn only_what_is_ours_is_rewritten() {
        check(None, "/dev/dri", Some("/tmp/r/dev/dri"));
        check(None, "/dev//dri/./renderD128", Some("/tmp/r/dev/dri/renderD128"));
        check(None, "/dev/drip", None);
        check(None, "/dev/null", None);
        check(None, "/sys/class", Some("/tmp/r/sys/class"));
        check(None, "/sys/class/net", None);
        check(
            None,
            "/sys/dev/char/226:128/device/drm",
            Some("/tmp/r/sys/dev/char/226:128/device/drm"),
        );
        check(None, "/sys/dev/char/1:3", None);
        check(None, "/home/dev/dri", None);
        check(None, "dev/dri", None);
    }

    #[test]
    fn relative_paths_start_where_their_directory_is() {
        check(Some("/dev"), "dri", Some("/tmp/r/dev/dri"));
        check(Some("/tmp/r/dev/dri"), "renderD128", Some("/tmp/r/dev/dri/renderD128"));
        check(Some("/"), "sys", None);
        check(Some("/sys"), "class", Some("/tmp/r/sys/class"));
    }

    #[test]
    fn names_are_given_back_as_shown() {
        assert_eq!(shown(b"/tmp/r", b"/tmp/r/sys/class"), b"/sys/class");
        assert_eq!(shown(b"/tmp/r", b"/tmp/r2/x"), b"/tmp/r2/x");
    }
}
