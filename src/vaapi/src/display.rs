//! An initialised driver on an open node.

use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::fmt;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::sync::{Mutex, PoisonError};

use crate::ffi::{self, Attribute, Handle, Id, Library};

/// More attributes than any driver has.
const MOST_ATTRIBUTES: usize = 128;
/// More filters and algorithms than libva knows.
const MOST_FILTERS: usize = 32;

/// A status that isn't success.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Status(String);

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why a driver didn't start.
#[derive(Debug, Clone)]
pub(crate) struct OpenFailure {
    status: Status,
    /// What libva and the driver said meanwhile.
    pub(crate) log: Vec<String>,
}

impl fmt::Display for OpenFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.status)?;
        // One reason may take several lines: which driver, why it can't be loaded.
        for (number, line) in self.log.iter().enumerate() {
            write!(f, "{} {}", if number == 0 { ":" } else { ";" }, line.trim())?;
        }
        Ok(())
    }
}

/// What a driver reports of its filters, in libva's numbers.
#[derive(Debug, Default)]
pub(crate) struct ReportedProcessing {
    pub(crate) filters: Vec<c_int>,
    pub(crate) deinterlacing: Vec<c_int>,
    pub(crate) tone_mapping: u32,
    pub(crate) rotation: u32,
    pub(crate) blend: u32,
}

type Log = Mutex<Vec<String>>;

/// See the module's description.
#[derive(Debug)]
pub(crate) struct Display<'a> {
    libva: &'a Library,
    handle: Handle,
    version: (c_int, c_int),
    // libva holds a pointer to it.
    log: Box<Log>,
    // libva uses the descriptor, and doesn't own it.
    _node: &'a File,
}

/// Keeps what libva would otherwise print.
unsafe extern "C" fn note(log: *mut c_void, message: *const c_char) {
    // SAFETY: libva gives back the pointer it was given, which lives as long as the display, and a
    // C string.
    let (log, message) = unsafe { (&*log.cast::<Log>(), CStr::from_ptr(message)) };
    let mut log = log.lock().unwrap_or_else(PoisonError::into_inner);
    log.push(message.to_string_lossy().into_owned());
}

impl<'a> Display<'a> {
    /// Starts the driver that libva finds for the node.
    ///
    /// # Errors
    /// With everything that was said meanwhile.
    pub(crate) fn open(library: &'a Library, node: &'a File) -> Result<Self, OpenFailure> {
        let mut log: Box<Log> = Box::default();
        // SAFETY: the descriptor is open, and stays so for as long as `self` lives.
        let handle = unsafe { (library.get_display)(node.as_raw_fd()) };
        if handle.is_null() {
            let status = Status("libva can't use the node".into());
            return Err(OpenFailure { status, log: Vec::new() });
        }
        let mut version = (0, 0);
        let context = (&raw mut *log).cast::<c_void>();
        // SAFETY: the handle is valid, and the log lives on the heap for as long as `self`.
        let status = unsafe {
            (library.set_error_callback)(handle, Some(note), context);
            (library.set_info_callback)(handle, Some(note), context);
            (library.initialize)(handle, &raw mut version.0, &raw mut version.1)
        };
        // From here on `drop` ends what has begun, also after a failure.
        let display = Self { libva: library, handle, version, log, _node: node };
        match display.check(status) {
            Ok(()) => Ok(display),
            Err(status) => {
                let log = display.log.lock().unwrap_or_else(PoisonError::into_inner).clone();
                Err(OpenFailure { status, log })
            }
        }
    }

    fn check(&self, status: c_int) -> Result<(), Status> {
        if status == 0 {
            return Ok(());
        }
        // SAFETY: gives a static C string for any number.
        let text = unsafe { CStr::from_ptr((self.libva.error_text)(status)) };
        Err(Status(format!("{} ({status})", text.to_string_lossy())))
    }

    /// VA-API's version.
    pub(crate) fn version(&self) -> (i32, i32) {
        self.version
    }

    /// The driver's name and version.
    pub(crate) fn vendor(&self) -> String {
        // SAFETY: gives null or a C string that lives as long as the display.
        let text = unsafe { (self.libva.vendor)(self.handle) };
        if text.is_null() {
            return String::new();
        }
        // SAFETY: as above.
        unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
    }

    /// Profiles, as numbers.
    pub(crate) fn profiles(&self) -> Result<Vec<c_int>, Status> {
        // SAFETY: the handle is valid; the list is as long as the driver demands.
        unsafe {
            let mut list = vec![0; length((self.libva.max_profiles)(self.handle))];
            let mut count = 0;
            self.check((self.libva.profiles)(self.handle, list.as_mut_ptr(), &raw mut count))?;
            list.truncate(length(count));
            Ok(list)
        }
    }

    /// Entrypoints of a profile, as numbers.
    pub(crate) fn entrypoints(&self, profile: c_int) -> Result<Vec<c_int>, Status> {
        // SAFETY: the handle is valid; the list is as long as the driver demands.
        unsafe {
            let mut list = vec![0; length((self.libva.max_entrypoints)(self.handle))];
            let mut count = 0;
            let status =
                (self.libva.entrypoints)(self.handle, profile, list.as_mut_ptr(), &raw mut count);
            self.check(status)?;
            list.truncate(length(count));
            Ok(list)
        }
    }

    /// An attribute of a profile and entrypoint, if the driver has it.
    pub(crate) fn attribute(&self, profile: c_int, entrypoint: c_int, kind: c_int) -> Option<u32> {
        let mut attribute = Attribute { kind, value: ffi::NOT_SUPPORTED };
        // SAFETY: the handle is valid, and one attribute lies at the pointer.
        let status = unsafe {
            (self.libva.attributes)(self.handle, profile, entrypoint, &raw mut attribute, 1)
        };
        (status == 0 && attribute.value != ffi::NOT_SUPPORTED).then_some(attribute.value)
    }

    /// The greatest picture of a profile and entrypoint by what its surfaces may be.
    pub(crate) fn max_surface(&self, profile: c_int, entrypoint: c_int) -> Option<(u32, u32)> {
        let config = Config::create(self, profile, entrypoint).ok()?;
        let mut list = [ffi::SurfaceAttribute::default(); MOST_ATTRIBUTES];
        let mut count = MOST_ATTRIBUTES as c_uint;
        // SAFETY: the ids are valid, and so many attributes lie at the pointer.
        let status = unsafe {
            (self.libva.surface_attributes)(
                self.handle,
                config.id,
                list.as_mut_ptr(),
                &raw mut count,
            )
        };
        self.check(status).ok()?;
        let find = |kind| {
            let found = list.iter().take(count as usize).find(|entry| entry.kind == kind)?;
            u32::try_from(found.value).ok().filter(|size| *size > 0)
        };
        Some((find(ffi::SURFACE_MAX_WIDTH)?, find(ffi::SURFACE_MAX_HEIGHT)?))
    }

    /// Filters, their algorithms, and what can be done beside them.
    pub(crate) fn processing(&self) -> Result<ReportedProcessing, Status> {
        let config = Config::create(self, ffi::PROFILE_NONE, ffi::ENTRYPOINT_PROCESS)?;
        let context = Context::create(&config)?;
        let mut filters = [0; MOST_FILTERS];
        let mut count = MOST_FILTERS as c_uint;
        // SAFETY: the ids are valid, and so many numbers lie at the pointer.
        let status = unsafe {
            (self.libva.filters)(self.handle, context.id, filters.as_mut_ptr(), &raw mut count)
        };
        self.check(status)?;
        let filters = filters[..MOST_FILTERS.min(count as usize)].to_vec();
        let mut reported = ReportedProcessing::default();
        if filters.contains(&ffi::FILTER_DEINTERLACING) {
            let caps = context.filter_caps::<ffi::DeinterlacingCap>(ffi::FILTER_DEINTERLACING)?;
            reported.deinterlacing = caps.iter().map(|cap| cap.kind).filter(|k| *k > 0).collect();
        }
        if filters.contains(&ffi::FILTER_TONE_MAPPING) {
            let caps = context.filter_caps::<ffi::ToneMappingCap>(ffi::FILTER_TONE_MAPPING)?;
            let hdr10 = caps.iter().filter(|cap| cap.metadata == ffi::METADATA_HDR10);
            reported.tone_mapping = hdr10.fold(0, |flags, cap| flags | u32::from(cap.flags));
        }
        let mut caps = ffi::PipelineCaps::default();
        // SAFETY: the ids are valid; no filters are given, and the structure is at least as long as
        // libva's.
        let status = unsafe {
            (self.libva.pipeline_caps)(
                self.handle,
                context.id,
                std::ptr::null_mut(),
                0,
                &raw mut caps,
            )
        };
        self.check(status)?;
        (reported.rotation, reported.blend) = (caps.rotation, caps.blend);
        Ok(ReportedProcessing { filters, ..reported })
    }
}

impl Drop for Display<'_> {
    fn drop(&mut self) {
        // SAFETY: the handle is valid, and isn't used afterwards.
        unsafe { (self.libva.terminate)(self.handle) };
    }
}

/// A number of elements; a driver that gives a negative one has none.
fn length(count: c_int) -> usize {
    usize::try_from(count).unwrap_or(0)
}

struct Config<'a> {
    display: &'a Display<'a>,
    id: Id,
}

impl<'a> Config<'a> {
    fn create(display: &'a Display<'a>, profile: c_int, entrypoint: c_int) -> Result<Self, Status> {
        let mut id = ffi::INVALID_ID;
        // SAFETY: the handle is valid, and no attributes are given.
        let status = unsafe {
            (display.libva.create_config)(
                display.handle,
                profile,
                entrypoint,
                std::ptr::null_mut(),
                0,
                &raw mut id,
            )
        };
        display.check(status)?;
        Ok(Self { display, id })
    }
}

impl Drop for Config<'_> {
    fn drop(&mut self) {
        // SAFETY: the id is valid, and isn't used afterwards.
        unsafe { (self.display.libva.destroy_config)(self.display.handle, self.id) };
    }
}

struct Context<'a> {
    display: &'a Display<'a>,
    id: Id,
}

impl<'a> Context<'a> {
    fn create(config: &'a Config<'a>) -> Result<Self, Status> {
        let display = config.display;
        let mut id = ffi::INVALID_ID;
        // SAFETY: the ids are valid. A context for processing has neither size nor surfaces.
        let status = unsafe {
            (display.libva.create_context)(
                display.handle,
                config.id,
                0,
                0,
                0,
                std::ptr::null_mut(),
                0,
                &raw mut id,
            )
        };
        display.check(status)?;
        Ok(Self { display, id })
    }

    /// What a filter can do; `T` is the structure that libva has for it.
    fn filter_caps<T: Copy + Default>(&self, filter: c_int) -> Result<Vec<T>, Status> {
        let mut caps = vec![T::default(); MOST_FILTERS];
        let mut count = MOST_FILTERS as c_uint;
        // SAFETY: the ids are valid, and so many structures lie at the pointer.
        let status = unsafe {
            (self.display.libva.filter_caps)(
                self.display.handle,
                self.id,
                filter,
                caps.as_mut_ptr().cast(),
                &raw mut count,
            )
        };
        self.display.check(status)?;
        caps.truncate(count as usize);
        Ok(caps)
    }
}

impl Drop for Context<'_> {
    fn drop(&mut self) {
        // SAFETY: the id is valid, and isn't used afterwards.
        unsafe { (self.display.libva.destroy_context)(self.display.handle, self.id) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_tells_all_that_was_said() {
        let log = ["Trying to open /x.so\n", "libfoo.so: not found\n"].map(String::from).to_vec();
        let failure = OpenFailure { status: Status("unknown libva error (-1)".into()), log };
        let expect = "unknown libva error (-1): Trying to open /x.so; libfoo.so: not found";
        assert_eq!(failure.to_string(), expect);
    }
}
