//! Which streams become the output's (contract 2.1 mapArgs).
//!
//! A plan is made without opening the files, so which mapped stream is the picture follows from
//! order: Jellyfin maps it first, then the sound, then subtitles that a filter draws from a file of
//! their own (and `-sn` keeps them out of the output).
//!
//! With a filter graph the picture is what the graph gives, and the map of its source is cancelled
//! (`-map -0:0`). Up to 10.8.9 Jellyfin forgot to: ffmpeg then makes a second picture, unfiltered,
//! or fails where that lies on a GPU. No player wants it, and the plan is that of later versions.
//!
//! Invariant: every mapped stream is read, and every input is used.

use crate::arguments::Setting;
use crate::kinds::{AUDIO_CODEC, VIDEO_CODEC};
use crate::numbers::whole;
use crate::overlay::Graph;
use crate::unread::{BARE, Spellings, Unread, is_spelled, shown, value};
use crate::{Passthrough, StreamRef, StreamSelect, Verdict};

const MAP: Spellings = &[("map", BARE)];

/// The streams of the output.
#[derive(Debug, PartialEq)]
pub(crate) struct Streams {
    pub video: Option<StreamRef>,
    pub audio: Option<StreamRef>,
}

/// Reads `-map`, `-vn`, `-an`, `-sn`.
pub(crate) fn read(
    unread: &mut Unread<'_>,
    inputs: usize,
    graph: Option<&Graph<'_>>,
) -> Verdict<Streams> {
    let no_video = unread.flag(&[("vn", BARE)]);
    let no_audio = unread.flag(&[("an", BARE)]);
    let no_subtitles = unread.flag(&[("sn", BARE)]);
    unread.flag(&[("dn", BARE)]);
    let has = |spellings| unread.settings().any(|setting| is_spelled(&setting.name, spellings));
    let (has_video, has_audio) = (has(VIDEO_CODEC), has(AUDIO_CODEC));
    let settings = unread.take_all(MAP);
    let streams = if settings.is_empty() {
        if inputs > 1 || graph.is_some() {
            return Err(Passthrough::unknown("several inputs or a filter graph, and no -map"));
        }
        if !no_video && !no_subtitles {
            return Err(Passthrough::unknown("neither -map nor -sn"));
        }
        let best = StreamRef { input: 0, stream: StreamSelect::Best };
        Streams { video: (!no_video).then_some(best), audio: (!no_audio).then_some(best) }
    } else {
        let mut maps = Maps::read(&settings, inputs)?;
        maps.take_plane(graph, no_subtitles)?;
        maps.check_cancelled(graph)?;
        let no_audio = no_audio || maps.audio_dropped;
        match (maps.mapped.as_slice(), no_video, no_audio) {
            (&[video, audio], false, false) => Streams { video: Some(video), audio: Some(audio) },
            (&[video], false, true) => Streams { video: Some(video), audio: None },
            (&[audio], true, false) => Streams { video: None, audio: Some(audio) },
            (&[video], false, false) if has_video && !has_audio => {
                Streams { video: Some(video), audio: None }
            }
            (&[_, _, _, ..], ..) => {
                let count = maps.mapped.len();
                return Err(Passthrough::feature(format!("{count} mapped streams")));
            }
            _ => return Err(Passthrough::unknown("-map leaves open what is mapped")),
        }
    };
    check(&streams, inputs, graph)?;
    Ok(streams)
}

fn check(streams: &Streams, inputs: usize, graph: Option<&Graph<'_>>) -> Verdict<()> {
    if streams.video.is_none() && streams.audio.is_none() {
        return Err(Passthrough::unknown("neither picture nor sound"));
    }
    let numbered = |stream: &StreamRef| matches!(stream.stream, StreamSelect::Index(_));
    if streams.video == streams.audio && streams.video.as_ref().is_some_and(numbered) {
        return Err(Passthrough::unknown("one stream mapped as picture and as sound"));
    }
    if streams.video.is_some_and(|video| video.input != 0) {
        return Err(Passthrough::unknown("the picture of a second input"));
    }
    let plane = graph.and_then(Graph::plane);
    if let Some(graph) = graph
        && (streams.video != Some(graph.picture)
            || plane.is_some_and(|plane| [streams.video, streams.audio].contains(&Some(plane))))
    {
        return Err(Passthrough::unknown("the filter graph's streams aren't those of -map"));
    }
    let all = [streams.video, streams.audio, plane];
    let used = |input| all.iter().flatten().any(|stream| stream.input == input);
    match (0..inputs).find(|input| !used(*input)) {
        None if all.iter().flatten().all(|stream| stream.input < inputs) => Ok(()),
        None => Err(Passthrough::unknown("a stream of an input that isn't there")),
        Some(input) => Err(Passthrough::feature(format!("input {input} without a mapped stream"))),
    }
}

/// What `-map` says.
#[derive(Default)]
struct Maps {
    /// The mapped streams in order.
    mapped: Vec<StreamRef>,
    /// `-map -0:a`.
    audio_dropped: bool,
    /// `-map -0:0` behind all others.
    cancelled: Option<StreamRef>,
}

impl Maps {
    fn read(settings: &[&Setting], inputs: usize) -> Verdict<Self> {
        let mut maps = Self::default();
        let mut dropped: Vec<usize> = Vec::new();
        for setting in settings {
            let refusal = || Passthrough::unknown(shown(setting));
            let text = value(setting).ok_or_else(refusal)?;
            let (drop, text) = text.strip_prefix('-').map_or((false, text), |text| (true, text));
            let (input, stream) = text.split_once(':').ok_or_else(refusal)?;
            let input =
                whole::<usize>(input).filter(|input| *input < inputs).ok_or_else(refusal)?;
            let index =
                whole(stream).map(|index| StreamRef { input, stream: StreamSelect::Index(index) });
            match (drop, stream, index) {
                (true, "s", _) => dropped.push(input),
                (true, "a", _) if input == 0 => {
                    maps.audio_dropped = true;
                    dropped.push(input);
                }
                (true, _, Some(stream)) if maps.cancelled.is_none() => {
                    maps.cancelled = Some(stream);
                }
                // A drop takes away what was mapped before it, so its place matters.
                (false, _, Some(stream))
                    if maps.cancelled.is_none() && !dropped.contains(&input) =>
                {
                    maps.mapped.push(stream);
                }
                _ => return Err(refusal()),
            }
        }
        Ok(maps)
    }

    /// Takes out the stream that the graph draws, if it is another file's. Jellyfin maps that as
    /// well; `-sn` keeps it out of the output.
    fn take_plane(&mut self, graph: Option<&Graph<'_>>, no_subtitles: bool) -> Verdict<()> {
        let plane = graph.and_then(Graph::plane).filter(|plane| plane.input != 0);
        let Some(plane) = plane else { return Ok(()) };
        match self.mapped.pop() {
            Some(last) if last == plane && no_subtitles => Ok(()),
            _ => Err(Passthrough::unknown("subtitles of a second input without -map and -sn")),
        }
    }

    /// Only the source of the graph's picture may be cancelled.
    fn check_cancelled(&self, graph: Option<&Graph<'_>>) -> Verdict<()> {
        match self.cancelled {
            Some(stream) if graph.map(|graph| graph.picture) != Some(stream) => {
                let StreamRef { input, stream } = stream;
                let index = match stream {
                    StreamSelect::Index(index) => index,
                    StreamSelect::Best => 0,
                };
                Err(Passthrough::unknown(format!("-map -{input}:{index}")))
            }
            _ => Ok(()),
        }
    }
}
