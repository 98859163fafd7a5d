//! What commands print.

use std::io::{self, ErrorKind, Write as _};

/// Prints text as it is. A reader that has seen enough (`rendergate explain … | head`) isn't an error.
///
/// # Errors
/// If standard output can't be written for another reason, a full disk for example.
pub(crate) fn print(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
}
