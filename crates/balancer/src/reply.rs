//! Bodies on their way through: bounded in how long they may stall, and accounted for until they are over.

use crate::{exchange::Exchange, group::Busy, pool::Link};
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
    own: Rc<Movement>,
    around: Option<Rc<Movement>>,
}

struct Movement {
    last: Cell<Instant>,
    bytes: Cell<u64>,
}

impl Moved {
    pub(crate) fn now() -> Self {
        let own = Movement { last: Cell::new(Instant::now()), bytes: Cell::new(0) };
        Self { own: Rc::new(own), around: None }
    }

    /// Of something on what this is of.
    pub(crate) fn inside(&self) -> Self {
        self.note();
        Self { around: Some(self.own.clone()), ..Self::now() }
    }

    pub(crate) fn note(&self) {
        let now = Instant::now();
        self.own.last.set(now);
        if let Some(around) = &self.around {
            around.last.set(now);
        }
    }

    /// So many bytes more have come.
    pub(crate) fn add(&self, bytes: usize) {
        self.own.bytes.set(self.own.bytes.get() + bytes as u64);
    }

    /// All that came.
    pub(crate) fn bytes(&self) -> u64 {
        self.own.bytes.get()
    }

    pub(crate) fn at(&self) -> Instant {
        self.own.last.get()
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
        let Some(patient) = &mut self.0 else { return Poll::Ready(None) };
        let polled = patient.poll(cx);
        if let Poll::Ready(Some(Ok(frame))) = &polled {
            patient.moved.add(frame.data_ref().map_or(0, Bytes::len));
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.0.as_ref().is_none_or(|patient| patient.body.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        self.0.as_ref().map_or(SizeHint::with_exact(0), |patient| patient.body.size_hint())
    }
}

/// What a client gets: the exchange is over when this is.
pub(crate) struct Reply {
    body: Answer,
    /// What goes on as another protocol is over when that is.
    exchange: Option<Exchange>,
}

enum Answer {
    Own(Own),
    Target(Box<FromTarget>),
}

/// The body of an answer of our own.
pub(crate) struct Own(pub(crate) Option<Bytes>);

/// A target's answer on its way to the client.
struct FromTarget {
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
    /// A body of our own.
    pub(crate) fn own(own: Own, exchange: Exchange) -> Self {
        Self { body: Answer::Own(own), exchange: Some(exchange) }
    }

    /// No body: the connection goes on as another protocol.
    pub(crate) fn upgraded() -> Self {
        Self { body: Answer::Own(Own(None)), exchange: None }
    }

    /// A target's body.
    pub(crate) fn of_target(
        body: Incoming,
        patience: Duration,
        link: Link,
        busy: Busy,
        exchange: Exchange,
    ) -> Self {
        let patient = Patient::new(body, patience, exchange.moved().clone());
        let mut from = FromTarget { patient, rest: Some((link, busy)) };
        if from.patient.body.is_end_stream() {
            from.end();
        }
        Self { body: Answer::Target(Box::new(from)), exchange: Some(exchange) }
    }
}

impl Body for Reply {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let polled = match &mut self.body {
            Answer::Own(own) => Poll::Ready(own.0.take().map(|bytes| Ok(Frame::data(bytes)))),
            Answer::Target(from) => {
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
        };
        if let (Poll::Ready(Some(Ok(frame))), Some(exchange)) = (&polled, &mut self.exchange) {
            exchange.sent(frame.data_ref().map_or(0, Bytes::len));
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        match &self.body {
            Answer::Own(own) => own.0.is_none(),
            Answer::Target(from) => from.patient.body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.body {
            Answer::Own(own) => {
                SizeHint::with_exact(own.0.as_ref().map_or(0, |bytes| bytes.len() as u64))
            }
            Answer::Target(from) => from.patient.body.size_hint(),
        }
    }
}
