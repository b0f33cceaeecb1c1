//! Request bodies, within their limits of size and time (N-40). It knows bytes, not what they mean.

use super::problem::Problem;
use bytes::{Buf, Bytes};
use http_body_util::{BodyExt, combinators::UnsyncBoxBody};
use std::{
    future::{Future, poll_fn},
    pin::Pin,
    task::Poll,
    time::Duration,
};
use tidings_core::limits;
use tokio::time::{Instant, timeout_at};

/// A request body of whatever type the server has.
pub(crate) type Incoming = UnsyncBoxBody<Bytes, Cut>;

/// The body ended before its end.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cut;

pub(crate) fn incoming<B>(body: B) -> Incoming
where
    B: http_body::Body<Data: Buf> + Send + 'static,
{
    body.map_frame(|frame| frame.map_data(|mut data| data.copy_to_bytes(data.remaining()))).map_err(|_| Cut).boxed_unsync()
}

/// Bytes set aside before any came: a large `Content-Length` is a claim, and memory follows bytes.
const CLAIM: usize = 64 << 10;

/// Reads a body piece by piece. The first byte has `time`; from then on each stretch of `time` must bring what the lowest rate brings in
/// it, so that a body of one byte a second cannot hold a request for ever.
pub(crate) struct Reader {
    body: Incoming,
    time: Duration,
    /// Bytes that end a stretch.
    stretch: u64,
    got: u64,
    /// How long a stretch or pause may take, and when the one under way is over: once it was waited for. Most bodies are there when they are
    /// asked for, and then nobody looks at the clock.
    limit: Duration,
    deadline: Option<Instant>,
    /// How long the pause under way may be, for the message; `None` while the rate counts.
    pause: Option<Pause>,
}

#[derive(Clone, Copy)]
enum Pause {
    First,
    BetweenLines(Duration),
}

impl Reader {
    pub(crate) fn new(body: Incoming, time: Duration) -> Self {
        let stretch = limits::REQUEST_BODY_RATE.saturating_mul(time.as_secs()).max(1);
        Reader { body, time, stretch, got: 0, limit: time, deadline: None, pause: Some(Pause::First) }
    }

    /// The next bytes, never empty; `None` at the end.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, Problem> {
        loop {
            let there = poll_fn(|cx| Poll::Ready(Pin::new(&mut self.body.frame()).poll(cx))).await;
            let frame = match there {
                Poll::Ready(frame) => frame,
                Poll::Pending => {
                    let deadline = *self.deadline.get_or_insert_with(|| after(self.limit));
                    timeout_at(deadline, self.body.frame()).await.map_err(|_| self.late())?
                }
            };
            match frame.transpose().map_err(|Cut| Problem::BodyCut)?.map(http_body::Frame::into_data) {
                None => return Ok(None),
                Some(Ok(data)) if !data.is_empty() => {
                    self.count(data.len());
                    return Ok(Some(data));
                }
                // Trailers and empty frames are no progress.
                Some(_) => {}
            }
        }
    }

    fn count(&mut self, len: usize) {
        self.got += len as u64;
        if self.pause.take().is_some() || self.got >= self.stretch {
            self.resume();
        }
    }

    /// Starts a new stretch: the time before it was not the client's.
    pub(crate) fn resume(&mut self) {
        self.got = 0;
        (self.limit, self.deadline) = (self.time, None);
    }

    /// Between two lines of a stream a client may be silent for so long.
    pub(crate) fn pause(&mut self, limit: Duration) {
        self.pause = Some(Pause::BetweenLines(limit));
        (self.limit, self.deadline) = (limit, None);
    }

    fn late(&self) -> Problem {
        match self.pause {
            Some(Pause::BetweenLines(limit)) => Problem::LineSlow(limit),
            Some(Pause::First) | None => Problem::BodySlow(self.time),
        }
    }

    /// The whole body; one over the limit is refused as soon as that is known.
    pub(crate) async fn all(mut self, limit: usize, too_long: impl FnOnce() -> Problem) -> Result<Vec<u8>, Problem> {
        let hint = http_body::Body::size_hint(&self.body).lower();
        if hint > limit as u64 {
            return Err(too_long());
        }
        let mut bytes = Vec::with_capacity((hint as usize).min(CLAIM));
        while let Some(piece) = self.next().await? {
            if piece.len() > limit - bytes.len() {
                return Err(too_long());
            }
            bytes.extend_from_slice(&piece);
        }
        Ok(bytes)
    }
}

/// A time so far away that an endless setting means never, and adding it to the clock cannot overflow.
const NEVER: Duration = Duration::from_hours(30 * 365 * 24);

fn after(time: Duration) -> Instant {
    Instant::now() + time.min(NEVER)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use http_body::Frame;
    use std::{
        pin::Pin,
        task::{Context, Poll},
    };

    /// A client that sends a piece, and the next one a while later. `None` breaks the body off.
    struct Slow {
        pieces: std::vec::IntoIter<(Duration, Piece)>,
        waiting: Option<(Pin<Box<tokio::time::Sleep>>, Piece)>,
    }

    type Piece = Option<Vec<u8>>;

    impl http_body::Body for Slow {
        type Data = Bytes;
        type Error = &'static str;
        fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
            if self.waiting.is_none() {
                let Some((pause, piece)) = self.pieces.next() else { return Poll::Ready(None) };
                self.waiting = Some((Box::pin(tokio::time::sleep(pause)), piece));
            }
            let (sleep, _) = self.waiting.as_mut().unwrap();
            std::task::ready!(sleep.as_mut().poll(context));
            let (_, piece) = self.waiting.take().unwrap();
            Poll::Ready(Some(piece.map(|piece| Frame::data(piece.into())).ok_or("cut")))
        }
    }

    pub(crate) fn slow(pieces: Vec<(u64, Option<Vec<u8>>)>) -> Incoming {
        let pieces: Vec<_> = pieces.into_iter().map(|(ms, piece)| (Duration::from_millis(ms), piece)).collect();
        incoming(Slow { pieces: pieces.into_iter(), waiting: None })
    }

    const TIME: Duration = Duration::from_millis(limits::REQUEST_BODY_MS);

    async fn read(pieces: Vec<(u64, Option<Vec<u8>>)>, limit: usize) -> Result<usize, Problem> {
        Reader::new(slow(pieces), TIME).all(limit, || Problem::BodyTooLong { limit }).await.map(|bytes| bytes.len())
    }

    /// N-40: the first byte within 10 s, then 1 KiB/s averaged over 10 s.
    #[tokio::test(start_paused = true)]
    async fn slow_bodies() {
        let ms = limits::REQUEST_BODY_MS;
        let some = |len: usize| Some(vec![b'x'; len]);
        assert!(matches!(read(vec![], 10).await, Ok(0)));
        assert!(matches!(read(vec![(ms - 1, some(1))], 10).await, Ok(1)));
        assert!(matches!(read(vec![(ms + 1, some(1))], 10).await, Err(Problem::BodySlow(TIME))));
        let one_byte_a_second = vec![(1_000, some(1)); 60];
        assert!(matches!(read(one_byte_a_second, 100).await, Err(Problem::BodySlow(TIME))));
        let at_the_rate = vec![(999, some(1_024)); 60];
        assert!(matches!(read(at_the_rate, 1 << 20).await, Ok(61_440)));
        let half_the_rate = vec![(999, some(512)); 60];
        assert!(matches!(read(half_the_rate, 1 << 20).await, Err(Problem::BodySlow(_))));
        // A pause that the average allows: nothing for nine seconds, then plenty.
        assert!(matches!(read(vec![(0, some(1)), (9_000, some(20_000)), (9_000, some(1))], 1 << 20).await, Ok(20_002)));
    }

    /// Empty frames are no progress.
    #[tokio::test(start_paused = true)]
    async fn empty_frames_do_not_count() {
        assert!(matches!(read(vec![(1_000, Some(vec![])); 60], 10).await, Err(Problem::BodySlow(_))));
    }

    #[tokio::test(start_paused = true)]
    async fn sizes_and_cuts() {
        assert!(matches!(read(vec![(0, Some(vec![0; 10]))], 10).await, Ok(10)));
        assert!(matches!(read(vec![(0, Some(vec![0; 6])), (0, Some(vec![0; 5]))], 10).await, Err(Problem::BodyTooLong { limit: 10 })));
        assert!(matches!(read(vec![(0, Some(vec![0; 5])), (0, None)], 10).await, Err(Problem::BodyCut)));
        // A length that is announced is refused before a byte is read.
        let announced = incoming(http_body_util::Full::new(Bytes::from_static(&[0; 11])));
        let refused = Reader::new(announced, TIME).all(10, || Problem::BodyTooLong { limit: 10 }).await;
        assert!(matches!(refused, Err(Problem::BodyTooLong { limit: 10 })));
    }

    /// N-3: between lines another limit holds, and it is named.
    #[tokio::test(start_paused = true)]
    async fn pauses() {
        let minute = Duration::from_mins(1);
        let mut reader = Reader::new(slow(vec![(0, Some(vec![0])), (59_000, Some(vec![0])), (61_000, Some(vec![0]))]), TIME);
        assert!(reader.next().await.unwrap().is_some());
        reader.pause(minute);
        assert!(reader.next().await.unwrap().is_some());
        reader.pause(minute);
        assert!(matches!(reader.next().await, Err(Problem::LineSlow(limit)) if limit == minute));
    }

    #[tokio::test]
    async fn an_endless_setting_does_not_overflow_the_clock() {
        let reader = Reader::new(incoming(http_body_util::Full::new(Bytes::from_static(b"x"))), Duration::MAX);
        assert_eq!(reader.all(1, || Problem::BodyCut).await.unwrap(), b"x");
    }
}
