//! Bodies on their way through: bounded in how long they may stall, and accounted for until they are over.

use crate::{pool::Link, table::Busy};
use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use std::{
    cell::Cell,
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
    time::{Duration, Instant},
};
use tokio::time::Sleep;

/// A body that may not stall for longer than a while, unless what comes the other way moves. There is a timer only
/// while it does.
struct Patient {
    body: Incoming,
    patience: Duration,
    moved: Moved,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Patient {
    fn new(body: Incoming, patience: Duration, moved: Moved) -> Self {
        Self { body, patience, moved, timer: None }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) {
            self.timer = None;
            self.moved.note();
            return Poll::Ready(frame.map(|frame| frame.map_err(io::Error::other)));
        }
        let until = |moved: &Moved| (moved.at() + self.patience).into();
        let new = || Box::pin(tokio::time::sleep_until(until(&self.moved)));
        let timer = self.timer.get_or_insert_with(new);
        while timer.as_mut().poll(cx).is_ready() {
            if self.moved.at().elapsed() >= self.patience {
                return Poll::Ready(Some(Err(io::ErrorKind::TimedOut.into())));
            }
            timer.as_mut().reset(until(&self.moved));
        }
        Poll::Pending
    }
}

/// When something last moved: of one request, and on its connection.
#[derive(Clone)]
pub(crate) struct Moved {
    own: Rc<Cell<Instant>>,
    around: Option<Rc<Cell<Instant>>>,
}

impl Moved {
    pub(crate) fn now() -> Self {
        Self { own: Rc::new(Cell::new(Instant::now())), around: None }
    }

    /// Of something on what this is of.
    pub(crate) fn inside(&self) -> Self {
        self.note();
        Self { around: Some(self.own.clone()), ..Self::now() }
    }

    pub(crate) fn note(&self) {
        let now = Instant::now();
        self.own.set(now);
        if let Some(around) = &self.around {
            around.set(now);
        }
    }

    pub(crate) fn at(&self) -> Instant {
        self.own.get()
    }
}

/// A request's body on its way to a target.
pub(crate) struct Forwarded(Option<Patient>);

impl Forwarded {
    /// No body.
    pub(crate) fn empty() -> Self {
        Self(None)
    }

    /// A client's body; `moved` is told whenever some of it came.
    pub(crate) fn new(body: Incoming, patience: Duration, moved: Moved) -> Self {
        Self(Some(Patient::new(body, patience, moved)))
    }
}

impl Body for Forwarded {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        self.0.as_mut().map_or(Poll::Ready(None), |patient| patient.poll(cx))
    }

    fn is_end_stream(&self) -> bool {
        self.0.as_ref().is_none_or(|patient| patient.body.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        self.0.as_ref().map_or(SizeHint::with_exact(0), |patient| patient.body.size_hint())
    }
}

/// What a client gets.
pub(crate) enum Reply {
    /// An answer of our own.
    Own(Option<Bytes>),
    /// A target's.
    Target(Box<FromTarget>),
}

/// A target's answer on its way to the client.
pub(crate) struct FromTarget {
    patient: Patient,
    /// The connection is kept, and the target no longer busy, when the body is over.
    rest: Option<(Link, Busy)>,
}

impl FromTarget {
    fn end(&mut self) {
        if let Some((link, _busy)) = self.rest.take() {
            link.keep();
        }
    }
}

impl Reply {
    /// A target's body.
    pub(crate) fn of_target(
        body: Incoming,
        patience: Duration,
        moved: Moved,
        link: Link,
        busy: Busy,
    ) -> Self {
        let patient = Patient::new(body, patience, moved);
        let mut from = FromTarget { patient, rest: Some((link, busy)) };
        if from.patient.body.is_end_stream() {
            from.end();
        }
        Self::Target(Box::new(from))
    }
}

impl Body for Reply {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        match &mut *self {
            Self::Own(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Target(from) => {
                let polled = from.patient.poll(cx);
                match &polled {
                    // hyper does not ask again after the last frame of a body whose length it knows.
                    Poll::Ready(Some(Ok(_))) if !from.patient.body.is_end_stream() => {}
                    Poll::Ready(None | Some(Ok(_))) => from.end(),
                    Poll::Ready(Some(Err(_))) => from.rest = None,
                    Poll::Pending => {}
                }
                polled
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Own(bytes) => bytes.is_none(),
            Self::Target(from) => from.patient.body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Own(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |b| b.len() as u64)),
            Self::Target(from) => from.patient.body.size_hint(),
        }
    }
}
