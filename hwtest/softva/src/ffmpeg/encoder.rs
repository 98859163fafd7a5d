//! A software encoder without delay: one picture in, its coded data out.

use std::ffi::{CString, c_int};
use std::ptr;

use super::sys;
use crate::account::Helpers;
use crate::format::Format;
use crate::status::{Outcome, Refusal};
use crate::surface::View;

/// How a picture is to be coded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Parameter sets and a picture from which decoding can start.
    Idr,
    /// Intra, but earlier pictures may be referred to after it.
    Intra,
    /// From earlier pictures.
    Predicted,
}

/// What an encoder is opened with.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// libavcodec's name of the encoder.
    pub encoder: &'static str,
    /// Format of the pictures; NV12 or P010.
    pub format: Format,
    /// Pixels across.
    pub width: usize,
    /// Pixels down.
    pub height: usize,
    /// Frames per second, numerator and denominator.
    pub frame_rate: (u32, u32),
    /// Bits per second on average; 0 where a quantiser is set.
    pub bit_rate: u64,
    /// Bits per second at most; 0 for no limit.
    pub maximum_rate: u64,
    /// Bits of the decoder's buffer for the limit.
    pub buffer_size: u64,
    /// Reference frames.
    pub references: u32,
    /// Slices per picture.
    pub slices: u32,
    /// Options of the encoder itself.
    pub options: Vec<(&'static str, String)>,
}

/// An encoder.
#[derive(Debug)]
pub struct Encoder {
    context: *mut sys::AVCodecContext,
    packet: *mut sys::AVPacket,
    frame: *mut sys::AVFrame,
    settings: Settings,
    next: i64,
    /// Threads of the codec's own, for the account.
    pub helpers: Helpers,
}

// SAFETY: the context has no tie to a thread; `&mut self` keeps use exclusive.
unsafe impl Send for Encoder {}

impl Encoder {
    /// Opens an encoder.
    pub fn new(settings: &Settings) -> Outcome<Self> {
        super::quiet();
        let name = CString::new(settings.encoder).unwrap_or_default();
        // SAFETY: all pointers are checked before use, and `drop` frees what there is.
        unsafe {
            let codec = sys::avcodec_find_encoder_by_name(name.as_ptr());
            let mut encoder = Self {
                context: sys::avcodec_alloc_context3(codec),
                packet: sys::av_packet_alloc(),
                frame: sys::av_frame_alloc(),
                settings: settings.clone(),
                next: 0,
                helpers: Helpers::default(),
            };
            if codec.is_null()
                || encoder.context.is_null()
                || encoder.packet.is_null()
                || encoder.frame.is_null()
            {
                let reason = format!("libavcodec has no encoder {}", settings.encoder);
                return Err(Refusal::encoding(reason));
            }
            encoder.configure()?;
            let context = encoder.context;
            let (opened, helpers) =
                Helpers::started_by(|| sys::avcodec_open2(context, codec, ptr::null_mut()));
            if opened < 0 {
                let reason = format!("{} refuses {settings:?}", settings.encoder);
                return Err(Refusal::encoding(reason));
            }
            encoder.helpers = helpers;
            encoder.allocate()?;
            Ok(encoder)
        }
    }

    /// libavcodec's format of the pictures: libx265 takes planes only.
    fn pixel_format(&self) -> sys::AVPixelFormat {
        match (self.settings.encoder, self.settings.format) {
            ("libx265", Format::P010) => sys::AV_PIX_FMT_YUV420P10LE,
            ("libx265", _) => sys::AV_PIX_FMT_YUV420P,
            (_, format) => format.pixel_format(),
        }
    }

    fn configure(&mut self) -> Outcome {
        let settings = self.settings.clone();
        let int = |value: u64| i32::try_from(value).unwrap_or(i32::MAX);
        let pixel_format = self.pixel_format();
        // SAFETY: allocated by libavcodec and ours alone.
        let context = unsafe { &mut *self.context };
        (context.width, context.height) = (int(settings.width as u64), int(settings.height as u64));
        context.pix_fmt = pixel_format;
        let rate = (int(settings.frame_rate.0.into()), int(settings.frame_rate.1.into()));
        context.framerate = sys::AVRational { num: rate.0, den: rate.1 };
        context.time_base = sys::AVRational { num: rate.1, den: rate.0 };
        context.thread_count = 1;
        context.bit_rate = settings.bit_rate as i64;
        context.rc_max_rate = settings.maximum_rate as i64;
        context.rc_buffer_size = int(settings.buffer_size);
        // The client says where pictures without references are; the encoder adds none.
        context.gop_size = i32::MAX;
        context.max_b_frames = 0;
        context.refs = int(settings.references.into());
        context.slices = int(settings.slices.into());
        for (name, value) in &settings.options {
            self.option(name, value)?;
        }
        Ok(())
    }

    fn option(&mut self, name: &str, value: &str) -> Outcome {
        let (key, text) = (CString::new(name), CString::new(value));
        let (key, text) = key.ok().zip(text.ok()).unwrap_or_default();
        let search = sys::AV_OPT_SEARCH_CHILDREN as c_int;
        // SAFETY: the context's first field is its class, as av_opt_set wants it.
        let set =
            unsafe { sys::av_opt_set(self.context.cast(), key.as_ptr(), text.as_ptr(), search) };
        if set < 0 {
            let encoder = self.settings.encoder;
            return Err(Refusal::encoding(format!("{encoder} refuses {name}={value}")));
        }
        Ok(())
    }

    fn allocate(&mut self) -> Outcome {
        // SAFETY: allocated by libavutil and ours alone.
        unsafe {
            (*self.frame).format = self.pixel_format();
            (*self.frame).width = (*self.context).width;
            (*self.frame).height = (*self.context).height;
            if sys::av_frame_get_buffer(self.frame, 0) < 0 {
                return Err(Refusal::memory("no memory for a picture to encode"));
            }
        }
        Ok(())
    }

    /// Changes the rates of an encoder at work. Only libx264 takes that.
    pub fn set_rates(&mut self, bit_rate: u64, maximum_rate: u64, buffer_size: u64) {
        self.settings.bit_rate = bit_rate;
        self.settings.maximum_rate = maximum_rate;
        self.settings.buffer_size = buffer_size;
        // SAFETY: ours alone; libx264's wrapper compares the fields before each picture.
        unsafe {
            (*self.context).bit_rate = bit_rate as i64;
            (*self.context).rc_max_rate = maximum_rate as i64;
            (*self.context).rc_buffer_size = i32::try_from(buffer_size).unwrap_or(i32::MAX);
        }
    }

    /// What it works with.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Copies the picture into the encoder's, plane by plane.
    fn load(&mut self, picture: &View<'_>) {
        let format = picture.format();
        let samples = format.sample_bytes();
        // SAFETY: av_frame_get_buffer made planes of the settings' size; rows are cut to it.
        unsafe {
            sys::av_frame_make_writable(self.frame);
            let frame = &*self.frame;
            let row_of = |plane: usize, row: usize, length: usize| {
                let start = frame.data[plane].offset(frame.linesize[plane] as isize * row as isize);
                std::slice::from_raw_parts_mut(start, length)
            };
            let planar = self.settings.encoder == "libx265";
            for row in 0..picture.rows(0) {
                let source = picture.row(0, row);
                let target = row_of(0, row, source.len());
                if planar && samples == 2 {
                    shift_down(source, target);
                } else {
                    target.copy_from_slice(source);
                }
            }
            for row in 0..picture.rows(1) {
                let source = picture.row(1, row);
                if !planar {
                    row_of(1, row, source.len()).copy_from_slice(source);
                    continue;
                }
                let half = source.len() / 2;
                split(source, row_of(1, row, half), row_of(2, row, half), samples);
            }
        }
    }

    /// Encodes a picture of the settings' size and format.
    pub fn encode(&mut self, picture: &View<'_>, kind: Kind) -> Outcome<Vec<u8>> {
        self.load(picture);
        // Whether an intra picture is an IDR is an option of both encoders, read per picture.
        let forced = if kind == Kind::Idr { "1" } else { "0" };
        self.option("forced-idr", forced)?;
        // SAFETY: frame, packet and context are good until `drop`.
        unsafe {
            let frame = &mut *self.frame;
            frame.pts = self.next;
            self.next += 1;
            frame.pict_type = match kind {
                Kind::Idr | Kind::Intra => sys::AV_PICTURE_TYPE_I,
                Kind::Predicted => sys::AV_PICTURE_TYPE_P,
            };
            let sent = sys::avcodec_send_frame(self.context, frame);
            let received = sys::avcodec_receive_packet(self.context, self.packet);
            if sent < 0 || received < 0 {
                let reason = format!("send_frame {sent}, receive_packet {received}");
                return Err(Refusal::encoding(reason));
            }
            let packet = &*self.packet;
            let length = usize::try_from(packet.size).unwrap_or(0);
            let coded = std::slice::from_raw_parts(packet.data, length).to_vec();
            sys::av_packet_unref(self.packet);
            Ok(coded)
        }
    }
}

/// P010 keeps its ten bits at the top of sixteen, planar formats at the bottom.
fn shift_down(source: &[u8], target: &mut [u8]) {
    for (from, to) in source.chunks_exact(2).zip(target.chunks_exact_mut(2)) {
        let value = u16::from_le_bytes([from[0], from[1]]) >> 6;
        to.copy_from_slice(&value.to_le_bytes());
    }
}

/// Interleaved chroma to two planes.
fn split(source: &[u8], u: &mut [u8], v: &mut [u8], samples: usize) {
    if samples == 1 {
        for ((pair, u), v) in source.chunks_exact(2).zip(u).zip(v) {
            (*u, *v) = (pair[0], pair[1]);
        }
        return;
    }
    for ((pair, u), v) in
        source.chunks_exact(4).zip(u.chunks_exact_mut(2)).zip(v.chunks_exact_mut(2))
    {
        shift_down(&pair[..2], u);
        shift_down(&pair[2..], v);
    }
}

impl Drop for Encoder {
    fn drop(&mut self) {
        // SAFETY: each was allocated by its own function or is null, which all of these take.
        unsafe {
            sys::avcodec_free_context(&raw mut self.context);
            sys::av_packet_free(&raw mut self.packet);
            sys::av_frame_free(&raw mut self.frame);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::surface::Frame;

    fn settings(encoder: &'static str, bit_rate: u64) -> Settings {
        let mut options =
            vec![("preset", "ultrafast".to_owned()), ("tune", "zerolatency".to_owned())];
        if encoder == "libx265" {
            let quiet =
                "log-level=error:pools=none:frame-threads=1:keyint=-1:scenecut=0:open-gop=0";
            options.push(("x265-params", quiet.to_owned()));
        } else {
            options.push(("x264-params", "scenecut=0:force-cfr=1".to_owned()));
        }
        Settings {
            encoder,
            format: Format::Nv12,
            width: 320,
            height: 240,
            frame_rate: (24, 1),
            bit_rate,
            maximum_rate: bit_rate,
            buffer_size: bit_rate,
            references: 1,
            slices: 1,
            options,
        }
    }

    /// Pictures that are hard to code: every one is noise of its own.
    fn noise(frame: &mut Frame, seed: &mut u32) {
        let view = frame.view();
        for plane in 0..2 {
            for row in 0..view.rows(plane) {
                for sample in view.row_mut(plane, row) {
                    *seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    *sample = 96 + (*seed >> 26) as u8;
                }
            }
        }
    }

    /// Types of a stream's NAL units.
    fn kinds(coded: &[u8], hevc: bool) -> Vec<u8> {
        let starts = coded.windows(4).filter(|window| window[..3] == [0, 0, 1]);
        starts.map(|window| if hevc { window[3] >> 1 & 63 } else { window[3] & 31 }).collect()
    }

    #[test]
    fn rates_change_at_work() {
        let mut encoder = Encoder::new(&settings("libx264", 400_000)).expect("libx264");
        let (mut frame, mut seed) = (Frame::new(Format::Nv12, 320, 240), 1);
        let mut second = |encoder: &mut Encoder, idr: bool| -> usize {
            (0..24)
                .map(|index| {
                    noise(&mut frame, &mut seed);
                    let kind = if idr && index == 0 { Kind::Idr } else { Kind::Predicted };
                    encoder.encode(&frame.view(), kind).expect("coded").len()
                })
                .sum()
        };
        second(&mut encoder, true);
        let before = second(&mut encoder, false);
        encoder.set_rates(1_600_000, 1_600_000, 1_600_000);
        for _ in 0..2 {
            second(&mut encoder, false);
        }
        let after = second(&mut encoder, false);
        assert!(after > 3 * before && after < 5 * before, "{before} and {after} bytes a second");
    }

    #[test]
    fn pictures_are_what_they_are_asked_to_be() {
        // NAL unit types: H.264 5 is IDR, 1 is not; HEVC 19 and 20 are IDR, 0 and 1 are trailing.
        for (name, hevc, idr, other) in
            [("libx264", false, vec![5], vec![1]), ("libx265", true, vec![19, 20], vec![0, 1])]
        {
            let mut encoder = Encoder::new(&settings(name, 400_000)).expect(name);
            let (mut frame, mut seed) = (Frame::new(Format::Nv12, 320, 240), 1);
            let mut predicted = 0;
            for index in 0..20 {
                noise(&mut frame, &mut seed);
                let kind = match index {
                    0 | 7 => Kind::Idr,
                    12 if hevc => Kind::Intra,
                    _ => Kind::Predicted,
                };
                let coded = encoder.encode(&frame.view(), kind).expect("coded");
                let slices: Vec<_> = kinds(&coded, hevc)
                    .into_iter()
                    .filter(|kind| idr.contains(kind) || other.contains(kind))
                    .collect();
                let expected = if kind == Kind::Idr { &idr } else { &other };
                assert!(
                    slices.iter().all(|slice| expected.contains(slice)),
                    "{name} {index} {slices:?}"
                );
                assert!(!slices.is_empty(), "{name} {index}");
                predicted += usize::from(kind == Kind::Predicted);
            }
            assert_eq!(predicted, if hevc { 17 } else { 18 });
        }
    }
}
