//! How far a run is, on standard error: a bar that draws itself again on a terminal, a line a second elsewhere. It knows no figures but what
//! it is told to show.

use std::{
    io::{IsTerminal as _, Write as _, stderr},
    time::{Duration, Instant},
};

/// How often the bar is drawn, and how often a line is printed where there is no terminal.
const BAR: Duration = Duration::from_millis(200);
const LINE: Duration = Duration::from_secs(1);
const WIDTH: usize = 24;

#[derive(Debug)]
pub(super) struct Progress {
    shown: bool,
    terminal: bool,
    next: Option<Instant>,
}

impl Progress {
    /// Shown on a terminal, and elsewhere if it is asked for.
    pub(super) fn new(asked: bool) -> Progress {
        let terminal = stderr().is_terminal();
        Progress { shown: asked || terminal, terminal, next: None }
    }

    /// Shows how far it is, from 0 to 1, if it is time to. The text is made only then.
    pub(super) fn show(&mut self, part: f64, text: impl FnOnce() -> String) {
        let now = Instant::now();
        if self.shown && self.next.is_none_or(|next| now >= next) {
            self.next = Some(now + if self.terminal { BAR } else { LINE });
            let (begin, end) = if self.terminal { ("\r", "\x1b[K") } else { ("", "\n") };
            let _ = write!(stderr(), "{begin}{} {}{end}", bar(part), text());
            let _ = stderr().flush();
        }
    }

    /// One line that stays.
    pub(super) fn say(&mut self, text: &str) {
        if self.shown {
            self.clear();
            eprintln!("{text}");
        }
    }

    /// Takes the bar away.
    pub(super) fn clear(&mut self) {
        if self.shown && self.terminal {
            eprint!("\r\x1b[K");
        }
        self.next = None;
    }
}

impl Drop for Progress {
    /// Errors are printed where the bar was.
    fn drop(&mut self) {
        self.clear();
    }
}

fn bar(part: f64) -> String {
    let filled = ((part.clamp(0.0, 1.0) * WIDTH as f64) as usize).min(WIDTH);
    format!("[{}{}] {:>3.0} %", "=".repeat(filled), " ".repeat(WIDTH - filled), part.clamp(0.0, 1.0) * 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars() {
        assert_eq!(bar(0.0), format!("[{}]   0 %", " ".repeat(WIDTH)));
        assert_eq!(bar(0.5), format!("[{}{}]  50 %", "=".repeat(12), " ".repeat(12)));
        assert_eq!(bar(7.0), format!("[{}] 100 %", "=".repeat(WIDTH)));
    }
}
