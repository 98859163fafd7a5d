//! A gateway's status on an evening of some size, with something of everything.

use std::collections::BTreeMap;

use gateway::status::{DeviceLine, Status};
use gateway::streams::{EndedLine, State, StreamLine};

pub const DRIVER: &str = "Intel iHD driver for Intel(R) Gen Graphics - 23.1.1 ()";
const NODE: &str = "/dev/dri/renderD128";

pub fn status() -> Status {
    Status {
        version: "0.1.0".into(),
        protocol: 6,
        uptime_s: 270_000,
        not_ready: None,
        no_gpu: None,
        warm_workers: 2,
        max_streams: None,
        declined: BTreeMap::from([("no_worker".into(), 2), ("max_streams".into(), 1)]),
        streams: streams(),
        devices: devices(),
        ended: ended(),
    }
}

fn streams() -> Vec<StreamLine> {
    let mixed = "the GPU doesn't decode VP8";
    let software = "/dev/dri/renderD128 takes no picture of 7680x4320, 4096x4096 is the most";
    let mut lines = vec![
        stream(
            1,
            "The Long Voyage (1968) Remastered",
            "hevc 3840x2160",
            "h264 max 1920x1080",
            3.42,
        ),
        StreamLine {
            backend: "mixed".into(),
            reason: Some(mixed.into()),
            ..stream(
                2,
                "home-video-2014-08-02_Lake.and.Mountains",
                "vp8 1280x720",
                "h264 source",
                2.1,
            )
        },
        StreamLine {
            backend: "software".into(),
            device: None,
            reason: Some(software.into()),
            lead_s: 0.4,
            gpu_utilization: BTreeMap::new(),
            ..stream(3, "Eight Thousand Lines", "hevc 7680x4320", "h264 1920x1080", 0.61)
        },
        StreamLine {
            held: true,
            horizon_s: Some(1512.0),
            ..stream(
                4,
                "Some Series - S01E03 - The One with a Very Long Title That Goes On",
                "h264 1920x1080",
                "h264 1280x720",
                4.8,
            )
        },
        StreamLine {
            backend: "software".into(),
            device: None,
            video_out: "copy".into(),
            size_out: "source".into(),
            gpu_utilization: BTreeMap::new(),
            ..stream(5, "Concert", "h264 1920x1080", "copy source", 18.3)
        },
        StreamLine {
            state: State::Paused,
            ..stream(
                6,
                "A_file_name_without_any_blank_that_could_be_broken_somewhere.1080p.WEB",
                "h264 1920x1080",
                "hevc max 1280x720",
                2.9,
            )
        },
        StreamLine {
            backend: "pending".into(),
            state: State::Starting,
            video_in: None,
            size_in: None,
            speed: 0.0,
            position_s: 0.0,
            lead_s: 0.0,
            first_segment_s: None,
            gpu_utilization: BTreeMap::new(),
            ..stream(7, "Just Begun", "h264 1920x1080", "h264 max 1280x720", 0.0)
        },
    ];
    for number in 8..13 {
        lines.push(stream(number, "Some Series - S02E01", "hevc 1920x1080", "h264 1280x720", 3.0));
    }
    lines
}

fn stream(number: u32, item: &str, from: &str, to: &str, speed: f64) -> StreamLine {
    let ((video_in, size_in), (video_out, size_out)) =
        (from.split_once(' ').unwrap(), to.split_once(' ').unwrap());
    StreamLine {
        id: format!("s{number}"),
        item: item.into(),
        input: format!("/media/films/{item}.mkv"),
        output: "/cache/transcodes/abc.m3u8".into(),
        video_in: Some(video_in.into()),
        size_in: Some(size_in.into()),
        video_out: video_out.into(),
        size_out: size_out.into(),
        backend: "vaapi".into(),
        device: Some(NODE.into()),
        reason: None,
        description: "vah265dec ! vapostproc ! vah264enc".into(),
        sandbox: None,
        state: State::Running,
        held: false,
        no_room: false,
        speed,
        position_s: 1513.5,
        lead_s: 61.2,
        horizon_s: None,
        first_segment_s: Some(0.412),
        gpu_seconds: BTreeMap::from([("video".into(), 91.0), ("render".into(), 20.5)]),
        gpu_utilization: BTreeMap::from([("video".into(), 0.63), ("render".into(), 0.118)]),
        bytes: 300_000_000,
        frames: 36_000,
        segments: 504,
        since: "2026-03-01T20:15:02Z".into(),
        worker_pid: Some(4711),
        hook_pid: Some(4700),
    }
}

fn devices() -> Vec<DeviceLine> {
    let works = DeviceLine {
        node: NODE.into(),
        chip: Some("Intel 8086:3e92".into()),
        driver: Some(DRIVER.into()),
        state: "works".into(),
        reason: None,
        streams: 9,
        gpu_utilization: BTreeMap::from([
            ("video".into(), 0.91),
            ("render".into(), 0.34),
            ("video-enhance".into(), 0.0),
        ]),
    };
    let broken = DeviceLine {
        node: "/dev/dri/renderD129".into(),
        chip: Some("Intel 8086:56a5".into()),
        driver: None,
        state: "broken".into(),
        reason: Some("permission denied: it belongs to the group render".into()),
        streams: 0,
        gpu_utilization: BTreeMap::new(),
    };
    vec![works, broken]
}

fn ended() -> Vec<EndedLine> {
    let line = |number: u32, item: &str, how: &str, why: Option<&str>| EndedLine {
        id: Some(format!("s{number}")),
        item: item.into(),
        how: how.into(),
        why: why.map(str::to_owned),
        backend: "vaapi".into(),
        speed: 3.1,
        position_s: 2580.0,
        first_segment_s: Some(0.5),
        since: "2026-03-01T18:15:02Z".into(),
        ended: format!("2026-03-01T19:{:02}:40Z", 59 - number),
    };
    let hung = "the worker (pid 4211) stood still for too long";
    let mut lines = vec![
        EndedLine {
            id: None,
            backend: "pending".into(),
            speed: 0.0,
            position_s: 0.0,
            ..line(1, "One Too Many", "declined", Some("12 streams run, streams.max_streams is 12"))
        },
        line(2, "Hangs", "worker_hung", Some(hung)),
        line(3, "Damaged", "failed_input", Some("the file ends in the middle of a frame")),
    ];
    let how = ["complete", "quit", "hook_gone"];
    lines.extend((4..21).map(|number| line(number, "Some Series", how[number as usize % 3], None)));
    lines
}
