//! Third-party programs as services and as visitors: databases, shells, resolvers.
//!
//! `. ci/tools; need_programs` installs them; a test fails with a message if its program is missing.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use tempfile::TempDir;
use tokio::net::TcpStream;

use crate::{Process, Run, eventually, own_address, run_program};

/// The time that a database may take to start, and a benchmark to run, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// The path of a program.
///
/// # Panics
/// Panics when the program is not installed.
#[must_use]
pub fn program(name: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let places = std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin", "/usr/lib/postgresql/15/bin"].map(PathBuf::from))
        .chain(newest_postgres());
    places
        .map(|place| place.join(name))
        .find(|file| file.is_file())
        .unwrap_or_else(|| {
            panic!("{name} is not installed: run `. ci/tools; need_programs` in the workspace")
        })
}

fn newest_postgres() -> Vec<PathBuf> {
    let mut found: Vec<_> = fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten()
        .map(|version| version.path().join("bin"))
        .collect();
    found.sort();
    found.reverse();
    found
}

/// Runs an installed program to its end.
///
/// # Panics
/// Panics when the program is missing, fails, or does not end in time.
pub async fn ran(name: &str, args: &[&str], env: &[(&str, &str)], dir: &Path) -> Run {
    let run = run_program(&program(name), args, env, dir, PATIENCE).await;
    assert_eq!(
        run.code,
        Some(0),
        "{name} {args:?}\n{}\n{}",
        run.stdout,
        run.stderr
    );
    run
}

/// A third-party service. Killed when dropped.
#[derive(Debug)]
pub struct Program {
    process: Process,
    /// The address of the program.
    pub addr: SocketAddr,
    /// The files of the program; other users can read the directory.
    pub dir: TempDir,
}

impl Program {
    async fn start(
        name: &str,
        port: u16,
        args: impl FnOnce(Ipv4Addr, &Path) -> Vec<String>,
    ) -> Self {
        let dir = open_dir();
        let ip = own_address();
        let args = args(ip, dir.path());
        let addr = SocketAddr::from((ip, port));
        let process = Process::spawn(name, &program(name), &args, &[], dir.path());
        let mut program = Self { process, addr, dir };
        program.listening().await;
        program
    }

    async fn listening(&mut self) {
        let addr = self.addr;
        eventually("a listening service", PATIENCE, async || {
            self.process.assert_running();
            TcpStream::connect(addr).await.ok().map(drop)
        })
        .await;
    }

    /// The process of the program.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// A key-value store.
    pub async fn redis() -> Self {
        Self::start("redis-server", 6379, |ip, dir| {
            let dir = dir.display().to_string();
            let args = format!("--bind {ip} --port 6379 --save --appendonly no --dir {dir}");
            args.split(' ').map(String::from).collect()
        })
        .await
    }

    /// A server for throughput measurements.
    pub async fn iperf3() -> Self {
        Self::start("iperf3", 5201, |ip, _| {
            ["-s", "-B", &ip.to_string(), "-p", "5201"]
                .map(String::from)
                .to_vec()
        })
        .await
    }

    /// A resolver that resolves `host-N.test` for N below 100 with 192.0.2.N.
    pub async fn resolver() -> Self {
        Self::start("dnsmasq", 5300, |ip, _| {
            let mut args: Vec<_> = [
                "--keep-in-foreground",
                "--no-resolv",
                "--no-hosts",
                "--bind-interfaces",
                "--port=5300",
                "--conf-file=/dev/null",
                "--pid-file=",
                "--user=root",
            ]
            .map(String::from)
            .to_vec();
            args.push(format!("--listen-address={ip}"));
            args.extend((0..100).map(|n| format!("--address=/host-{n}.test/192.0.2.{n}")));
            args
        })
        .await
    }

    /// A database of the user `postgres` without a password.
    ///
    /// # Panics
    /// Panics when the database cannot be created.
    pub async fn postgres() -> Self {
        let dir = open_dir();
        let data = dir.path().join("data");
        let data = data.display().to_string();
        let ip = own_address();
        let is_root = fs::metadata("/proc/self").is_ok_and(|this| this.uid() == 0);
        if is_root {
            // PostgreSQL refuses to run as root.
            fs::create_dir(&data).expect("a directory");
            let owned = Command::new("chown").args(["postgres", &data]).status();
            assert!(owned.is_ok_and(|status| status.success()), "chown postgres");
        }
        let as_itself = |name: &str, args: &[&str]| {
            let mut line = Vec::new();
            if is_root {
                line.extend(["setpriv", "--reuid=postgres", "--regid=postgres"]);
                line.extend(["--clear-groups", "--"]);
            }
            let found = program(name).display().to_string();
            let mut line: Vec<_> = line.into_iter().map(String::from).collect();
            line.push(found);
            line.extend(args.iter().map(ToString::to_string));
            line
        };
        let initdb = ["-D", &data, "-U", "postgres", "-A", "trust", "-N"];
        let made = as_itself("initdb", &initdb);
        let args: Vec<_> = made.iter().skip(1).map(String::as_str).collect();
        ran(&made[0], &args, &[("LC_ALL", "C")], dir.path()).await;
        let listen = format!("listen_addresses={ip}");
        let postgres = [
            "-D",
            &data,
            "-p",
            "5432",
            "-c",
            &listen,
            "-c",
            "unix_socket_directories=",
            "-c",
            "fsync=off",
            "-c",
            "max_connections=50",
        ];
        let started = as_itself("postgres", &postgres);
        let env = [("LC_ALL".to_owned(), "C".to_owned())];
        let process = Process::spawn(
            "postgres",
            &program(&started[0]),
            &started[1..],
            &env,
            dir.path(),
        );
        let addr = SocketAddr::from((ip, 5432));
        let mut program = Self { process, addr, dir };
        // It listens before it serves.
        eventually("a database", PATIENCE, async || {
            program.process.assert_running();
            let log = program.process.stderr();
            log.contains("ready to accept connections").then_some(())
        })
        .await;
        program
    }

    /// A shell server that accepts the key in the file `key` of its directory.
    pub async fn sshd() -> Self {
        let dir = open_dir();
        let ip = own_address();
        for name in ["host", "key"] {
            let file = dir.path().join(name).display().to_string();
            let args = ["-q", "-t", "ed25519", "-N", "", "-f", &file];
            ran("ssh-keygen", &args, &[], dir.path()).await;
        }
        let path = |name: &str| dir.path().join(name).display().to_string();
        let config = format!(
            "ListenAddress {ip}:2200\nHostKey {}\nAuthorizedKeysFile {}\nStrictModes no\nUsePAM no\n\
             PidFile none\nPasswordAuthentication no\nPermitRootLogin yes\nMaxStartups 50\n\
             Subsystem sftp internal-sftp\n",
            path("host"),
            path("key.pub"),
        );
        fs::write(path("sshd_config"), config).expect("a config file");
        // The directory that sshd needs to drop its privileges; the service of the package creates it at its start.
        if fs::metadata("/proc/self").is_ok_and(|this| this.uid() == 0) {
            fs::create_dir_all("/run/sshd").expect("a directory");
        }
        let args = ["-D", "-e", "-f", &path("sshd_config")].map(String::from);
        let process = Process::spawn("sshd", &program("sshd"), &args, &[], dir.path());
        let addr = SocketAddr::from((ip, 2200));
        let mut program = Self { process, addr, dir };
        program.listening().await;
        program
    }
}

/// A directory that other users can read.
fn open_dir() -> TempDir {
    let dir = tempfile::tempdir().expect("a directory");
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).expect("permissions");
    dir
}
