//! The page for people, in a browser.

mod browser;
#[path = "../common/mod.rs"]
mod common;
mod evening;

use std::time::Duration;

use browser::{Browser, DARK, DESKTOP, PHONE, Seen};
use common::{Gateway, Hook, until};
use ffmpeg_args::{Location, Transcode};
use session::{Control, Ending, PROTOCOL};

/// Names as an attacker would have them: what plays is named by whoever put it there. Names of files
/// have no slash.
const HOSTILE: [&str; 4] = [
    "<img src=x onerror=\"window.ran='image'\">",
    "\"><svg onload=window.ran='svg'>",
    "{{constructor.constructor('window.ran=1')()}} <b>bold &amp; &lt;<script>window.ran=1",
    "\u{202e}gnp.exe <style>*{display:none}",
];

fn url(gateway: &Gateway) -> String {
    format!("http://{}/", gateway.http())
}

/// A job by this script of the fake worker, for a film of that name.
fn film(gateway: &Gateway, name: &str, script: &str) -> Hook {
    let mut transcode: Transcode = gateway.transcode(script);
    transcode.inputs[0].location = Location::File(format!("/films/{name}.mkv").into());
    gateway.hook_with(PROTOCOL, transcode, gateway.descriptors())
}

/// Nothing is wrong with the page itself, whatever it shows.
#[track_caller]
fn is_sound(seen: &Seen) {
    assert_eq!(seen.errors, [""; 0]);
    assert_eq!(seen.elsewhere, [""; 0]);
    assert_eq!(seen.ran, "", "a film's name ran as a script");
    assert_eq!((seen.images, seen.scripts), (1, 1), "a film's name became an element");
    assert_eq!(seen.unlabelled, 0);
    assert!(seen.scroll_width <= seen.client_width, "{} px", seen.scroll_width);
}

#[test]
fn nobody_watches() {
    let gateway = Gateway::ready("");
    let mut browser = Browser::start();
    for (view, shot) in [(DESKTOP, "empty"), (PHONE, "empty-phone")] {
        browser.open(&url(&gateway), view, None);
        let seen = browser.see(Some(shot));
        is_sound(&seen);
        assert_eq!(seen.title, "Rendergate");
        assert!(seen.text.contains("Nobody is watching."), "{}", seen.text);
        assert!(seen.text.contains("no render node in /dev/dri"), "{}", seen.text);
        assert!(seen.streams.is_empty() && seen.devices.is_empty() && seen.ended.is_empty());
    }
}

#[test]
fn names_are_text_and_streams_come_and_go() {
    let gateway = Gateway::ready("[streams]\nmax_streams = 4\n");
    let mut browser = Browser::start();
    browser.open(&url(&gateway), DESKTOP, None);
    let mut hooks: Vec<_> = HOSTILE.iter().map(|name| film(&gateway, name, "every=200")).collect();
    for hook in &mut hooks {
        hook.segment(6);
    }
    let mut one_too_many = film(&gateway, HOSTILE[0], "");
    one_too_many.steps_aside(19);
    one_too_many.declined();
    for (view, shot) in [(DESKTOP, "hostile"), (PHONE, "hostile-phone")] {
        browser.open(&url(&gateway), view, None);
        let seen = browser.see(Some(shot));
        is_sound(&seen);
        assert_eq!(seen.title, "(4) Rendergate");
        assert!(seen.text.contains("4 / 4"), "{}", seen.text);
        assert!(!seen.text.contains("Nobody is watching."));
        assert_eq!(seen.streams.len(), HOSTILE.len());
        for (row, name) in seen.streams.iter().zip(HOSTILE) {
            assert!(row[0].starts_with(name), "{row:?}");
            assert_eq!((row[1].as_str(), row[3].as_str()), ("sound only", "running"));
            assert!(row[4].ends_with('×') && row[5].ends_with(" s"), "{row:?}");
        }
        assert_eq!(seen.ended.len(), 1, "{:?}", seen.ended);
        assert!(seen.ended[0][0].starts_with(HOSTILE[0]));
        assert_eq!(seen.ended[0][1], "left to ffmpeg | 4 streams run, streams.max_streams is 4");
    }
    for hook in &mut hooks {
        hook.control(Control::Quit);
        assert_eq!(hook.ended(), Ending::Quit);
    }
    let mut failing = film(&gateway, HOSTILE[1], "fail");
    failing.failed();
    gateway.idle();
    browser.open(&url(&gateway), DESKTOP, None);
    let seen = browser.see(None);
    is_sound(&seen);
    assert!(seen.text.contains("Nobody is watching."));
    assert_eq!(seen.ended.len(), 6);
    assert_eq!(seen.ended[0][1], "failed: the file | the file is damaged");
    assert!(seen.ended[1..5].iter().all(|row| row[1] == "stopped"), "{:?}", seen.ended);
}

#[test]
fn a_page_that_is_open_follows() {
    let gateway = Gateway::ready("");
    let mut browser = Browser::start();
    browser.open(&url(&gateway), DESKTOP, None);
    let mut hook = film(&gateway, "A Film", "every=200");
    hook.segment(5);
    until("the stream is on the page", || browser.see(None).streams.len() == 1);
    hook.control(Control::Pause);
    until("it is paused", || browser.see(None).streams[0][3] == "paused");
    hook.control(Control::Resume);
    hook.control(Control::Quit);
    assert_eq!(hook.ended(), Ending::Quit);
    until("it has gone", || browser.see(None).streams.is_empty());
    assert_eq!(browser.see(None).ended.len(), 1);
}

#[test]
fn a_gateway_that_is_gone_is_said_to_be_and_one_that_is_back_is_seen() {
    let mut gateway = Gateway::ready("");
    let mut browser = Browser::start();
    browser.open(&url(&gateway), PHONE, None);
    gateway.terminate();
    browser.until("lost");
    let seen = browser.see(Some("lost-phone"));
    assert!(seen.text.contains("The gateway can’t be reached."), "{}", seen.text);
    assert!(seen.text.contains("not reachable") && seen.scroll_width <= seen.client_width);
    let _back = Gateway::ready_at(gateway.http());
    browser.until("live");
    let seen = browser.see(None);
    assert!(!seen.text.contains("can’t be reached"), "{}", seen.text);
}

#[test]
fn a_hidden_tab_asks_nothing() {
    let gateway = Gateway::ready("");
    let mut browser = Browser::start();
    browser.open(&url(&gateway), DESKTOP, None);
    browser.hide(true);
    browser.until("hidden");
    let before = browser.see(None).asked;
    browser.pass(Duration::from_secs(60));
    let hidden = browser.see(None);
    assert_eq!((hidden.asked, hidden.state.as_str()), (before, "hidden"));
    browser.hide(false);
    browser.until("live");
    assert!(browser.see(None).asked > before);
}

/// Rows of every kind, as they would be on an evening of some size.
#[test]
fn an_evening_with_many_streams() {
    let gateway = Gateway::ready("");
    let evening = evening::status();
    let mut browser = Browser::start();
    for (view, shot) in [(DESKTOP, "evening"), (DARK, "evening-dark"), (PHONE, "evening-phone")] {
        browser.open(&url(&gateway), view, Some(&evening));
        let seen = browser.see(Some(shot));
        is_sound(&seen);
        assert_eq!(seen.streams.len(), evening.streams.len());
        let row = |number: usize| -> Vec<&str> {
            seen.streams[number].iter().map(String::as_str).collect()
        };
        let film = row(0);
        assert_eq!(film[1], "hevc 3840×2160 → h264 ≤ 1920×1080");
        assert_eq!(film[2], "GPU | /dev/dri/renderD128");
        assert_eq!(film[4..7], ["3.42×", "61 s", "0.41 s"]);
        assert!(film[7].contains("video") && film[7].contains("63 %"), "{film:?}");
        assert!((seen.bars[0] - 0.118).abs() < 0.03 && (seen.bars[1] - 0.63).abs() < 0.03);
        assert!(row(1)[2].starts_with("GPU in part"), "{:?}", row(1));
        assert!(row(2)[2].starts_with("processor") && row(2)[3] == "too slow", "{:?}", row(2));
        assert!(row(3)[3].starts_with("waits for others | may go to 0:"), "{:?}", row(3));
        assert_eq!(row(4)[1], "h264 1920×1080 → copied");
        assert_eq!(seen.devices.len(), 2);
        assert_eq!(
            seen.devices[0][..2],
            ["Intel 8086:3e92 | /dev/dri/renderD128", evening::DRIVER]
        );
        assert!(seen.devices[1][2].starts_with("doesn’t work | "), "{:?}", seen.devices);
        assert_eq!(seen.ended.len(), evening.ended.len());
        assert!(seen.text.contains("left to ffmpeg"), "{}", seen.text);
    }
}
