# Each recipe wraps commands that work without `just`; the README and CONTRIBUTING.md name them too.

# List the recipes.
default:
    @just --list

# What a change has to pass before its tests: form, lints, dependencies, the shape of the house.
check:
    cargo fmt --all -- --check
    cargo clippy --workspace --all-targets -- -D warnings
    cargo clippy -p tidings --no-default-features -- -D warnings
    cargo deny check bans licenses sources
    cargo test -p tidings-server --test house

# Unit, simulation and binary tests.
test:
    cargo test

# Replay one seed of the simulation; a failure ends with the last things that happened.
sim SEED:
    TIDINGS_SIM_SEED={{SEED}} cargo test -p tidings-core --test sim seeds -- --nocapture

# Every fuzz target for so many seconds each (needs the nightly toolchain and cargo-fuzz).
fuzz SECONDS="600":
    cargo +nightly fuzz run wire -- -max_total_time={{SECONDS}}
    cargo +nightly fuzz run shard -- -max_total_time={{SECONDS}}
    cargo +nightly fuzz run template -- -max_total_time={{SECONDS}} -max_len=8192
    cargo +nightly fuzz run routes -- -max_total_time={{SECONDS}} -max_len=8192
    cargo +nightly fuzz run pattern -- -max_total_time={{SECONDS}} -max_len=8192
    cargo +nightly fuzz run token -- -max_total_time={{SECONDS}}

# 10,000 subscribers on one topic and on 10,000 topics; every event checked.
bench:
    bench/fan-out

# The hub beside the floor and other servers, with ratios: `just compare --rows rate --reps 1`; see `just compare --help`.
compare *ARGS:
    bench/compare {{ARGS}}

# The documentation of the crates; a broken link is an error.
docs:
    RUSTDOCFLAGS=-Dwarnings cargo doc --workspace --no-deps

# Clients written by others, browsers included. Installs what it needs.
clients:
    scripts/test-clients
