//! The functions that the hooks stand in front of.

/// The next definition of a libc function after ours, as `Option` of a function pointer of the
/// given type. Looked up once.
macro_rules! real {
    ($name:literal, $type:ty) => {{
        use std::ptr::null_mut;
        use std::sync::atomic::{AtomicPtr, Ordering};
        static ADDRESS: AtomicPtr<libc::c_void> = AtomicPtr::new(null_mut());
        let mut address = ADDRESS.load(Ordering::Relaxed);
        if address.is_null() {
            // SAFETY: the name is a C string literal.
            address = unsafe { libc::dlsym(libc::RTLD_NEXT, $name.as_ptr()) };
            ADDRESS.store(address, Ordering::Relaxed);
        }
        if address.is_null() {
            None
        } else {
            // SAFETY: the caller gives the type that libc declares for the name.
            Some(unsafe { std::mem::transmute::<*mut libc::c_void, $type>(address) })
        }
    }};
}
pub(crate) use real;

/// Sets `errno` for the caller of a hook.
pub(crate) fn set_errno(code: i32) {
    // SAFETY: the address of this thread's errno is always valid.
    unsafe { *libc::__errno_location() = code }
}

/// Fails as a libc function does.
pub(crate) fn fail(code: i32) -> i32 {
    set_errno(code);
    -1
}
