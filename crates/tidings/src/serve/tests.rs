//! The server from outside, over real sockets, with literal bytes.
