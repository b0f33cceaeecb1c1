//! The servers that are compared: how each is started on a free port in a directory of its own, and stopped again.
//!
//! It knows processes, not what is measured on them.

use anyhow::{Context, Result, anyhow, bail};
use std::{
    ffi::OsStr,
    fs::{self, File},
    io::{BufRead as _, BufReader},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc::channel,
    thread,
    time::{Duration, Instant},
};
use tempfile::TempDir;

/// A server by its name on the command line, and what it is.
pub(crate) const ALL: &[(&str, &str)] = &[
    ("floor", "one thread, one `send` for each subscriber and event"),
    ("floor-coalesce", "the floor with everything pending in one `send`"),
    ("one-writer", "one writer that appends to a file and syncs each record"),
    ("hyper", "hyper answering requests and nothing else"),
    ("hub", "`tidings serve`"),
    ("embedded", "the hub in an axum application, on axum's own sockets"),
    ("axum", "axum `Sse` over `tokio::sync::broadcast`"),
    ("nchan", "nginx with Nchan, one worker"),
    ("node", "`node:http`, a set of responses"),
];

const DEADLINE: Duration = Duration::from_secs(20);
/// Where Debian puts nginx' modules.
const NCHAN: &str = "/usr/lib/nginx/modules/ngx_nchan_module.so";

/// A running server. It is stopped when dropped.
pub(crate) struct Server {
    child: Child,
    pub(crate) url: String,
    stop: Option<Command>,
    folder: TempDir,
}

/// What has to be done before this server can run here; nothing for most.
pub(crate) fn missing(name: &str) -> Option<&'static str> {
    match name {
        "nchan" if !Path::new(NCHAN).exists() || program("nginx").is_none() => {
            Some("install nginx with Nchan: apt-get install nginx libnginx-mod-nchan")
        }
        "node" if program("node").is_none() => Some("install Node.js: apt-get install nodejs, or see nodejs.org"),
        _ => None,
    }
}

/// A program in the search path, or where distributions put daemons.
fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain([PathBuf::from("/usr/sbin")]);
    folders.map(|folder| folder.join(name)).find(|file| file.is_file())
}

/// A program that was built with this one.
pub(crate) fn built(name: &str) -> Result<PathBuf> {
    let own = std::env::current_exe()?;
    let file = own.with_file_name(name);
    if !file.is_file() {
        bail!("{} is missing: cargo build --release -p tidings-server -p tidings-bench, or use bench/compare", file.display());
    }
    Ok(file)
}

impl Server {
    /// Starts one, on these cores if any are named; `flags` are for those that are the hub.
    pub(crate) fn start(name: &str, flags: &[String], cores: Option<&str>) -> Result<Server> {
        let folder = tempfile::Builder::new().prefix("tidings-compare-").tempdir()?;
        let mut stop = None;
        let mut address = None;
        let command = match name {
            "floor" => Command::new(built("floor")?),
            "floor-coalesce" => with(built("floor")?, &["--coalesce"]),
            "hyper" => Command::new(built("baseline-hyper")?),
            "axum" => Command::new(built("baseline-axum")?),
            "embedded" => with(built("embedded")?, flags),
            "hub" => {
                // Nothing but what is loaded happens while it is measured.
                let mut command =
                    with(built("tidings")?, &["serve", "--listen", "127.0.0.1:0", "--max-age", "off", "--log-level", "error"]);
                if !flags.iter().any(|flag| ["--store", "--data"].contains(&&**flag)) {
                    command.args(["--store", "memory"]);
                }
                // What a run keeps on disk is gone with it.
                let data = folder.path().join("data");
                command.args(flags.iter().map(|flag| flag.replace("{data}", &data.display().to_string())));
                command
            }
            "node" => with(program("node").context("no node")?, &[concat!(env!("CARGO_MANIFEST_DIR"), "/baseline-node.mjs")]),
            "nchan" => {
                let port = free_port()?;
                address = Some(format!("127.0.0.1:{port}"));
                let config = folder.path().join("nginx.conf");
                fs::write(&config, nginx_config(port, folder.path()))?;
                let nginx = program("nginx").context("no nginx")?;
                let mut ending = Command::new(&nginx);
                ending.arg("-p").arg(folder.path()).arg("-c").arg(&config).args(["-s", "stop"]);
                stop = Some(ending);
                let mut command = Command::new(nginx);
                command.arg("-p").arg(folder.path()).arg("-c").arg(&config);
                command
            }
            _ => bail!("no server is called {name}"),
        };
        let mut command = on(cores, command);
        let said = File::create(folder.path().join("stderr"))?;
        let mut child =
            command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(said).spawn().with_context(|| format!("starting {name}"))?;
        let out = child.stdout.take().context("a pipe")?;
        let mut server = Server { child, url: String::new(), stop, folder };
        let found = match address {
            Some(address) => wait_for_port(&address).map(|()| format!("http://{address}")),
            None => wait_for_url(out),
        };
        server.url = found.map_err(|why| {
            let said = fs::read_to_string(server.folder.path().join("stderr")).unwrap_or_default();
            anyhow!("{name} did not start: {why}\n{said}")
        })?;
        Ok(server)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(stop) = &mut self.stop {
            let _ = stop.stdout(Stdio::null()).stderr(Stdio::null()).status();
            let until = Instant::now() + DEADLINE;
            while Instant::now() < until {
                if matches!(self.child.try_wait(), Ok(Some(_))) {
                    return;
                }
                thread::sleep(Duration::from_millis(20));
            }
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn with(program: PathBuf, args: &[impl AsRef<OsStr>]) -> Command {
    let mut command = Command::new(program);
    command.args(args);
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("TIDINGS_")) {
        command.env_remove(name);
    }
    command
}

/// The first half of the cores, and the second.
pub(crate) fn halves() -> Result<(String, String)> {
    let cores = thread::available_parallelism()?.get();
    if cores < 2 {
        bail!("one core cannot be divided");
    }
    Ok((format!("0-{}", cores / 2 - 1), format!("{}-{}", cores / 2, cores - 1)))
}

/// The same program on these cores alone.
pub(crate) fn on(cores: Option<&str>, command: Command) -> Command {
    let Some(cores) = cores else { return command };
    let mut kept = Command::new("taskset");
    kept.args(["--cpu-list", cores]).arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => kept.env(name, value),
            None => kept.env_remove(name),
        };
    }
    kept
}

fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

fn wait_for_port(address: &str) -> Result<()> {
    let until = Instant::now() + DEADLINE;
    while TcpStream::connect(address).is_err() {
        if Instant::now() > until {
            bail!("nobody listens on {address}");
        }
        thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// The address in the first line that names one; the rest of what is printed goes nowhere.
fn wait_for_url(out: impl std::io::Read + Send + 'static) -> Result<String> {
    let (send, receive) = channel();
    thread::spawn(move || {
        for line in BufReader::new(out).lines().map_while(Result::ok) {
            if let Some(url) = line.split_whitespace().find(|word| word.starts_with("http://")) {
                let _ = send.send(url.to_owned());
            }
        }
    });
    receive.recv_timeout(DEADLINE).map_err(|_| anyhow!("it printed no address"))
}

/// One worker, nothing logged, nothing outside the folder.
fn nginx_config(port: u16, folder: &Path) -> String {
    let folder = folder.display();
    let user = if fs::metadata("/proc/self").is_ok_and(|own| is_root(&own)) { "user root;" } else { "" };
    format!(
        "load_module {NCHAN};
{user}
daemon off;
worker_processes 1;
worker_rlimit_nofile 20000;
pid {folder}/pid;
error_log stderr error;
events {{ worker_connections 19900; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    keepalive_requests 1000000000;
    keepalive_timeout 1h;
    tcp_nodelay on;
    client_body_buffer_size 64k;
    nchan_shared_memory_size 512M;
    server {{
        listen 127.0.0.1:{port} backlog=65535;
        location ~ ^/subscribe/(.*)$ {{
            nchan_channel_id $1;
            nchan_subscriber eventsource;
            nchan_subscriber_first_message newest;
        }}
        location ~ ^/publish/(.*)$ {{
            nchan_channel_id $1;
            nchan_publisher;
            nchan_message_buffer_length 1000;
        }}
    }}
}}
"
    )
}

fn is_root(own: &fs::Metadata) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    own.uid() == 0
}
