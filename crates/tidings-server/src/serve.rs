//! `tidings serve`: builds the hub, listens, and stops when asked (N-30, N-42).
//!
//! It wires and waits; requests, limits and streams are the library's.

use crate::{
    Failure,
    logging::{self, Logs},
    settings::Settings,
    signals::Signals,
    text,
};
use std::{
    io::{self, Write as _},
    net::SocketAddr,
    pin::pin,
    sync::Arc,
    time::Duration,
};
use tidings::{DiskStore, Hub, OpenError, StartError, serve::Server};
use tokio::sync::oneshot;
use tracing::{info, warn};

/// A key that is shorter can be guessed by trying.
const KEY_BYTES: usize = 16;

/// How long the disk may take for the end of the log.
const CLOSING: Duration = Duration::from_secs(10);

/// Runs a hub until it is told to stop.
pub(crate) fn run(settings: Settings) -> Result<(), Failure> {
    let logs = logging::start(&settings.log_level, settings.log_json).map_err(Failure::Usage)?;
    if let Err(error) = tidings::serve::raise_open_files_limit() {
        warn!("the limit on open files could not be raised: {error}");
    }
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    if std::env::var_os("TOKIO_WORKER_THREADS").is_none() {
        runtime.worker_threads(http_threads());
    }
    let runtime = runtime.enable_all().build();
    let runtime = runtime.map_err(|error| Failure::Running(format!("cannot start threads: {error}")))?;
    // On one of the runtime's own threads: from outside every accepted connection would have to wake one.
    let serving = runtime.spawn(serve(settings, logs));
    let ended = runtime.block_on(serving).unwrap_or_else(|error| Err(Failure::Running(format!("the server failed: {error}"))));
    // Whatever still runs has had its time; nothing may keep a stopped hub alive.
    runtime.shutdown_background();
    ended
}

async fn serve(settings: Settings, logs: Logs) -> Result<(), Failure> {
    let Settings { hub: mut config, listen, .. } = settings.clone();
    let drain_hard = config.drain_hard;
    let signals = Signals::new(logs).map_err(|error| Failure::Running(format!("cannot watch for signals: {error}")))?;
    let server = Server::new(&config);
    let store = open_store(&settings).await?;
    let listener = tidings::serve::bind(listen).map_err(|error| cannot_listen(listen, &error))?;
    let bound = listener.local_addr().map_err(|error| cannot_listen(listen, &error))?;
    // M-73: a hub that was told no name of its own is called after where it listens.
    config.listen = Some(bound);
    let mut hub = Hub::builder().config(config);
    if let Some(store) = store.clone() {
        hub = hub.store(store);
    }
    let hub = hub.build().map_err(cannot_start)?;
    let service = hub.service().check_host(vec![bound.to_string()]);
    let (stop, stopped) = oneshot::channel::<()>();
    let serving = server.serve(listener, service, async { stopped.await.unwrap_or_default() });
    announce(&settings, &server, bound);

    let ended = until_stopped(signals, hub, serving, stop, drain_hard).await;
    close(store).await;
    ended
}

/// Serves until a signal, and then until everybody is served or the time is over.
async fn until_stopped(
    mut signals: Signals,
    hub: Hub,
    serving: impl Future<Output = io::Result<()>>,
    stop: oneshot::Sender<()>,
    drain_hard: Duration,
) -> Result<(), Failure> {
    let mut serving = pin!(serving);
    tokio::select! {
        ended = &mut serving => return finished(ended),
        signal = signals.stop() => info!("{signal}: draining, for at most {drain_hard:?}; a second signal stops at once"),
    }
    // The listener stays open while streams end, so that readers who come meanwhile are told when to come back (N-16).
    let drain = async {
        hub.shut_down(drain_hard).await;
        let _ = stop.send(());
    };
    let drained = tokio::time::timeout(drain_hard, async { tokio::join!(drain, serving).1 });
    tokio::select! {
        ended = drained => ended.map_or_else(
            |_| {
                warn!("stopped after {drain_hard:?} with requests still under way");
                Ok(())
            },
            finished,
        ),
        signal = signals.stop() => Err(Failure::Running(format!("{signal}: stopped at once, before all requests had ended"))),
    }
}

/// The log on disk, if there is to be one. A crash may have left much to read.
async fn open_store(settings: &Settings) -> Result<Option<Arc<DiskStore>>, Failure> {
    let Some((data, options)) = settings.disk().map_err(Failure::Usage)? else { return Ok(None) };
    let opening = tokio::task::spawn_blocking(move || DiskStore::open(data, options));
    let store = opening.await.map_err(|error| Failure::Running(format!("the log could not be opened: {error}")))?;
    store.map(|store| Some(Arc::new(store))).map_err(|error| Failure::Running(cannot_open(&error)))
}

fn cannot_open(error: &OpenError) -> String {
    const ELSEWHERE: &str = "choose another with --data DIR, or keep events in memory only with --store memory";
    match error {
        OpenError::InUse { path, by } => {
            format!("the data directory {path} is used by another hub, process {by}: two cannot share one; stop it, {ELSEWHERE}")
        }
        error => format!("{error}; {ELSEWHERE}"),
    }
}

/// Ends the log properly, so that the next start need not read it through. A disk that hangs must not keep a stopped hub alive.
async fn close(store: Option<Arc<DiskStore>>) {
    let Some(store) = store else { return };
    let closing = tokio::task::spawn_blocking(move || store.close());
    if tokio::time::timeout(CLOSING, closing).await.is_err() {
        warn!("the log was not closed within {CLOSING:?}; the next start reads its newest part through");
    }
}

fn finished(ended: io::Result<()>) -> Result<(), Failure> {
    ended.map_err(|error| Failure::Running(format!("serving failed: {error}")))?;
    info!("stopped");
    Ok(())
}

/// The one line of N-42, and what an operator should know from the start.
fn announce(settings: &Settings, server: &Server, bound: SocketAddr) {
    // Nobody may be reading standard output, and the hub serves all the same.
    let mut out = io::stdout();
    let kept = settings.disk().ok().flatten();
    let place = kept.as_ref().map_or("memory".into(), |(data, _)| text::printable(&data.display().to_string()).into_owned());
    let _ = writeln!(out, "tidings listening on http://{bound} (events in {place})").and_then(|()| out.flush());
    info!("at most {} connections", server.connection_limit());
    for note in &settings.notes {
        warn!("{note}");
    }
    if settings.is_open() {
        warn!("access is open: anybody who can reach {bound} may publish and subscribe; set publish-key to guard publishing");
    }
    if settings.hub.publish_keys.iter().any(|key| key.expose().len() < KEY_BYTES) {
        warn!("a publisher key has fewer than {KEY_BYTES} characters and can be guessed; make one with: openssl rand -hex 32");
    }
    match kept {
        Some((data, options)) => info!("events are kept in {} ({:?})", data.display(), options.durability),
        None => info!("events are kept in memory only: after a restart readers are told that earlier ones are gone"),
    }
}

fn cannot_start(error: StartError) -> Failure {
    match error {
        StartError::Setting { .. } => Failure::Usage(error.to_string()),
        _ => Failure::Running(format!("cannot start the hub: {error}")),
    }
}

fn cannot_listen(address: SocketAddr, error: &io::Error) -> Failure {
    let advice = match error.kind() {
        io::ErrorKind::AddrInUse => "; another program listens there, perhaps another hub: stop it, or choose with --listen",
        io::ErrorKind::PermissionDenied => "; ports below 1024 need a privilege: choose another with --listen",
        io::ErrorKind::AddrNotAvailable => "; this machine has no such address: choose another with --listen",
        _ => "",
    };
    Failure::Running(format!("cannot listen on {address}: {error}{advice}"))
}

/// Threads for HTTP: half as many as cores. The shards have a thread for each core already, and threads that take requests from one another cost
/// more than they bring: with two of them on two cores a publish took twice the CPU that it takes with one, at the same rate.
fn http_threads() -> usize {
    (std::thread::available_parallelism().map_or(1, std::num::NonZero::get) / 2).max(1)
}
