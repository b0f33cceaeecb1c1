//! What the system knows of a server's processes: processor time, memory, and what became of connection attempts. Linux only; elsewhere
//! nothing is known.

use std::{collections::BTreeSet, fs, path::Path};

/// A server's processes: those named, and what they have started.
#[derive(Clone, Debug, Default)]
pub(super) struct Family(BTreeSet<u32>);

/// Processor time so far, in seconds.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Cpu {
    pub(super) total: f64,
    pub(super) user: f64,
    pub(super) system: f64,
}

impl Cpu {
    pub(super) fn since(self, earlier: Cpu) -> Cpu {
        Cpu { total: self.total - earlier.total, user: self.user - earlier.user, system: self.system - earlier.system }
    }
}

/// Counters of the network, since the system started.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Network {
    pub(super) syn_retransmits: u64,
    pub(super) listen_overflows: u64,
}

/// Clock ticks a second in `/proc`, on every Linux.
const TICKS: f64 = 100.0;

/// The fields of `/proc/PID/stat` behind the name, which may hold anything.
fn stat(path: &Path) -> Option<Vec<u64>> {
    let text = fs::read_to_string(path).ok()?;
    let (_, fields) = text.rsplit_once(") ")?;
    Some(fields.split_whitespace().skip(1).map(|field| field.parse().unwrap_or(0)).collect())
}

impl Family {
    pub(super) fn of(pids: &[u32]) -> Family {
        let mut family: BTreeSet<u32> = pids.iter().copied().collect();
        let all: Vec<(u32, u32)> =
            processes().filter_map(|pid| Some((pid, *stat(format!("/proc/{pid}/stat").as_ref())?.first()? as u32))).collect();
        loop {
            let before = family.len();
            for (pid, parent) in &all {
                if family.contains(parent) {
                    family.insert(*pid);
                }
            }
            if family.len() == before {
                return Family(family);
            }
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn cpu(&self) -> Cpu {
        let mut cpu = Cpu::default();
        for pid in &self.0 {
            let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else { continue };
            for task in tasks.flatten() {
                cpu.total += on_cpu(&task.path().join("schedstat"));
            }
            if let Some(stat) = stat(format!("/proc/{pid}/stat").as_ref()) {
                cpu.user += stat.get(10).map_or(0.0, |&ticks| ticks as f64 / TICKS);
                cpu.system += stat.get(11).map_or(0.0, |&ticks| ticks as f64 / TICKS);
            }
        }
        cpu
    }

    /// Proportional set size, in bytes.
    pub(super) fn pss(&self) -> u64 {
        let of = |pid: &u32| {
            let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
            let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:"))?;
            line.split_whitespace().next()?.parse::<u64>().ok()
        };
        self.0.iter().filter_map(of).sum::<u64>() * 1_024
    }
}

fn processes() -> impl Iterator<Item = u32> {
    fs::read_dir("/proc").into_iter().flatten().flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// Seconds a task has run.
fn on_cpu(path: &Path) -> f64 {
    let nanoseconds = fs::read_to_string(path).ok().and_then(|text| text.split(' ').next()?.parse::<f64>().ok());
    nanoseconds.unwrap_or(0.0) / 1e9
}

/// Time the kernel's own threads spent on network work that nobody else is charged for.
pub(super) fn ksoftirqd() -> f64 {
    let is_one = |pid: &u32| fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.starts_with("ksoftirqd"));
    processes().filter(is_one).map(|pid| on_cpu(format!("/proc/{pid}/schedstat").as_ref())).sum()
}

/// This process and those it started.
pub(super) fn own() -> Family {
    Family::of(&[std::process::id()])
}

pub(super) fn network() -> Network {
    let text = fs::read_to_string("/proc/net/netstat").unwrap_or_default();
    let mut lines = text.lines().filter_map(|line| line.strip_prefix("TcpExt: "));
    let (names, values) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
    let value = |name: &str| {
        let at = names.split(' ').position(|other| other == name)?;
        values.split(' ').nth(at)?.parse().ok()
    };
    Network { syn_retransmits: value("TCPSynRetrans").unwrap_or(0), listen_overflows: value("ListenOverflows").unwrap_or(0) }
}
