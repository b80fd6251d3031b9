//! A request's body on its way to git: unpacked where it came packed, and looked at before it goes.

use super::Refusal;
use bytes::Bytes;
use flate2::write::GzDecoder;
use http_body_util::BodyExt;
use hyper::{StatusCode, body::Incoming};
use std::{io::Write, time::Duration};
use world::World;

/// How long a client may pause within a body.
const PAUSE: Duration = Duration::from_secs(60);
/// So many bytes are unpacked at once: what comes of them stays small, whatever they are.
const STEP: usize = 4096;

/// What is looked at first, in bytes.
const FIRST_LOOK: usize = 4096;

pub(super) struct Input {
    body: Incoming,
    unpacker: Option<GzDecoder<Vec<u8>>>,
    /// Taken in, not yet unpacked.
    packed: Bytes,
    /// What was looked at and not yet taken.
    seen: Vec<u8>,
    world: World,
}

impl Input {
    pub(super) fn new(body: Incoming, gzip: bool, world: World) -> Self {
        let unpacker = gzip.then(|| GzDecoder::new(Vec::new()));
        Self { body, unpacker, packed: Bytes::new(), seen: Vec::new(), world }
    }

    /// What was looked at so far.
    pub(super) fn seen(&self) -> &[u8] {
        &self.seen
    }

    /// Looks at half as much again, or a first piece; false when the end leaves nothing to look at. Whoever looks at
    /// all of it each time does so a few times only, however small the pieces are that it comes in.
    pub(super) async fn see_more(&mut self) -> Result<bool, Refusal> {
        let before = self.seen.len();
        let enough = before + (before / 2).max(FIRST_LOOK);
        while self.seen.len() < enough {
            let Some(more) = self.read().await? else { break };
            self.seen.extend_from_slice(&more);
        }
        Ok(self.seen.len() > before)
    }

    /// The next bytes, those that were looked at first.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, Refusal> {
        if !self.seen.is_empty() {
            return Ok(Some(std::mem::take(&mut self.seen).into()));
        }
        self.read().await
    }

    async fn read(&mut self) -> Result<Option<Bytes>, Refusal> {
        let bad = |_| Refusal::bad("The body is not gzip.");
        loop {
            if !self.packed.is_empty() {
                let Some(unpacker) = &mut self.unpacker else {
                    return Ok(Some(std::mem::take(&mut self.packed)));
                };
                let step = self.packed.split_to(STEP.min(self.packed.len()));
                unpacker.write_all(&step).map_err(bad)?;
                let plain = std::mem::take(unpacker.get_mut());
                if !plain.is_empty() {
                    return Ok(Some(plain.into()));
                }
                continue;
            }
            let frame = self.world.timeout(PAUSE, self.body.frame()).await;
            let frame = frame.ok_or_else(|| {
                Refusal::new(StatusCode::REQUEST_TIMEOUT, "The body did not arrive in time.")
            })?;
            match frame {
                Some(frame) => {
                    let frame = frame.map_err(|_| Refusal::bad("The body broke off."))?;
                    self.packed = frame.into_data().unwrap_or_default();
                }
                None => {
                    let Some(mut unpacker) = self.unpacker.take() else { return Ok(None) };
                    unpacker.try_finish().map_err(bad)?;
                    let plain = std::mem::take(unpacker.get_mut());
                    if !plain.is_empty() {
                        return Ok(Some(plain.into()));
                    }
                }
            }
        }
    }
}
