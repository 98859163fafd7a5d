//! What becomes of a write for which there is no room.
//!
//! A full disk is often full for a while: a recording ends, Jellyfin deletes what has been watched. So
//! ENOSPC and EDQUOT needn't be the end of a stream. Whoever owns the writer decides, with a
//! [`Patience`], how long the same write is tried again, from the byte on where it stopped. No other
//! error is waited out: EIO, EROFS or EFBIG don't pass.
//!
//! The writer waits in the middle of its call, so whoever feeds it is held back, and nothing piles up.

use std::fmt;

use rustix::io::{Errno, Result};

/// Decides how long a writer waits for room in the output directory.
pub trait Patience: fmt::Debug + Send + Sync {
    /// There is no room for what is being written. Waits for a while; whether it is to be tried again.
    fn wait(&self) -> bool;

    /// What has been waited for is written.
    fn over(&self);
}

/// Doesn't wait.
#[derive(Debug)]
pub(crate) struct Impatient;

impl Patience for Impatient {
    fn wait(&self) -> bool {
        false
    }

    fn over(&self) {}
}

/// One piece of work that may have to wait for room, more than once.
pub(crate) struct Wait<'a> {
    patience: &'a dyn Patience,
    waited: bool,
}

/// Whether this is an error that more room would cure.
pub(crate) fn is_no_room(error: Errno) -> bool {
    matches!(error, Errno::NOSPC | Errno::DQUOT)
}

impl<'a> Wait<'a> {
    pub(crate) fn new(patience: &'a dyn Patience) -> Self {
        Self { patience, waited: false }
    }

    /// A try has failed: `Ok` if it is to be made again.
    pub(crate) fn again(&mut self, error: Errno) -> Result<()> {
        if error == Errno::INTR {
            return Ok(());
        }
        if !is_no_room(error) || !self.patience.wait() {
            return Err(error);
        }
        self.waited = true;
        Ok(())
    }

    /// Tries until there is room, or no patience left.
    pub(crate) fn until<T>(&mut self, mut attempt: impl FnMut() -> Result<T>) -> Result<T> {
        loop {
            match attempt() {
                Ok(done) => return Ok(done),
                Err(error) => self.again(error)?,
            }
        }
    }

    /// Writes all of it; `written` counts the bytes that were, whatever the end.
    pub(crate) fn write(
        &mut self,
        mut data: &[u8],
        written: &mut u64,
        mut write: impl FnMut(&[u8]) -> Result<usize>,
    ) -> Result<()> {
        while !data.is_empty() {
            match self.until(|| write(data))? {
                0 => return Err(Errno::IO),
                count => {
                    *written += count as u64;
                    data = &data[count..];
                }
            }
        }
        Ok(())
    }

    /// The work is done.
    pub(crate) fn done(self) {
        if self.waited {
            self.patience.over();
        }
    }
}

/// Tries one call until there is room for it, or no patience left.
pub(crate) fn with_room<T>(
    patience: &dyn Patience,
    attempt: impl FnMut() -> Result<T>,
) -> Result<T> {
    let mut wait = Wait::new(patience);
    let done = wait.until(attempt)?;
    wait.done();
    Ok(done)
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::atomic::{AtomicU32, Ordering::SeqCst};

    use super::*;

    /// Waits so many times, and counts.
    #[derive(Debug, Default)]
    pub(crate) struct Counting {
        pub most: u32,
        pub waits: AtomicU32,
        pub overs: AtomicU32,
    }

    impl Patience for Counting {
        fn wait(&self) -> bool {
            self.waits.fetch_add(1, SeqCst) < self.most
        }

        fn over(&self) {
            self.overs.fetch_add(1, SeqCst);
        }
    }

    /// A disk that is full again and again, each time after some bytes.
    struct Disk {
        holds: Vec<u8>,
        /// What becomes of one write after the other; beyond the last all is taken.
        answers: Vec<Result<usize>>,
    }

    impl Disk {
        fn write(&mut self, data: &[u8]) -> Result<usize> {
            let count = match self.answers.is_empty() {
                true => data.len(),
                false => self.answers.remove(0)?.min(data.len()),
            };
            self.holds.extend(&data[..count]);
            Ok(count)
        }
    }

    fn write(patience: &Counting, answers: &[Result<usize>]) -> (Result<()>, u64, Vec<u8>) {
        let mut disk = Disk { holds: Vec::new(), answers: answers.to_vec() };
        let (mut wait, mut written) = (Wait::new(patience), 0);
        let result = wait.write(b"a whole segment", &mut written, |data| disk.write(data));
        if result.is_ok() {
            wait.done();
        }
        (result, written, disk.holds)
    }

    #[test]
    fn a_write_goes_on_at_the_byte_where_it_stopped() {
        let answers = [
            Ok(3),
            Err(Errno::NOSPC),
            Err(Errno::NOSPC),
            Ok(5),
            Err(Errno::DQUOT),
            Err(Errno::INTR),
        ];
        let patience = Counting { most: 9, ..Counting::default() };
        let (result, written, holds) = write(&patience, &answers);
        assert_eq!((result, written, holds), (Ok(()), 15, b"a whole segment".to_vec()));
        assert_eq!((patience.waits.into_inner(), patience.overs.into_inner()), (3, 1));
    }

    #[test]
    fn without_patience_a_full_disk_is_the_end() {
        let patience = Counting { most: 1, ..Counting::default() };
        let (result, written, holds) =
            write(&patience, &[Ok(3), Err(Errno::NOSPC), Err(Errno::NOSPC)]);
        assert_eq!((result, written, holds), (Err(Errno::NOSPC), 3, b"a w".to_vec()));
        assert_eq!((patience.waits.into_inner(), patience.overs.into_inner()), (2, 0));
    }

    #[test]
    fn nothing_else_is_waited_out() {
        for error in [Errno::FBIG, Errno::IO, Errno::ROFS, Errno::NOENT, Errno::STALE] {
            let patience = Counting { most: 9, ..Counting::default() };
            assert_eq!(write(&patience, &[Ok(1), Err(error)]).0, Err(error));
            assert_eq!((patience.waits.into_inner(), patience.overs.into_inner()), (0, 0));
        }
        // Who never waited hasn't anything to say.
        let patience = Counting { most: 9, ..Counting::default() };
        assert_eq!(with_room(&patience, || Ok(7)), Ok(7));
        assert_eq!(patience.overs.into_inner(), 0);
    }
}
