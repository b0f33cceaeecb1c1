//! Nothing: the programs are the files beside this one, and `tests/run.rs` runs them. Cargo wants a crate to hang them on.
