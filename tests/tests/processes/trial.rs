//! Three parties as real processes, with keys and a configuration of their own.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use selkie::Role;
use selkie_server::config::Cluster;
use selkie_server::onnx;
use selkie_server::train::Net;
use serde_json::Value;

/// Longer than anything here takes on a busy machine.
pub(crate) const LONG: Duration = Duration::from_secs(60);

/// The program under test, beside this test's own executable.
pub(crate) fn selkie() -> PathBuf {
    let tests = std::env::current_exe().unwrap();
    let program = tests.parent().unwrap().parent().unwrap().join("selkie");
    assert!(program.exists(), "{} is missing: build it with `cargo build -p selkie-server`", program.display());
    program
}

/// A directory with keys, a configuration, a model and images; and the processes that run in it.
pub(crate) struct Trial {
    pub(crate) directory: tempfile::TempDir,
    running: BTreeMap<&'static str, Child>,
}

/// How a command ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl From<Output> for Ended {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

impl Ended {
    /// Whether it ended with this code, and what it said on standard error contains all of these.
    pub(crate) fn is(&self, code: i32, says: &[&str]) -> &Self {
        assert_eq!(self.code, code, "{self:?}");
        for text in says {
            assert!(self.err.contains(text), "{text:?} is missing in {self:?}");
        }
        self
    }

    pub(crate) fn json(&self) -> Value {
        assert_eq!(self.code, 0, "{self:?}");
        serde_json::from_str(&self.out).unwrap()
    }
}

impl Trial {
    /// Keys and configuration, a random network A, and 256 images of noise.
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let trial = Self { directory, running: BTreeMap::new() };
        trial.run(&["init", "--local", "--dir", "."]).is(0, &[]);
        fs::write(trial.path("model.onnx"), onnx::write(&Net::A.untrained(7)).unwrap()).unwrap();
        fs::write(trial.path("other.onnx"), onnx::write(&Net::A.untrained(8)).unwrap()).unwrap();
        let mut images = vec![0, 0, 8, 3, 0, 0, 1, 0, 0, 0, 0, 28, 0, 0, 0, 28];
        let noise = (0..256u64 * 784).map(|i| (i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8);
        images.extend(noise);
        fs::write(trial.path("images"), images).unwrap();
        trial
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn cluster(&self) -> Cluster {
        Cluster::load(&self.path("cluster.toml")).unwrap()
    }

    pub(crate) fn address(&self, role: Role) -> String {
        self.cluster().party(role).address.to_string()
    }

    /// Changes one thing in the configuration.
    pub(crate) fn configure(&self, from: &str, to: &str) {
        let path = self.path("cluster.toml");
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains(from), "{from}");
        fs::write(path, text.replacen(from, to, 1)).unwrap();
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(selkie());
        command.args(args).current_dir(self.directory.path()).env_remove("SELKIE_KEY").env("SELKIE_LOG", "info");
        command.stdin(Stdio::null());
        command
    }

    /// Runs a command to its end, within [`LONG`].
    pub(crate) fn run(&self, args: &[&str]) -> Ended {
        self.start(args).wait()
    }

    /// Starts a command.
    pub(crate) fn start(&self, args: &[&str]) -> Started {
        let child = self.command(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        Started { child: Some(child) }
    }

    /// `selkie predict`, of images in the trial's directory.
    pub(crate) fn predict(&self, extra: &[&str]) -> Ended {
        let mut args = vec!["predict", "--config", "cluster.toml", "--images", "images", "--json"];
        args.extend(extra);
        self.run(&args)
    }

    pub(crate) fn deploy(&self, model: &str, name: &str) -> Ended {
        // SecureNN takes long enough for a party to be killed in the middle of it.
        self.run(&["deploy", model, "--name", name, "--config", "cluster.toml", "--protocol", "securenn"])
    }

    /// Starts a party; its log goes to a file.
    pub(crate) fn party(&mut self, role: Role) {
        self.party_with(role, "cluster.toml");
    }

    /// The same with another configuration.
    pub(crate) fn party_with(&mut self, role: Role, config: &str) {
        let log = File::options().create(true).append(true).open(self.path(&format!("{role}.log"))).unwrap();
        let mut command = self.command(&[role.name(), "--config", config]);
        let child = command.stdout(Stdio::null()).stderr(log).spawn().unwrap();
        assert!(self.running.insert(role.name(), child).is_none());
    }

    pub(crate) fn parties(&mut self) {
        Role::ALL.into_iter().for_each(|role| self.party(role));
    }

    /// Kills a party, as a power cut would.
    pub(crate) fn kill(&mut self, role: Role) {
        let mut child = self.running.remove(role.name()).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Asks a party to stop (SIGTERM), and says how it ended.
    pub(crate) fn terminate(&mut self, role: Role) -> i32 {
        let mut child = self.running.remove(role.name()).unwrap();
        let sent = Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap();
        assert!(sent.success());
        wait(&mut child).code().unwrap_or(-1)
    }

    /// Stops a party without ending it, or lets it go on.
    pub(crate) fn signal(&self, role: Role, signal: &str) {
        let id = self.id(role).to_string();
        assert!(Command::new("kill").args([signal, &id]).status().unwrap().success());
    }

    /// A party's process.
    pub(crate) fn id(&self, role: Role) -> u32 {
        self.running[role.name()].id()
    }

    pub(crate) fn log(&self, role: Role) -> String {
        fs::read_to_string(self.path(&format!("{role}.log"))).unwrap_or_default()
    }

    /// What a party says of itself; null while it is not there.
    pub(crate) fn health(&self, role: Role) -> Value {
        http(&self.address(role), "/healthz").map_or(Value::Null, |body| serde_json::from_str(&body).unwrap())
    }

    /// Waits until something is so.
    pub(crate) fn until(&self, what: &str, mut holds: impl FnMut(&Self) -> bool) {
        let start = Instant::now();
        while !holds(self) {
            if start.elapsed() > LONG {
                let logs = Role::ALL.map(|role| self.log(role)).join("\n---\n");
                panic!("not within {LONG:?}: {what}\n{logs}");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// The epoch in which all three parties are; waits for it, and for `models` models to be ready at both servers.
    pub(crate) fn epoch(&self, models: usize) -> String {
        let epochs = |trial: &Self| Role::ALL.map(|role| trial.health(role)["epoch"].clone());
        let ready = |trial: &Self, role| {
            let health = trial.health(role);
            health["models"].as_array().is_some_and(|all| all.iter().filter(|m| m["ready"] == true).count() >= models)
        };
        self.until("one epoch, and the models are ready", |trial| {
            let [a, b, c] = epochs(trial);
            a.is_string() && a == b && b == c && ready(trial, Role::Server0) && ready(trial, Role::Server1)
        });
        epochs(self)[0].as_str().unwrap().to_owned()
    }
}

impl Drop for Trial {
    fn drop(&mut self) {
        for child in self.running.values_mut() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// A command that runs.
pub(crate) struct Started {
    child: Option<Child>,
}

impl Started {
    /// Whether it has ended already, so that nobody waits for what it will never do.
    pub(crate) fn has_ended(&mut self) -> bool {
        self.child.as_mut().is_none_or(|child| child.try_wait().unwrap().is_some())
    }

    /// Waits for its end.
    pub(crate) fn wait(mut self) -> Ended {
        let mut child = self.child.take().unwrap();
        let (mut out, mut err) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
        // Both are read beside the waiting, so that a full pipe stops nobody.
        let out = std::thread::spawn(move || read(&mut out));
        let err = std::thread::spawn(move || read(&mut err));
        let status = wait(&mut child);
        Ended { code: status.code().unwrap_or(-1), out: out.join().unwrap(), err: err.join().unwrap() }
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn read(from: &mut impl Read) -> String {
    let mut bytes = Vec::new();
    from.read_to_end(&mut bytes).unwrap();
    String::from_utf8_lossy(&bytes).into_owned()
}

fn wait(child: &mut Child) -> std::process::ExitStatus {
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        if start.elapsed() > LONG {
            let _ = child.kill();
            panic!("process {} did not end within {LONG:?}", child.id());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The body of a page; `None`: nobody answers.
pub(crate) fn http(address: &str, path: &str) -> Option<String> {
    request(address, path).map(|answer| answer.split_once("\r\n\r\n").unwrap_or_default().1.to_owned())
}

/// A whole answer, headers first.
pub(crate) fn request(address: &str, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").ok()?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).ok()?;
    Some(String::from_utf8_lossy(&answer).into_owned())
}

/// Copies a file.
pub(crate) fn copy(from: &Path, to: &Path) {
    fs::copy(from, to).unwrap();
}
