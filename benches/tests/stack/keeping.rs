//! Viewers of one film one after the other: what the first had made serves the second, who goes on behind it.

use std::fs;
use std::process::Command;

use jellyfin_sim::CommandLine;

use super::{
    BOTH, House, LONG, PATIENCE, film, is_whole, piece, playlist, segments, wait_for, whole,
};

/// What a player gets of it: the init file once, then segment after segment, all decoded as one.
fn decoded(command: &CommandLine) -> (String, String) {
    let numbers = segments(command);
    let init = if command.has_init { fs::read(command.segment(-1)).unwrap() } else { Vec::new() };
    let segments = numbers.iter().map(|number| fs::read(command.segment(*number)).unwrap());
    let path = command.directory.with_extension("whole");
    fs::write(&path, [init].into_iter().chain(segments).collect::<Vec<_>>().concat()).unwrap();
    let run = Command::new("ffmpeg")
        .args(["-v", "error", "-xerror", "-nostdin", "-i"])
        .arg(&path)
        .args(["-map", "0:v", "-fps_mode", "passthrough", "-f", "framecrc", "-"])
        .output()
        .expect("ffmpeg is needed: apt install ffmpeg");
    assert!(run.status.success(), "{run:?}");
    let [said, frames] = [run.stderr, run.stdout].map(|text| String::from_utf8(text).unwrap());
    (said, frames)
}

#[test]
fn who_comes_later_has_what_was_made_and_goes_on_behind_it() {
    let house = House::with(|folder| {
        format!("[streams]\nshare = true\n[cache]\nfree_share = 0.0\ndirectory = {folder:?}\n")
    });
    let log = || fs::read_to_string(house.stack.log()).unwrap();
    wait_for("a cache", PATIENCE, || log().contains("finished segments are kept"));
    for (round, container) in BOTH.into_iter().enumerate() {
        let (mut first, theirs) = house.under_way(container);
        assert_eq!(first.stop().code, 0, "{:?}", first.log());
        wait_for("its end", PATIENCE, || house.stack.streams().unwrap().is_empty());
        // The last one is cut short.
        let made = segments(&theirs).len() - 1;
        assert!(made < 29, "it was over before it was told to end");
        let made: Vec<_> = (0..made as i64).map(|n| fs::read(piece(&theirs, n)).unwrap()).collect();
        let workers = log().matches("running backend=").count();
        let title = house.path("rendergate-segments").join(format!("{:08x}", round + 1));
        wait_for("what is kept", PATIENCE, || {
            let lines = fs::read_to_string(title.join("log")).unwrap_or_default();
            lines.matches('\n').count() == made.len()
        });
        fs::remove_dir_all(&theirs.directory).unwrap();

        let ours = house.command(&film(LONG), container, "later");
        let mut second = house.start(&ours.at(0, f64::from(LONG.seconds)));
        assert_eq!(second.wait().code, 0, "{:?}", second.log());
        let said = second.log();
        assert!(said.head.iter().any(|line| line.contains("kept segments")), "{said:?}");
        whole(&ours);
        assert_eq!(segments(&ours), (0..30).collect::<Vec<_>>());
        let text = playlist(&ours);
        assert_eq!(
            (text.matches("#EXTINF").count(), text.ends_with("#EXT-X-ENDLIST\n")),
            (30, true)
        );
        // No worker has touched what was made, and one has made the rest.
        for (number, bytes) in (0..).zip(&made) {
            assert_eq!(fs::read(piece(&ours, number)).unwrap(), *bytes, "segment {number}");
        }
        assert_eq!(log().matches("running backend=").count(), workers + 1);
        let (said, frames) = decoded(&ours);
        assert_eq!(said, "");
        let pictures = frames.lines().filter(|line| !line.starts_with('#'));
        let times: Vec<i64> =
            pictures.map(|line| line.split(',').nth(2).unwrap().trim().parse().unwrap()).collect();
        assert_eq!(times.len(), LONG.seconds as usize * 25);
        let steps: Vec<i64> = times.windows(2).map(|two| two[1] - two[0]).collect();
        assert!(steps.iter().all(|step| *step == steps[0]), "{steps:?}");

        // And now all of it is kept.
        let again = house.command(&film(LONG), container, "last");
        let mut third = house.start(&again.at(0, f64::from(LONG.seconds)));
        wait_for("every segment", PATIENCE, || is_whole(&again.segment(29)));
        assert_eq!(third.wait().code, 0, "{:?}", third.log());
        assert_eq!(log().matches("running backend=").count(), workers + 1);
        assert_eq!(decoded(&again).1, frames);
        assert_eq!(playlist(&again).replace(&again.id, ""), text.replace(&ours.id, ""));
        for command in [&ours, &again] {
            fs::remove_dir_all(&command.directory).unwrap();
        }
    }
    let metrics = house.stack.get("/metrics").unwrap();
    assert!(metrics.contains("\nrendergate_cache_hits_total 4\n"), "{metrics}");
}
