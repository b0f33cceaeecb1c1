//! Where the log is kept when nobody says: a directory of the user, by the rules of the system.
//!
//! It knows names of directories, not what is in them.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
};

/// The systems whose rules differ.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum System {
    Windows,
    Mac,
    /// Linux, the BSDs and whatever else follows the XDG rules.
    Other,
}

/// The data directory of whoever runs this, if the environment says enough to know one.
pub(super) fn usual() -> Option<PathBuf> {
    let system = if cfg!(windows) {
        System::Windows
    } else if cfg!(target_os = "macos") {
        System::Mac
    } else {
        System::Other
    };
    directory(system, is_root(), |name| std::env::var_os(name))
}

#[cfg(unix)]
fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

#[cfg(not(unix))]
fn is_root() -> bool {
    false
}

fn directory(system: System, root: bool, variable: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    // The XDG rules want a relative path taken for none, and the others are better off so too.
    let path = |name: &str| variable(name).map(PathBuf::from).filter(|path| path.has_root());
    // What systemd makes for `StateDirectory=`; of several the first.
    let state = variable("STATE_DIRECTORY").and_then(|all| std::env::split_paths(&all).next()).filter(|path| path.has_root());
    if let Some(state) = state {
        return Some(state);
    }
    let home = |below: &str| path("HOME").filter(|home| *home != Path::new("/")).map(|home| home.join(below));
    match system {
        System::Windows => path("LOCALAPPDATA").map(|data| data.join("tidings")),
        System::Mac if root => Some("/Library/Application Support/tidings".into()),
        System::Mac => home("Library/Application Support/tidings"),
        System::Other => path("XDG_DATA_HOME")
            .map(|data| data.join("tidings"))
            .or_else(|| root.then(|| "/var/lib/tidings".into()))
            .or_else(|| home(".local/share/tidings")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Variables = &'static [(&'static str, &'static str)];

    /// N-41: per system, for users, for root, and for services.
    #[test]
    fn directories() {
        let table: &[(System, bool, Variables, Option<&str>)] = &[
            (System::Other, false, &[("HOME", "/home/me")], Some("/home/me/.local/share/tidings")),
            (System::Other, false, &[("HOME", "/home/me"), ("XDG_DATA_HOME", "/data")], Some("/data/tidings")),
            (System::Other, false, &[("HOME", "/home/me"), ("XDG_DATA_HOME", "data")], Some("/home/me/.local/share/tidings")),
            (System::Other, false, &[("HOME", "/home/me"), ("XDG_DATA_HOME", "")], Some("/home/me/.local/share/tidings")),
            (System::Other, true, &[("HOME", "/root")], Some("/var/lib/tidings")),
            (System::Other, true, &[], Some("/var/lib/tidings")),
            (System::Other, true, &[("XDG_DATA_HOME", "/data")], Some("/data/tidings")),
            (System::Other, false, &[("STATE_DIRECTORY", "/var/lib/hub"), ("HOME", "/home/me")], Some("/var/lib/hub")),
            (System::Other, true, &[("STATE_DIRECTORY", "/var/lib/hub:/var/lib/other")], Some("/var/lib/hub")),
            // A service without a home: systemd gives such a one `/`.
            (System::Other, false, &[("HOME", "/")], None),
            (System::Other, false, &[("HOME", "")], None),
            (System::Other, false, &[], None),
            (System::Mac, false, &[("HOME", "/Users/me")], Some("/Users/me/Library/Application Support/tidings")),
            (System::Mac, true, &[("HOME", "/var/root")], Some("/Library/Application Support/tidings")),
            (System::Windows, false, &[("LOCALAPPDATA", "/Users/me/AppData/Local")], Some("/Users/me/AppData/Local/tidings")),
            (System::Windows, false, &[("HOME", "/home/me")], None),
        ];
        for (system, root, variables, expected) in table {
            let variable = |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| value.into());
            assert_eq!(directory(*system, *root, variable), expected.map(PathBuf::from), "{system:?} {root} {variables:?}");
        }
    }
}
