//! The frames of an exec: between a command's streams and the connection.

use super::{Reader, encode};
use crate::control::{
    BeginReply, FRAME_EOF, FRAME_EXIT, FRAME_STDERR, FRAME_STDIN, FRAME_STDOUT, MOST_FRAME, Reply,
};
use runtime::{ExecIo, ExecSession, Terminal};
use std::io;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt},
    net::unix::{OwnedWriteHalf, pipe::Sender},
    sync::Mutex,
};

/// Serves a command until it has ended; when the other side is gone, the command is killed.
pub(super) async fn serve(mut session: ExecSession, reader: Reader, write: OwnedWriteHalf) {
    let write = Mutex::new(write);
    let begun = write.lock().await.write_all(&encode(&Reply::Done(BeginReply {}))).await;
    if begun.is_err() {
        return;
    }
    let result = match &mut session.io {
        ExecIo::Pipes { stdin, stdout, stderr } => {
            let (stdin, stdout, stderr) = (stdin.take(), stdout.take(), stderr.take());
            let output = async {
                let out = copy(stdout, FRAME_STDOUT, &write);
                let err = copy(stderr, FRAME_STDERR, &write);
                tokio::try_join!(out, err).map(drop)
            };
            tokio::select! {
                result = output => result,
                result = feed(reader, stdin) => result,
            }
        }
        ExecIo::Terminal(terminal) => {
            tokio::select! {
                result = show(terminal, &write) => result,
                result = typed(reader, terminal) => result,
            }
        }
    };
    if let Err(error) = result {
        tracing::debug!(%error, "an exec broke off");
        return;
    }
    let code = match session.wait().await {
        Ok(code) => code,
        Err(error) => {
            tracing::debug!(error = &error as &dyn std::error::Error, "an exec's end is not known");
            return;
        }
    };
    // Whoever asked may be gone by now.
    let _ = frame(&write, FRAME_EXIT, &code.to_be_bytes()).await;
}

async fn frame(write: &Mutex<OwnedWriteHalf>, kind: u8, content: &[u8]) -> io::Result<()> {
    let mut bytes = vec![kind];
    bytes.extend((content.len() as u32).to_be_bytes());
    bytes.extend(content);
    write.lock().await.write_all(&bytes).await
}

async fn copy(
    from: Option<impl AsyncRead + Unpin>,
    kind: u8,
    write: &Mutex<OwnedWriteHalf>,
) -> io::Result<()> {
    let Some(mut from) = from else { return Ok(()) };
    let mut buffer = vec![0u8; 16 << 10];
    loop {
        match from.read(&mut buffer).await? {
            0 => return Ok(()),
            length => frame(write, kind, &buffer[..length]).await?,
        }
    }
}

async fn show(terminal: &Terminal, write: &Mutex<OwnedWriteHalf>) -> io::Result<()> {
    let mut buffer = vec![0u8; 16 << 10];
    loop {
        match terminal.read(&mut buffer).await? {
            0 => return Ok(()),
            length => frame(write, FRAME_STDOUT, &buffer[..length]).await?,
        }
    }
}

/// The next frame of input; `None` at its end.
async fn next(reader: &mut Reader) -> io::Result<Option<Vec<u8>>> {
    loop {
        let kind = reader.read_u8().await?;
        let length = reader.read_u32().await? as usize;
        if length > MOST_FRAME {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let mut content = vec![0u8; length];
        reader.read_exact(&mut content).await?;
        match kind {
            FRAME_STDIN => return Ok(Some(content)),
            FRAME_EOF => return Ok(None),
            _ => {}
        }
    }
}

/// Feeds the command. It never ends well: output decides when the command is over; input that breaks off without an end
/// is an error, for then nobody is there any more.
async fn feed(mut reader: Reader, stdin: Option<Sender>) -> io::Result<()> {
    let mut stdin = stdin;
    while let Some(content) = next(&mut reader).await? {
        if let Some(pipe) = &mut stdin
            && pipe.write_all(&content).await.is_err()
        {
            stdin = None; // the command reads no more
        }
    }
    drop(stdin.take());
    wait_for_hangup(reader).await
}

async fn typed(mut reader: Reader, terminal: &Terminal) -> io::Result<()> {
    while let Some(content) = next(&mut reader).await? {
        terminal.write_all(&content).await?;
    }
    terminal.write_all(&[4]).await?; // ^D: the end of input, on a terminal
    wait_for_hangup(reader).await
}

async fn wait_for_hangup(mut reader: Reader) -> io::Result<()> {
    let mut byte = [0u8; 1];
    loop {
        if reader.read(&mut byte).await? == 0 {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
    }
}
