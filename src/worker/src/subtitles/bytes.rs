//! Files read one behind the other, by their descriptors and at a position of their own: whoever
//! shares a descriptor isn't disturbed.

use std::io;
use std::os::fd::OwnedFd;

/// Files as one.
#[derive(Debug)]
pub struct Joined {
    files: Vec<(OwnedFd, u64)>,
    position: u64,
}

impl Joined {
    /// Joins files; their lengths are those that they have now, but the last may grow.
    ///
    /// # Errors
    /// If one of them isn't a file.
    pub fn new(files: Vec<OwnedFd>) -> io::Result<Self> {
        let measured = files.into_iter().map(|file| {
            let length = rustix::fs::fstat(&file)?.st_size;
            Ok((file, u64::try_from(length).unwrap_or(0)))
        });
        Ok(Self { files: measured.collect::<io::Result<_>>()?, position: 0 })
    }

    /// All of them, bytes.
    pub fn size(&self) -> u64 {
        self.files.iter().map(|(_, length)| length).sum()
    }

    /// Where the next read begins, bytes.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Goes there; behind the end there is nothing to read.
    pub fn go_to(&mut self, position: u64) {
        self.position = position;
    }

    /// Reads what there is at the position, at most a buffer, perhaps less; 0 at the end.
    ///
    /// # Errors
    /// The file's.
    pub fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut start = 0;
        for (number, (file, length)) in self.files.iter().enumerate() {
            let is_last = number + 1 == self.files.len();
            if !is_last && self.position >= start + length {
                start += length;
                continue;
            }
            let left = if is_last { u64::MAX } else { start + length - self.position };
            let most = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            let at = self.position - start;
            let read = loop {
                match rustix::io::pread(file, &mut buffer[..most], at) {
                    Err(rustix::io::Errno::INTR) => {}
                    read => break read?,
                }
            };
            self.position += read as u64;
            return Ok(read);
        }
        Ok(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn file(content: &[u8]) -> OwnedFd {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(content).unwrap();
        file.into()
    }

    #[test]
    fn files_follow_each_other() {
        let mut joined = Joined::new(vec![file(b"one"), file(b""), file(b"two3")]).unwrap();
        assert_eq!(joined.size(), 7);
        let mut all: Vec<u8> = Vec::new();
        let mut buffer = [0; 2];
        loop {
            let read = joined.read(&mut buffer).unwrap();
            if read == 0 {
                break;
            }
            all.extend(&buffer[..read]);
        }
        assert_eq!(all, b"onetwo3");
        joined.go_to(2);
        assert_eq!(joined.read(&mut buffer).unwrap(), 1);
        assert_eq!(buffer[0], b'e');
        joined.go_to(100);
        assert_eq!(joined.read(&mut buffer).unwrap(), 0);
    }
}
