//! The writer's track formats, from the caps of encoded samples.

use bytes::Bytes;
use gstreamer as gst;
use hls::TrackFormat;

/// The format of a track with these caps; the error is a sentence.
///
/// `tag` is the MP4 sample entry that the plan asks for.
///
/// # Errors
/// Caps of a codec that has no place in any output, or that lack what its headers need.
pub fn track_format(caps: &gst::Caps, tag: Option<&str>) -> Result<TrackFormat, String> {
    let structure = caps.structure(0).ok_or("encoded samples without caps")?;
    let number = |field: &str| {
        structure
            .get::<i32>(field)
            .ok()
            .and_then(|value| u32::try_from(value).ok())
            .ok_or_else(|| format!("expected `{field}` in caps {structure}"))
    };
    let name = structure.name().as_str();
    if name.starts_with("video/") {
        let (width, height) = (number("width")?, number("height")?);
        let frame_rate = structure
            .get::<gst::Fraction>("framerate")
            .ok()
            .and_then(|rate| {
                let numerator = u32::try_from(rate.numer()).ok()?;
                let denominator = u32::try_from(rate.denom()).ok()?;
                (numerator > 0 && denominator > 0).then_some((numerator, denominator))
            })
            .unwrap_or((25, 1));
        return match name {
            "video/x-h264" => Ok(TrackFormat::H264 { width, height, frame_rate }),
            "video/x-h265" => {
                let tag = tag.and_then(|tag| tag.as_bytes().try_into().ok());
                Ok(TrackFormat::Hevc { width, height, frame_rate, tag })
            }
            _ => Err(format!("no place for {name} in the output")),
        };
    }
    let (sample_rate, channels) = (number("rate")?, number("channels")?);
    match name {
        "audio/mpeg" if structure.get::<i32>("mpegversion") == Ok(1) => {
            Ok(TrackFormat::Mp3 { sample_rate, channels })
        }
        "audio/mpeg" => Ok(TrackFormat::Aac {
            audio_specific_config: codec_data(structure)?,
            sample_rate,
            channels,
        }),
        "audio/x-ac3" => Ok(TrackFormat::Ac3 { sample_rate, channels }),
        "audio/x-eac3" => Ok(TrackFormat::Eac3 { sample_rate, channels }),
        "audio/x-opus" => {
            let opus_head =
                first_header(structure).unwrap_or_else(|| opus_head(sample_rate, channels));
            Ok(TrackFormat::Opus { opus_head, sample_rate, channels })
        }
        "audio/x-vorbis" => {
            let headers = headers(structure).and_then(|headers| headers.try_into().ok());
            let headers = headers.ok_or("Vorbis without its three headers")?;
            Ok(TrackFormat::Vorbis { headers, sample_rate, channels })
        }
        "audio/x-flac" => {
            let header = first_header(structure).ok_or("FLAC without stream header")?;
            Ok(TrackFormat::Flac { streaminfo: streaminfo(&header)?, sample_rate, channels })
        }
        _ => Err(format!("no place for {name} in the output")),
    }
}

fn codec_data(structure: &gst::StructureRef) -> Result<Bytes, String> {
    let buffer = structure
        .get::<gst::Buffer>("codec_data")
        .map_err(|_| format!("expected `codec_data` in caps {structure}"))?;
    bytes_of(&buffer).ok_or_else(|| "unreadable codec data".to_owned())
}

fn bytes_of(buffer: &gst::Buffer) -> Option<Bytes> {
    Some(Bytes::copy_from_slice(&buffer.map_readable().ok()?))
}

fn first_header(structure: &gst::StructureRef) -> Option<Bytes> {
    headers(structure)?.into_iter().next()
}

fn headers(structure: &gst::StructureRef) -> Option<Vec<Bytes>> {
    let headers = structure.get::<gst::Array>("streamheader").ok()?;
    headers.iter().map(|header| bytes_of(&header.get::<gst::Buffer>().ok()?)).collect()
}

/// An identification header for streams that travel without one (RFC 7845, 5.1); 312 samples at
/// 48 kHz are libopus' own delay.
fn opus_head(sample_rate: u32, channels: u32) -> Bytes {
    let mut head = b"OpusHead\x01".to_vec();
    head.push(u8::try_from(channels).unwrap_or(2));
    head.extend_from_slice(&312_u16.to_le_bytes());
    head.extend_from_slice(&sample_rate.to_le_bytes());
    head.extend_from_slice(&[0, 0, 0]);
    Bytes::from(head)
}

/// The STREAMINFO block within the first header packet: `fLaC`, four bytes of block header, then
/// 34 bytes (RFC 9639, 8.2).
fn streaminfo(header: &Bytes) -> Result<Bytes, String> {
    let marker = header.windows(4).position(|window| window == b"fLaC");
    let start = marker.ok_or("FLAC header without marker")? + 8;
    if header.len() < start + 34 {
        return Err("FLAC header is too short".to_owned());
    }
    Ok(header.slice(start..start + 34))
}
