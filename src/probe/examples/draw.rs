//! Writes the frames of a trial to standard output, as NV12: what `clips/make` encodes.

use std::io::{self, Write};

use probe::{FRAMES, Picture};

fn main() -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    (0..FRAMES).try_for_each(|frame| stdout.write_all(&Picture::FULL.nv12(frame)))
}
