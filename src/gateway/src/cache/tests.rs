//! A cache, and productions of which the test writes the segments.

use std::fs::{self, File};
use std::os::fd::OwnedFd;

use ffmpeg_args::{Container, PlaylistType};
use prometheus::Registry;
use session::{Complete, StreamId};
use tempfile::TempDir;
use tokio::time::Instant;

use super::*;
use crate::config;
use crate::sharing::{Joined, Offer, Segments, Sharing};

/// Longer than anything takes, on a machine under load.
const LIMIT: Duration = Duration::from_secs(20);

fn names() -> HlsOutput {
    HlsOutput {
        directory: "/t".into(),
        container: Container::Fmp4 { init: "abc-1.mp4".into(), absolute: true, skip_sidx: false },
        segment_seconds: 3.0,
        start_number: 5,
        segment_prefix: "abc".into(),
        segment_suffix: ".mp4".into(),
        playlist: "abc.m3u8".into(),
        playlist_type: PlaylistType::Vod,
        base_url: String::new(),
        max_delay_us: 5_000_000,
    }
}

/// A cache, a title, and the folder of whoever produces it.
struct Stage {
    cache: Cache,
    sharing: Sharing,
    title: Title,
    kept: TempDir,
    theirs: TempDir,
    tending: JoinHandle<()>,
}

impl Stage {
    async fn new() -> Self {
        Self::over(tempfile::tempdir().unwrap()).await
    }

    async fn over(kept: TempDir) -> Self {
        let settings = config::Cache {
            directory: Some(kept.path().to_owned()),
            free_share: 0.0,
            ..config::Cache::default()
        };
        let config = Config { cache: settings, ..Config::default() };
        let (cache, tending) = Cache::start(&config, &Registry::new(), |_| None).unwrap();
        let title = Title::for_tests(7, 1, "plan");
        let theirs = tempfile::tempdir().unwrap();
        fs::write(theirs.path().join("abc-1.mp4"), "init").unwrap();
        let sharing = Sharing::default();
        let stage = Self { cache, sharing, title, kept, theirs, tending: tending.unwrap() };
        until(|| stage.shared().disk.get().is_some()).await;
        stage
    }

    fn shared(&self) -> &Shared {
        self.cache.shared.as_ref().unwrap()
    }

    /// Somebody produces it from now on, behind what there is.
    fn begin(&self, segments: Segments, lineage: Option<Lineage>) -> Offer {
        let folder: OwnedFd = File::open(self.theirs.path()).unwrap().into();
        let begun = (segments, lineage);
        let joined =
            self.sharing.join(&self.title, StreamId(1), &Arc::new(folder), &names(), begun);
        let Joined::Offer(offer, production) = joined else { panic!("it is produced") };
        self.cache.keep(&self.title, production);
        offer
    }

    fn writes(&self, offer: &Offer, number: u64, content: &str) {
        fs::write(self.theirs.path().join(format!("abc{number}.mp4")), content).unwrap();
        let state = Some(content.into());
        offer.segment_complete(number, Complete { length: (3, 1), state, last: number == 14 });
    }

    /// Where a title is kept, once its segments are these.
    async fn keeps(&self, contents: &[&str]) -> PathBuf {
        let folder = || {
            let id = self.shared().lock().find(&self.title)?;
            Some(self.kept.path().join(format!("rendergate-segments/{id:08x}")))
        };
        let is = |folder: &Path, index: usize, content: &str| {
            let path = folder.join(format!("{}.mp4", index + 5));
            fs::read_to_string(path).is_ok_and(|text| text == content)
        };
        let are = || {
            folder().is_some_and(|folder| {
                let log = fs::read_to_string(folder.join("log")).unwrap_or_default();
                let lines = log.matches('\n').count();
                lines == contents.len() && (0..).zip(contents).all(|(i, text)| is(&folder, i, text))
            })
        };
        until(are).await;
        folder().unwrap()
    }

    /// The same for whoever reads it.
    async fn gives(&self, contents: &[&str]) -> Kept {
        let folder = self.keeps(contents).await;
        assert_eq!(fs::read_to_string(folder.join("init.mp4")).unwrap(), "init");
        let kept = self.open(0, None).await.unwrap();
        assert_eq!(kept.production.stage.borrow().segments.len(), contents.len());
        for (index, content) in contents.iter().enumerate() {
            assert_eq!(kept.state(index).unwrap().unwrap().as_str(), Some(*content));
        }
        let lineage = kept.production.lineage;
        let beyond = async |have, lineage| self.open(have, Some(lineage)).await.is_some();
        let count = contents.len();
        assert!(!beyond(count, lineage).await);
        // What fits no other beginning.
        assert!(count == 1 || beyond(count - 1, lineage).await);
        assert!(count == 1 || !beyond(count - 1, Lineage::new()).await);
        kept
    }

    async fn open(&self, have: usize, begun: Option<Lineage>) -> Option<Kept> {
        match self.cache.open(&self.title, &names(), have, begun).await {
            Opened::Kept(kept) => Some(*kept),
            Opened::Nothing => None,
            Opened::Unknown => panic!("nothing hinders"),
        }
    }

    /// Nobody adds to anything any more.
    async fn rests(&self) {
        until(|| self.shared().growing.lock().unwrap().is_empty()).await;
    }
}

async fn until(condition: impl Fn() -> bool) {
    let deadline = Instant::now() + LIMIT;
    while !condition() {
        assert!(Instant::now() < deadline);
        sleep(Duration::from_millis(2)).await;
    }
}

#[tokio::test]
async fn what_another_worker_writes_anew_is_kept_anew() {
    let stage = Stage::new().await;
    let offer = stage.begin(Segments::default(), None);
    for (number, content) in [(5, "a"), (6, "b"), (7, "c")] {
        stage.writes(&offer, number, content);
    }
    stage.keeps(&["a", "b", "c"]).await;
    stage.writes(&offer, 6, "another");
    stage.writes(&offer, 7, "and the next");
    stage.writes(&offer, 8, "d");
    drop(stage.gives(&["a", "another", "and the next", "d"]).await);
}

#[tokio::test]
async fn nothing_is_taken_away_from_somebody_who_reads() {
    let stage = Stage::new().await;
    let offer = stage.begin(Segments::default(), None);
    stage.writes(&offer, 5, "a");
    stage.writes(&offer, 6, "b");
    let _reader = stage.gives(&["a", "b"]).await;
    // It can only be added to.
    stage.writes(&offer, 7, "c");
    drop(stage.gives(&["a", "b", "c"]).await);
    for number in 6..9 {
        stage.writes(&offer, number, "another");
    }
    stage.rests().await;
    drop(stage.gives(&["a", "b", "c"]).await);
}

/// Another run of the same viewer's writes under the same names when he has leapt back.
#[tokio::test]
async fn what_another_run_has_written_is_not_kept() {
    let stage = Stage::new().await;
    let slot = stage.shared().slot.acquire().await.unwrap();
    let offer = stage.begin(Segments::default(), None);
    for (number, content) in [(5, "a"), (6, "b"), (7, "c")] {
        stage.writes(&offer, number, content);
    }
    drop(offer);
    // A tick of the clock by which file systems go, and more.
    sleep(Duration::from_millis(20)).await;
    fs::write(stage.theirs.path().join("abc7.mp4"), "x").unwrap();
    drop(slot);
    drop(stage.gives(&["a", "b"]).await);
    stage.rests().await;
    drop(stage.gives(&["a", "b"]).await);
}

#[tokio::test]
async fn who_goes_on_adds_and_who_begins_anew_replaces() {
    let stage = Stage::new().await;
    let offer = stage.begin(Segments::default(), None);
    stage.writes(&offer, 5, "a");
    stage.writes(&offer, 6, "b");
    drop(offer);
    let kept = stage.gives(&["a", "b"]).await;
    let begun = kept.production.stage.borrow().segments.clone();
    let offer = stage.begin(begun, Some(kept.production.lineage));
    drop(kept);
    stage.writes(&offer, 7, "c");
    drop(offer);
    drop(stage.gives(&["a", "b", "c"]).await);
    let offer = stage.begin(Segments::default(), None);
    for (number, content) in [(5, "anew"), (6, "e"), (7, "f"), (8, "g")] {
        stage.writes(&offer, number, content);
    }
    drop(stage.gives(&["anew", "e", "f", "g"]).await);
    until(|| stage.shared().size().1 == 1).await;
}

#[tokio::test]
async fn nothing_gives_way_to_what_is_shorter() {
    let stage = Stage::new().await;
    let offer = stage.begin(Segments::default(), None);
    for (number, content) in [(5, "a"), (6, "b"), (7, "c")] {
        stage.writes(&offer, number, content);
    }
    drop(offer);
    let kept = stage.gives(&["a", "b", "c"]).await;
    let mut begun = kept.production.stage.borrow().segments.clone();
    let lineage = kept.production.lineage;
    drop(kept);
    // Who begins anew, and who goes on before its end.
    begun.truncate(1);
    for (segments, lineage) in [(Segments::default(), None), (begun, Some(lineage))] {
        let offer = stage.begin(segments, lineage);
        stage.writes(&offer, 6, "shorter");
        stage.writes(&offer, 7, "than that");
        drop(offer);
        stage.rests().await;
        drop(stage.gives(&["a", "b", "c"]).await);
    }
    // Nor to what has lost its beginning.
    let offer = stage.begin(Segments::default(), None);
    for number in 5..10 {
        stage.writes(&offer, number, "longer");
        fs::remove_file(stage.theirs.path().join("abc5.mp4")).unwrap_or_default();
    }
    stage.rests().await;
    drop(offer);
    drop(stage.gives(&["a", "b", "c"]).await);
}

#[tokio::test]
async fn what_is_broken_is_given_up_once_and_what_cannot_be_read_stays() {
    let stage = Stage::new().await;
    let offer = stage.begin(Segments::default(), None);
    stage.writes(&offer, 5, "a");
    drop(offer);
    let kept = stage.gives(&["a"]).await;
    let folder = stage.keeps(&["a"]).await;
    stage.rests().await;
    assert!(!kept.failed(&io::Error::other("a disk that is away")));
    fs::rename(folder.join("log"), folder.join("away")).unwrap();
    fs::create_dir(folder.join("log")).unwrap();
    let opened = stage.cache.open(&stage.title, &names(), 0, None).await;
    assert!(matches!(opened, Opened::Unknown), "{opened:?}");
    fs::remove_dir(folder.join("log")).unwrap();
    fs::rename(folder.join("away"), folder.join("log")).unwrap();
    assert!(stage.open(0, None).await.is_some());
    fs::write(folder.join("init.mp4"), "").unwrap();
    assert!(stage.open(0, None).await.is_none());
    assert!(kept.failed(&io::ErrorKind::NotFound.into()));
    assert_eq!(stage.shared().metrics.evictions("broken"), 1);
}

#[tokio::test]
async fn a_gateway_finds_what_another_has_kept() {
    let mut stage = Stage::new().await;
    let offer = stage.begin(Segments::default(), None);
    stage.writes(&offer, 5, "a");
    drop(offer);
    drop(stage.gives(&["a"]).await);
    stage.rests().await;
    let size = stage.shared().size();
    stage.tending.abort();
    let _ = (&mut stage.tending).await;
    let (kept, cache) = (stage.kept, stage.cache);
    drop(cache);
    let stage = Stage::over(kept).await;
    drop(stage.gives(&["a"]).await);
    // The title's and the init file are counted, too.
    let (bytes, titles) = stage.shared().size();
    assert!(bytes > size.0 && titles == 1, "{bytes} bytes of {titles}");
}
