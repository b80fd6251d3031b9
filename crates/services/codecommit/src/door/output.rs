//! What `git http-backend` answers, handed on as it comes.

use super::{Input, Refusal};
use crate::{CodeCommit, git::GitError};
use bytes::{Bytes, BytesMut};
use hyper::{
    HeaderMap, StatusCode,
    body::{Body, Frame},
    header::{HeaderName, HeaderValue},
};
use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt},
    process::{Child, ChildStdin, ChildStdout},
    sync::{OwnedSemaphorePermit, mpsc},
};
use wire::Fault;

/// The longest head that a CGI program answers, in bytes.
const MOST_HEAD: usize = 16 << 10;
/// How long git may be silent (it packs a large repository), and a client may take nothing.
const PAUSE: Duration = Duration::from_secs(300);
/// Read at once, in bytes.
const STEP: usize = 64 << 10;

/// What is settled when an exchange is over.
pub(super) struct Push {
    /// The repository's id.
    pub repository: String,
    /// The ARN of who pushes.
    pub caller: String,
}

/// The rest of an answer, frame by frame.
pub(super) struct Answer(mpsc::Receiver<Result<Bytes, io::Error>>);

impl Body for Answer {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        self.get_mut().0.poll_recv(cx).map(|frame| frame.map(|frame| frame.map(Frame::data)))
    }
}

/// Feeds the child, reads the head of its answer and goes on with the rest. Of a push the answer ends only when what it
/// changed is settled: who has it can rely on it.
pub(super) async fn start(
    codecommit: Arc<CodeCommit>,
    mut child: Child,
    input: Input,
    pushed: Option<Push>,
    permit: OwnedSemaphorePermit,
) -> Result<(StatusCode, HeaderMap, Answer), Refusal> {
    let piped = || Fault::from(GitError::Answer("no pipes"));
    let stdin = child.stdin.take().ok_or_else(piped)?;
    let mut stdout = child.stdout.take().ok_or_else(piped)?;
    let world = codecommit.world.clone();
    world.spawn("git's input", async move { feed(stdin, input).await });
    if let Some(stderr) = child.stderr.take() {
        world.spawn("git's complaints", async move { complain(stderr).await });
    }
    let mut rest = BytesMut::new();
    let head = world.timeout(PAUSE, head(&mut stdout, &mut rest)).await;
    let head = head.unwrap_or(Err(GitError::Slow("http-backend".to_owned())));
    let (status, headers) = head.map_err(Fault::from)?;
    let (frames, answer) = mpsc::channel(4);
    world.spawn("git's answer", async move {
        let _permit = permit;
        let handed = hand_on(&codecommit, stdout, rest.freeze(), &frames).await;
        let done = async {
            handed?;
            child.wait().await?;
            match &pushed {
                Some(push) => codecommit.after_push(push).await,
                None => Ok(()),
            }
        };
        if let Err(error) = done.await {
            tracing::warn!(%error, "an exchange with git was cut off");
            // Nobody listens any more when it is the client who left.
            let _ = frames.send(Err(error)).await;
        }
    });
    Ok((status, headers, Answer(answer)))
}

impl CodeCommit {
    async fn after_push(self: &Arc<Self>, push: &Push) -> Result<(), io::Error> {
        let settled = self.settle(&push.repository, Some(&push.caller)).await;
        settled.map_err(|fault| io::Error::other(fault.message))?;
        let bare = self.git.bare(&push.repository);
        self.world.spawn("a repository's maintenance", async move {
            if let Err(error) = bare.maintain().await {
                tracing::warn!(%error, "a repository was not maintained");
            }
        });
        Ok(())
    }
}

/// A body that breaks off ends the input early, which git takes as what it is.
async fn feed(mut stdin: ChildStdin, mut input: Input) {
    loop {
        match input.next().await {
            Ok(Some(bytes)) => {
                if stdin.write_all(&bytes).await.is_err() {
                    // Git wants no more; it says why in its answer.
                    return;
                }
            }
            Ok(None) => return,
            Err(refusal) => {
                tracing::debug!(reason = refusal.message, "a request of git's broke off");
                return;
            }
        }
    }
}

async fn complain(stderr: impl AsyncRead + Unpin) {
    let mut text = Vec::new();
    let mut stderr = stderr.take(4096);
    if stderr.read_to_end(&mut text).await.is_ok() && !text.is_empty() {
        let text = String::from_utf8_lossy(&text);
        tracing::debug!(message = text.trim(), "git http-backend");
    }
    // The rest is let go, so that git never waits for it to be read.
    let mut rest = stderr.into_inner();
    let _ = tokio::io::copy(&mut rest, &mut tokio::io::sink()).await;
}

async fn hand_on(
    codecommit: &CodeCommit,
    mut stdout: ChildStdout,
    first: Bytes,
    frames: &mpsc::Sender<Result<Bytes, io::Error>>,
) -> Result<(), io::Error> {
    let slow = || io::Error::new(io::ErrorKind::TimedOut, "no progress for too long");
    let mut next = first;
    loop {
        if !next.is_empty() {
            let sent = codecommit.world.timeout(PAUSE, frames.send(Ok(next))).await;
            sent.ok_or_else(slow)?.map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
        }
        let mut bytes = BytesMut::with_capacity(STEP);
        let read = codecommit.world.timeout(PAUSE, stdout.read_buf(&mut bytes)).await;
        if read.ok_or_else(slow)?? == 0 {
            return Ok(());
        }
        next = bytes.freeze();
    }
}

/// The status and headers of a CGI program's answer (RFC 3875, 6); what follows them is left in `rest`.
async fn head(
    stdout: &mut ChildStdout,
    rest: &mut BytesMut,
) -> Result<(StatusCode, HeaderMap), GitError> {
    const END: &[u8] = b"\r\n\r\n";
    let end = loop {
        if let Some(at) = rest.windows(END.len()).position(|window| window == END) {
            break at;
        }
        if rest.len() > MOST_HEAD || stdout.read_buf(rest).await? == 0 {
            return Err(GitError::Answer("http-backend"));
        }
    };
    let head = rest.split_to(end + END.len());
    let head = std::str::from_utf8(&head).map_err(|_| GitError::Answer("http-backend"))?;
    let (mut status, mut headers) = (StatusCode::OK, HeaderMap::new());
    for line in head.lines().filter(|line| !line.is_empty()) {
        let (name, value) = line.split_once(':').ok_or(GitError::Answer("http-backend"))?;
        if name.eq_ignore_ascii_case("status") {
            let code = value.trim().split(' ').next().unwrap_or_default();
            status = code.parse().map_err(|_| GitError::Answer("http-backend"))?;
            continue;
        }
        let name = name.parse::<HeaderName>().map_err(|_| GitError::Answer("http-backend"))?;
        let value =
            HeaderValue::from_str(value.trim()).map_err(|_| GitError::Answer("http-backend"))?;
        headers.append(name, value);
    }
    Ok((status, headers))
}
