//! Two connections joined: bytes pass until both sides are done, or neither sent any for a while.

use crate::reply::Moved;
use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf, copy_bidirectional_with_sizes};

const BUFFER: usize = 16 << 10;

/// One side, watched: whatever passes, passes here.
struct Watched<S> {
    stream: S,
    moved: Moved,
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buffer);
        if polled.is_ready() {
            self.moved.note();
            self.moved.add(buffer.filled().len() - before);
        }
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(cx, bytes);
        if let Poll::Ready(written) = &polled {
            self.moved.note();
            self.moved.add(*written.as_ref().unwrap_or(&0));
        }
        polled
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// Joins `a` and `b`; `moved` is told what passes, and counts it.
pub(crate) async fn join<A, B>(a: A, mut b: B, patience: Duration, moved: &Moved) -> io::Result<()>
where
    A: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    moved.note();
    let mut a = Watched { stream: a, moved: moved.clone() };
    let silent = async {
        while moved.at().elapsed() < patience {
            tokio::time::sleep_until((moved.at() + patience).into()).await;
        }
    };
    tokio::select! {
        done = copy_bidirectional_with_sizes(&mut a, &mut b, BUFFER, BUFFER) => done.map(drop),
        () = silent => Err(io::ErrorKind::TimedOut.into()),
    }
}
