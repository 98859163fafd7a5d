//! Subtitles of one stream of a file, read by ffmpeg's libraries as far as they are needed.
//!
//! The file is opened a second time beside the graph, which costs another look at pages that the
//! demuxer has just read, and buys two things: the subtitles and their times are ffmpeg's to the
//! bit, whatever the container; and nothing waits for a sparse stream. Whether all subtitles before
//! a picture have been seen is read off the picture's own packets: a muxer puts a subtitle before
//! what is shown at its time.
//!
//! Invariant: reading depends on the file alone, never on the graph, so neither can wait for the
//! other.

use std::os::fd::OwnedFd;

use super::libav::{Decoder, Error, Kind, Media, Nature, Subtitle};

/// How much further than a picture the file is read for it: interleaving isn't exact.
const AHEAD_NS: i64 = 1_000_000_000;
/// How far before the start subtitles are looked for that still stand there. ffmpeg looks from the
/// keyframe before it, in MPEG-TS not even that far, and shows nothing until the next one comes;
/// this is most subtitles' whole time.
const BEHIND_NS: i64 = 5_000_000_000;

/// Which stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// By its place among all streams.
    Index(usize),
    /// By its place among those of subtitles.
    Number(usize),
    /// The one that ffmpeg would take.
    Best,
}

/// The stream.
#[derive(Debug)]
pub struct Stream {
    media: Media,
    index: usize,
    decoder: Decoder,
    /// The stream by which it is known how far the file has been read, if there is another one.
    clock: Option<usize>,
    reached_ns: i64,
    ended: bool,
}

impl Stream {
    /// Opens a stream of files that are read as one.
    ///
    /// # Errors
    /// If ffmpeg's libraries don't read the files, or there is no such stream in them.
    pub fn open(
        files: Vec<OwnedFd>,
        name: &str,
        which: Which,
        charset: Option<&str>,
    ) -> Result<Self, Error> {
        let mut media = Media::open(files, name)?;
        let mut subtitles = (0..media.count()).filter(|n| media.kind(*n) == Kind::Subtitles);
        let index = match which {
            Which::Index(index) => subtitles.find(|stream| *stream == index),
            Which::Number(number) => subtitles.nth(number),
            Which::Best => media.best_subtitles(),
        };
        let index = index.ok_or_else(|| Error(format!("it has no subtitles {which}")))?;
        let clock = [Kind::Video, Kind::Audio]
            .into_iter()
            .find_map(|kind| (0..media.count()).find(|stream| media.kind(*stream) == kind));
        let decoder = Decoder::open(&media, index, charset)?;
        media.keep_only(&[Some(index), clock].into_iter().flatten().collect::<Vec<_>>());
        Ok(Self { media, index, decoder, clock, reached_ns: i64::MIN, ended: false })
    }

    /// Begins at a time, ns in the container's own time. A file of subtitles alone is read from its
    /// beginning: it is small, and one that began earlier may still be shown.
    pub fn begin(&mut self, start_ns: i64) {
        if self.clock.is_some() {
            self.media.seek(start_ns.saturating_sub(BEHIND_NS));
        }
    }

    /// Reads until all subtitles are known that begin at a time or before, ns, and gives each.
    pub fn read_to(&mut self, time_ns: i64, mut each: impl FnMut(Subtitle)) {
        while !self.ended && self.reached_ns < time_ns.saturating_add(AHEAD_NS) {
            let Some(packet) = self.media.read() else {
                self.ended = true;
                return;
            };
            if packet.stream == self.clock.unwrap_or(self.index) {
                self.reached_ns = packet.time_ns.unwrap_or(self.reached_ns).max(self.reached_ns);
            }
            if packet.stream == self.index
                && let Some(subtitle) = self.decoder.decode(&mut self.media)
            {
                each(subtitle);
            }
        }
    }

    /// Whether the file has something beside subtitles.
    pub fn is_in_a_film(&self) -> bool {
        self.clock.is_some()
    }

    /// Text or pictures.
    pub fn nature(&self) -> Nature {
        self.decoder.nature()
    }

    /// Its decoder.
    pub fn decoder(&self) -> &Decoder {
        &self.decoder
    }

    /// The container.
    pub fn media(&self) -> &Media {
        &self.media
    }
}

impl std::fmt::Display for Which {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Index(index) => write!(f, "as stream {index}"),
            Self::Number(number) => write!(f, "number {number}"),
            Self::Best => f.write_str("at all"),
        }
    }
}
