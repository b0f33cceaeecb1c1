//! The binary from outside: what can be typed, what it prints, how it ends, and that its three commands work together.
//!
//! Every test has its own processes, ports and directory. Nothing here waits by sleeping: it waits for a line, an exit or a connection.

// Signals are half of what is tried here.
#![cfg(unix)]

mod bad_days;
mod client;
mod crash;
mod faulty;
mod load;
mod operator;
mod places;
mod program;
mod round_trip;
mod scripted;
mod serve;
mod trial;
mod usage;
