//! A black-box conformance suite for the Mercure protocol: every requirement that can be seen from outside, in both dialects, at the level
//! of HTTP bytes, against any hub that is given by its URL and keys.
//!
//! It knows no hub from inside and depends on none. Each check works on topics of its own, so the suite can run on a hub in use.
//! Requirement numbers (M-1 ...) are those of the project's specification page; `--list` prints them with what each check shows.

mod checks;
mod http;
mod probe;
mod report;
mod requirements;
mod settings;
mod stream;
mod suite;
mod token;

pub use report::{Finding, Report, Result};
pub use requirements::Level;
pub use settings::{Dialect, Identity, Role, Settings};
pub use suite::{list, run};
pub use token::Key;
