//! A context: the state of one stream, and the picture being put together for it.
//!
//! `vaBeginPicture` names the surface, `vaRenderPicture` hands over buffers, `vaEndPicture` has the
//! engine work. Buffers are read when they are handed over, because clients may destroy them and
//! what they point to right after.

use std::sync::Arc;

use crate::buffer::Buffer;
use crate::caps::Codec;
use crate::driver::{Config, Driver};
use crate::status::{Outcome, Refusal};
use crate::surface::Surface;
use crate::trace::Engine;
use crate::{account, decode, encode, process, trace};

/// A context of libva.
#[derive(Debug)]
pub struct Context {
    config: Config,
    target: Option<(u32, Arc<Surface>)>,
    pictures: u64,
    work: Work,
}

#[derive(Debug)]
enum Work {
    Decode(decode::Session),
    Encode(Box<encode::Session>),
    Process(process::Session),
}

impl Context {
    /// A context for pictures of this size (none for video processing).
    pub fn new(config: Config, width: usize, height: usize) -> Outcome<Self> {
        let work = match (config.capability.engine, config.capability.codec) {
            (Engine::Decode, codec) => Work::Decode(decode::Session::new(codec)?),
            (Engine::Encode, Codec::H264 | Codec::H265) => {
                Work::Encode(Box::new(encode::Session::new(&config, width, height)))
            }
            (Engine::Process, _) => Work::Process(process::Session::default()),
            (engine, codec) => {
                return Err(Refusal::unimplemented(format!("{engine} of {codec:?}")));
            }
        };
        Ok(Self { config, target: None, pictures: 0, work })
    }

    /// Which engine works for it.
    pub fn engine(&self) -> Engine {
        self.config.capability.engine
    }

    /// Starts a picture: its target, or its source for encoders.
    pub fn begin(&mut self, id: u32, surface: Arc<Surface>) {
        self.target = Some((id, surface));
        match &mut self.work {
            Work::Decode(session) => session.begin(),
            Work::Encode(session) => session.begin(),
            Work::Process(session) => session.begin(),
        }
    }

    /// Takes a buffer.
    pub fn render(&mut self, driver: &Driver, buffer: &Buffer) -> Outcome {
        if self.target.is_none() {
            return Err(Refusal::parameter("vaRenderPicture without vaBeginPicture"));
        }
        match &mut self.work {
            Work::Decode(session) => session.render(buffer),
            Work::Encode(session) => session.render(buffer),
            Work::Process(session) => session.render(driver, buffer),
        }
    }

    /// Does the work.
    pub fn end(&mut self, driver: &Driver) -> Outcome {
        let target = self.target.take();
        let (id, surface) =
            target.ok_or_else(|| Refusal::parameter("vaEndPicture without vaBeginPicture"))?;
        let (engine, name) = (self.engine(), self.config.capability.name());
        driver.faults.end_picture(engine, &name)?;
        let start = account::thread_time();
        let done = match &mut self.work {
            Work::Decode(session) => session.end(id, &surface),
            Work::Encode(session) => session.end(driver, &surface),
            Work::Process(session) => session.end(&surface),
        };
        let time = account::thread_time().saturating_sub(start);
        account::add(engine, time, 1);
        surface.used_by(engine);
        self.pictures += 1;
        let summary = done?;
        trace!("{name} picture {} surface {id:#x}: {summary}", self.pictures);
        Ok(())
    }
}
