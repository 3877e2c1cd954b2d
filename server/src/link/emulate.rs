//! A slower network than there is, inside a connection: what arrives is held back for half a round trip, and for as long as
//! the bytes before it would have kept the line busy. Both ends do so with what they receive.
//!
//! Bytes stay in order whatever the delays. Without an [`Emulation`] every call goes straight through.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

use crate::config::Emulation;

/// What is read from the socket at a time.
const CHUNK: usize = 16 << 10;
/// What may be on its way; the sender waits when there is more, as it would for a full socket.
const IN_FLIGHT: usize = 8 << 20;

/// A stream whose other end seems far away.
#[derive(Debug)]
pub(crate) struct Emulated<S> {
    stream: S,
    line: Option<Box<Line>>,
}

/// What is on its way to the reader.
#[derive(Debug)]
struct Line {
    emulation: Emulation,
    /// Chunks, when each is there, and how much of the first was read already.
    chunks: VecDeque<(Instant, Vec<u8>)>,
    taken: usize,
    in_flight: usize,
    /// When the line has passed on all that it was given.
    free: Instant,
    wake: Pin<Box<Sleep>>,
    /// The other end sends no more, or the connection broke: told after all that came before.
    end: Option<io::Result<()>>,
}

impl<S> Emulated<S> {
    pub(crate) fn new(stream: S, emulation: Option<Emulation>) -> Self {
        let line = emulation.map(|emulation| {
            let now = Instant::now();
            let wake = Box::pin(sleep_until(now));
            Box::new(Line { emulation, chunks: VecDeque::new(), taken: 0, in_flight: 0, free: now, wake, end: None })
        });
        Self { stream, line }
    }
}

impl Line {
    /// Takes what has arrived at the socket, with the time at which it will have arrived here.
    fn fill(&mut self, stream: Pin<&mut impl AsyncRead>, cx: &mut Context<'_>) {
        let mut stream = stream;
        while self.end.is_none() && self.in_flight < IN_FLIGHT {
            let mut bytes = vec![0; CHUNK];
            let mut buffer = ReadBuf::new(&mut bytes);
            match stream.as_mut().poll_read(cx, &mut buffer) {
                Poll::Pending => return,
                Poll::Ready(Err(error)) => self.end = Some(Err(error)),
                Poll::Ready(Ok(())) => {
                    let read = buffer.filled().len();
                    if read == 0 {
                        self.end = Some(Ok(()));
                        return;
                    }
                    bytes.truncate(read);
                    let busy = self.emulation.bandwidth.map_or_else(Default::default, |rate| rate.time_for(read));
                    self.free = self.free.max(Instant::now()) + busy;
                    self.in_flight += read;
                    self.chunks.push_back((self.free + self.emulation.one_way(), bytes));
                }
            }
        }
    }

    fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Some((due, bytes)) = self.chunks.front() else {
            return self.end.take().map_or(Poll::Pending, |end| {
                self.end = Some(Ok(()));
                Poll::Ready(end)
            });
        };
        if *due > Instant::now() {
            self.wake.as_mut().reset(*due);
            ready!(self.wake.as_mut().poll(cx));
        }
        let rest = bytes.get(self.taken..).unwrap_or_default();
        let now = rest.len().min(buffer.remaining());
        buffer.put_slice(rest.get(..now).unwrap_or_default());
        self.in_flight -= now;
        self.taken += now;
        if now == rest.len() {
            self.chunks.pop_front();
            self.taken = 0;
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Emulated<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Self { stream, line } = &mut *self;
        match line {
            None => Pin::new(stream).poll_read(cx, buffer),
            Some(line) => {
                line.fill(Pin::new(stream), cx);
                line.poll_read(cx, buffer)
            }
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Emulated<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot unwrap has failed")]

    use std::time::Duration;

    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    fn emulation(rtt_ms: f64, bandwidth: Option<&str>) -> Option<Emulation> {
        Some(Emulation { rtt_ms, bandwidth: bandwidth.map(|rate| rate.parse().unwrap()) })
    }

    #[tokio::test]
    async fn nothing_arrives_before_its_time_and_all_of_it_in_order() {
        let (mut near, far) = duplex(1 << 20);
        let mut far = Emulated::new(far, emulation(80.0, None));
        let start = Instant::now();
        let sent: Vec<u8> = (0..50_000u32).map(|i| i as u8).collect();
        near.write_all(&sent).await.unwrap();
        let mut early = [0; 1];
        assert!(tokio::time::timeout(Duration::from_millis(10), far.read(&mut early)).await.is_err());
        let mut got = vec![0; sent.len()];
        far.read_exact(&mut got).await.unwrap();
        assert!(start.elapsed() >= Duration::from_millis(40), "{:?}", start.elapsed());
        assert_eq!(got, sent);
        // The end comes after what was sent before it, and as late.
        near.write_all(&[7]).await.unwrap();
        drop(near);
        assert_eq!(far.read_to_end(&mut got).await.unwrap(), 1);
        assert_eq!(got.last(), Some(&7));
    }

    #[tokio::test]
    async fn what_is_sent_together_arrives_one_after_the_other() {
        let (mut near, far) = duplex(1 << 20);
        let mut far = Emulated::new(far, emulation(0.0, Some("8mbit")));
        let start = Instant::now();
        near.write_all(&[1; 100_000]).await.unwrap();
        let mut got = vec![0; 100_000];
        far.read_exact(&mut got).await.unwrap();
        // 100 kB at 1 MB a second.
        assert!(start.elapsed() >= Duration::from_millis(100), "{:?}", start.elapsed());
        assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    }

    #[tokio::test]
    async fn two_messages_in_a_row_share_the_delay() {
        let (mut near, far) = duplex(1 << 20);
        let mut far = Emulated::new(far, emulation(400.0, None));
        let start = Instant::now();
        for byte in 0..10 {
            near.write_all(&[byte]).await.unwrap();
        }
        let mut got = [0; 10];
        far.read_exact(&mut got).await.unwrap();
        assert_eq!(got, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
        assert!((200..1200).contains(&start.elapsed().as_millis()), "{:?}", start.elapsed());
    }

    #[tokio::test]
    async fn without_emulation_nothing_is_held_back() {
        let (mut near, far) = duplex(64);
        let mut far = Emulated::new(far, None);
        near.write_all(b"at once").await.unwrap();
        let mut got = [0; 7];
        let read = tokio::time::timeout(Duration::ZERO, far.read_exact(&mut got)).await;
        assert_eq!((read.unwrap().unwrap(), &got), (7, b"at once"));
    }
}
