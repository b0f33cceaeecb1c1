//! The shard (stub).

/// What happens to a reader that falls too far behind, where the store cannot serve it from the log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum LagPolicy {
    /// Close the connection; the client resumes with its cursor, and is told if that place is gone.
    Disconnect,
    /// Jump to the newest event and say so with a gap event.
    Gap,
}

/// How a planned end ends (N-17, S-42).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum EndStyle {
    /// The proper end of the response.
    Clean,
    /// Break the response off, for clients that stop on a clean end.
    Abort,
}
