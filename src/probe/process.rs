//! Client programs as children that never outlive us, whose last words are kept, and that end in time.

use std::collections::VecDeque;
use std::future::Future;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::{ChildStdin, ChildStdout, Command};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

use super::Error;

/// Lines of a child's standard error that are kept for the report when it fails.
const SAID_LINES: usize = 40;
/// A child's end may be seen before its last words are read, which are there already.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// A running client program. Dropping it kills it.
#[derive(Debug)]
pub struct Process {
    program: String,
    child: tokio::process::Child,
    said: Log<VecDeque<String>>,
    /// Reads what it says, until nobody can say any more.
    reader: Option<JoinHandle<()>>,
}

impl Process {
    /// Starts `program` with its three standard streams piped to us, in a process group of its own, so that
    /// a Ctrl-C on the terminal reaches us alone and we end our children in our order.
    ///
    /// # Errors
    /// [`Error::Missing`] when the program is not installed.
    pub fn spawn<S: AsRef<str>>(program: &str, args: &[S]) -> Result<Self, Error> {
        let (mut process, stderr) = Self::spawn_with_stderr(program, args)?;
        process.keep_lines(stderr, |_| ());
        Ok(process)
    }

    /// As [`spawn`](Self::spawn), and hands every line of standard error to `each` as well.
    ///
    /// # Errors
    /// [`Error::Missing`] when the program is not installed.
    pub(super) fn spawn_listening<S: AsRef<str>>(
        program: &str,
        args: &[S],
        each: impl FnMut(&str) + Send + 'static,
    ) -> Result<Self, Error> {
        let (mut process, stderr) = Self::spawn_with_stderr(program, args)?;
        process.keep_lines(stderr, each);
        Ok(process)
    }

    fn spawn_with_stderr<S: AsRef<str>>(
        program: &str,
        args: &[S],
    ) -> Result<(Self, impl AsyncRead + Send + Unpin + 'static), Error> {
        let mut child = Command::new(program)
            .args(args.iter().map(AsRef::as_ref))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .process_group(0)
            .spawn()
            .map_err(|source| match source.kind() {
                std::io::ErrorKind::NotFound => Error::Missing {
                    program: program.to_owned(),
                    package: package_of(program),
                },
                _ => Error::io(format!("cannot start {program}"), source),
            })?;
        let stderr = child.stderr.take().ok_or_else(|| {
            Error::io(
                format!("standard error of {program}"),
                std::io::ErrorKind::BrokenPipe.into(),
            )
        })?;
        let process = Self {
            program: program.to_owned(),
            child,
            said: Log::default(),
            reader: None,
        };
        Ok((process, stderr))
    }

    fn keep_lines(
        &mut self,
        stderr: impl AsyncRead + Send + Unpin + 'static,
        mut each: impl FnMut(&str) + Send + 'static,
    ) {
        let said = self.said.clone();
        // Ends by itself with the child, whose end closes the pipe.
        let reader = tokio::spawn(async move {
            let mut lines = BufReader::new(stderr).split(b'\n');
            while let Ok(Some(line)) = lines.next_segment().await {
                let line = String::from_utf8_lossy(&line);
                let line = line.trim_end();
                each(line);
                said.change(|said| {
                    if said.len() == SAID_LINES {
                        said.pop_front();
                    }
                    said.push_back(line.to_owned());
                });
            }
        });
        self.reader = Some(reader);
    }

    pub fn id(&self) -> Option<u32> {
        self.child.id()
    }

    /// The last lines that the program wrote to standard error.
    pub fn said(&self) -> String {
        Vec::from_iter(self.said.lock().iter().cloned()).join("\n")
    }

    /// The writing end of its standard input, once. Dropping that end is an end of file for the program.
    pub fn stdin(&mut self) -> Option<ChildStdin> {
        self.child.stdin.take()
    }

    /// The reading end of its standard output, once.
    pub fn stdout(&mut self) -> Option<ChildStdout> {
        self.child.stdout.take()
    }

    /// How it ended; `None` while it runs.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Waits until it has ended by itself, and all that it [said](Self::said) is read.
    ///
    /// # Errors
    /// [`Error::Deadline`] when it still runs after `within`.
    pub async fn end(&mut self, within: Duration) -> Result<ExitStatus, Error> {
        match timeout(within, self.child.wait()).await {
            Ok(Ok(status)) => {
                if let Some(reader) = self.reader.take() {
                    // Who outlives it may hold the pipe open for as long as he likes, and is read on.
                    let _ = timeout(LAST_WORDS, reader).await;
                }
                Ok(status)
            }
            Ok(Err(source)) => Err(Error::io(format!("waiting for {}", self.program), source)),
            Err(_) => Err(Error::Deadline {
                what: format!(
                    "the end of {}, which last said:\n{}\n",
                    self.program,
                    self.said()
                ),
                within,
            }),
        }
    }

    /// Waits for a successful end.
    ///
    /// # Errors
    /// [`Error::Ended`] when it failed, with its last words; [`Error::Deadline`] when it still runs.
    pub async fn success(&mut self, within: Duration) -> Result<(), Error> {
        let status = self.end(within).await?;
        if status.success() {
            return Ok(());
        }
        Err(self.failure(status))
    }

    /// The error for an end that should not have come.
    pub fn failure(&self, status: ExitStatus) -> Error {
        Error::Ended {
            program: self.program.clone(),
            status: status.to_string(),
            said: self.said(),
        }
    }

    /// Sends it a signal, by its name without SIG: `STOP`.
    ///
    /// # Errors
    /// [`Error::Wrong`] when its end has been seen; [`Error::Ended`] when kill(1) fails.
    pub async fn signal(&self, name: &str) -> Result<(), Error> {
        match self.id() {
            Some(id) => signal(name, id).await,
            None => Err(Error::Wrong(format!("{} has ended", self.program))),
        }
    }

    /// Kills it at once, as a crash would, and waits until it is gone.
    pub async fn kill(&mut self) {
        // An error means that it is gone already, which is what is wanted.
        let _ = self.child.kill().await;
    }

    /// Asks it to end (SIGINT, what ffmpeg takes for `q`), kills it when it does not within `within`.
    pub async fn interrupt(&mut self, within: Duration) {
        // An error means that it has ended already, or that it is killed below.
        let _ = self.signal("INT").await;
        if timeout(within, self.child.wait()).await.is_err() {
            self.kill().await;
        }
    }
}

/// Sends a signal, by its name without SIG, to the process with that id. Through kill(1): the system call would need `unsafe`
/// or one more crate.
///
/// # Errors
/// [`Error::Ended`] when there is no such process.
pub async fn signal(name: &str, id: impl std::fmt::Display) -> Result<(), Error> {
    const SENT_WITHIN: Duration = Duration::from_secs(5);
    let kill = format!("kill -{name} {id}");
    output("sh", &["-c", &kill], SENT_WITHIN).await?;
    Ok(())
}

/// Runs `program` to its end and returns its standard output.
///
/// # Errors
/// [`Error::Missing`], [`Error::Ended`] when it fails, [`Error::Deadline`].
pub async fn output<S: AsRef<str>>(
    program: &str,
    args: &[S],
    within: Duration,
) -> Result<Vec<u8>, Error> {
    use tokio::io::AsyncReadExt;
    let mut process = Process::spawn(program, args)?;
    drop(process.stdin());
    let mut stdout = process.stdout();
    let mut out = Vec::new();
    let all = async {
        if let Some(stdout) = &mut stdout {
            stdout
                .read_to_end(&mut out)
                .await
                .map_err(|e| Error::io(format!("output of {program}"), e))?;
        }
        Ok(())
    };
    match timeout(within, all).await {
        Ok(read) => read?,
        Err(_) => {
            return Err(Error::Deadline {
                what: format!("the output of {program}"),
                within,
            });
        }
    }
    process.success(within).await?;
    Ok(out)
}

/// The Debian package of a program that we start.
fn package_of(program: &str) -> &'static str {
    match program {
        "ffmpeg" | "ffprobe" => "ffmpeg",
        "chromium" => "chromium",
        "curl" => "curl",
        "haproxy" => "haproxy",
        "ip" | "ss" => "iproute2",
        "nsenter" | "unshare" => "util-linux",
        "systemd-analyze" => "systemd",
        "openssl" => "openssl",
        "prometheus" | "promtool" => "prometheus",
        "nginx" => "nginx libnginx-mod-rtmp",
        "rtmpdump" => "rtmpdump",
        "strace" => "strace",
        _ if program.starts_with("gst-") => "gstreamer1.0-tools",
        _ => "the package that has it",
    }
}

/// Something that a reading task writes and others look at and wait for.
#[derive(Debug, Default)]
pub struct Log<T>(Arc<(Mutex<T>, Notify)>);

impl<T> Clone for Log<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T> Log<T> {
    pub fn new(value: T) -> Self {
        Self(Arc::new((Mutex::new(value), Notify::new())))
    }

    pub fn lock(&self) -> MutexGuard<'_, T> {
        // A panic in a test while it looked leaves the value as good as it was.
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the value and wakes those who wait for it.
    pub fn change<R>(&self, change: impl FnOnce(&mut T) -> R) -> R {
        let result = change(&mut self.lock());
        self.0.1.notify_waiters();
        result
    }

    /// Looks after every change until `seen` gives something.
    ///
    /// # Errors
    /// [`Error::Deadline`] after `within`, with `what` was waited for.
    pub async fn until<R>(
        &self,
        what: &str,
        within: Duration,
        mut seen: impl FnMut(&T) -> Option<R>,
    ) -> Result<R, Error> {
        let deadline = Instant::now() + within;
        loop {
            // Registered before looking, so that a change in between is not missed.
            let changed = self.0.1.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if let Some(result) = seen(&self.lock()) {
                return Ok(result);
            }
            if tokio::time::timeout_at(deadline, changed).await.is_err() {
                return Err(Error::Deadline {
                    what: what.to_owned(),
                    within,
                });
            }
        }
    }
}

/// How often [`poll`] asks.
const POLL: Duration = Duration::from_millis(50);

/// Asks again and again until `ask` gives something: for facts that nobody announces.
///
/// # Errors
/// [`Error::Deadline`] after `within`, with `what` was waited for.
pub async fn poll<R, F>(
    what: &str,
    within: Duration,
    mut ask: impl FnMut() -> F,
) -> Result<R, Error>
where
    F: Future<Output = Option<R>>,
{
    let deadline = Instant::now() + within;
    loop {
        if let Some(result) = ask().await {
            return Ok(result);
        }
        if Instant::now() >= deadline {
            return Err(Error::Deadline {
                what: what.to_owned(),
                within,
            });
        }
        tokio::time::sleep(POLL).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_secs(10);

    #[tokio::test]
    async fn a_missing_program_says_what_to_install() {
        let error = Process::spawn::<&str>("gst-no-such-tool", &[]).expect_err("no such program");
        assert!(error.to_string().contains("gstreamer1.0-tools"), "{error}");
    }

    #[tokio::test]
    async fn a_failure_repeats_the_last_words() {
        // They come after the end is seen.
        let late = "(sleep 0.2; echo went wrong >&2) & exit 3";
        let mut process = Process::spawn("sh", &["-c", late]).expect("sh starts");
        let error = process.success(SOON).await.expect_err("exit code 3");
        assert!(error.to_string().contains("went wrong"), "{error}");
    }

    #[tokio::test]
    async fn a_child_that_does_not_end_is_reported_and_killed_on_drop() {
        let mut process = Process::spawn("sleep", &["600"]).expect("sleep starts");
        let id = process.id().expect("it runs");
        let error = process.success(Duration::from_millis(50)).await;
        assert!(matches!(error, Err(Error::Deadline { .. })), "{error:?}");
        drop(process);
        poll("the end of the child", SOON, || async move {
            let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
            (!stat.contains(") S ")).then_some(())
        })
        .await
        .expect("killed");
    }

    #[tokio::test]
    async fn output_is_all_that_was_written() {
        let out = output("sh", &["-c", "printf abc"], SOON)
            .await
            .expect("sh runs");
        assert_eq!(out, b"abc");
    }
}
