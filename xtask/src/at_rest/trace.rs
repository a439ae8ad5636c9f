//! Which functions of a program run, seen by a breakpoint at the beginning of each: the first call removes it, so a
//! program is hardly slower than without.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::sys::ptrace::{self, Event, Options};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use super::symbols::Function;

/// The instruction that stops a program on this processor.
const BREAKPOINT: u8 = 0xcc;

/// How often it is looked whether something was said, while nothing is.
const LOOK: Duration = Duration::from_millis(1);

/// One program that is watched.
#[derive(Debug)]
struct Traced {
    memory: File,
    /// How far the program lies from where its file says.
    shift: u64,
    /// By address in the file: what stood where a breakpoint stands.
    armed: BTreeMap<u64, u8>,
    /// By address in the file.
    run: BTreeSet<u64>,
}

/// Watches programs that wait to be let go; all of it has to be done by one thread.
#[derive(Debug)]
pub(super) struct Tracer<'a> {
    functions: &'a [Function],
    /// By process.
    traced: BTreeMap<Pid, Traced>,
    /// Which process a thread belongs to.
    threads: BTreeMap<Pid, Pid>,
}

impl<'a> Tracer<'a> {
    pub(super) fn new(functions: &'a [Function]) -> Self {
        Self {
            functions,
            traced: BTreeMap::new(),
            threads: BTreeMap::new(),
        }
    }

    /// Takes over a child that has stopped itself and will then become `program`.
    pub(super) fn take(&mut self, process: u32, program: &Path) -> Result<Pid> {
        let pid = Pid::from_raw(i32::try_from(process).context("a process id")?);
        let stopped = waitpid(pid, Some(WaitPidFlag::WUNTRACED)).context("waiting for a stop")?;
        let WaitStatus::Stopped(..) = stopped else {
            bail!("{stopped:?} where a stop was expected");
        };
        let options =
            Options::PTRACE_O_TRACEEXEC | Options::PTRACE_O_TRACECLONE | Options::PTRACE_O_EXITKILL;
        ptrace::seize(pid, options).context("taking over a process; is that allowed here?")?;
        kill(pid, Signal::SIGCONT).context("letting a process go on")?;
        loop {
            match waitpid(pid, Some(WaitPidFlag::__WALL)).context("waiting for a program")? {
                WaitStatus::PtraceEvent(_, _, event)
                    if event == Event::PTRACE_EVENT_EXEC as i32 =>
                {
                    break;
                }
                WaitStatus::PtraceEvent(..) | WaitStatus::Stopped(..) => ptrace::cont(pid, None)?,
                other => bail!("{other:?} before {} began", program.display()),
            }
        }
        self.traced
            .insert(pid, Traced::arm(pid, program, self.functions)?);
        self.threads.insert(pid, pid);
        ptrace::cont(pid, None)?;
        Ok(pid)
    }

    /// Watches until `is_done` says so, which is asked now and then, or `limit` is over.
    pub(super) fn watch(
        &mut self,
        limit: Duration,
        mut is_done: impl FnMut() -> Result<bool>,
    ) -> Result<()> {
        let start = Instant::now();
        let mut asked = start;
        loop {
            let status = waitpid(None, Some(WaitPidFlag::__WALL | WaitPidFlag::WNOHANG));
            match status {
                Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => std::thread::sleep(LOOK),
                Ok(status) => {
                    self.hear(status)?;
                    continue;
                }
                Err(why) => return Err(why).context("waiting for the programs"),
            }
            if asked.elapsed() > Duration::from_millis(100) {
                asked = Instant::now();
                if is_done()? {
                    return Ok(());
                }
            }
            if start.elapsed() > limit {
                bail!("not done after {limit:?}");
            }
        }
    }

    /// Addresses in the file of the functions that ran in a process.
    pub(super) fn run(&self, process: Pid) -> BTreeSet<u64> {
        self.traced
            .get(&process)
            .map(|it| it.run.clone())
            .unwrap_or_default()
    }

    /// Ends all of them. Who watches threads has to hear of their end, or nobody hears of that of their process.
    pub(super) fn end(&mut self) -> Result<()> {
        for process in self.traced.keys() {
            kill(*process, Signal::SIGKILL).context("ending a program")?;
        }
        loop {
            match waitpid(None, Some(WaitPidFlag::__WALL)) {
                Ok(_) => {}
                Err(Errno::ECHILD) => return Ok(()),
                Err(why) => return Err(why).context("waiting for the programs to end"),
            }
        }
    }

    fn hear(&mut self, status: WaitStatus) -> Result<()> {
        match status {
            WaitStatus::Stopped(thread, Signal::SIGTRAP) => {
                let process = self.process_of(thread)?;
                if let Some(traced) = self.traced.get_mut(&process) {
                    traced.pass(thread)?;
                }
                resume(thread, None)
            }
            // A thread that was just made stops once by itself.
            WaitStatus::Stopped(thread, Signal::SIGSTOP) | WaitStatus::PtraceEvent(thread, ..) => {
                resume(thread, None)
            }
            WaitStatus::Stopped(thread, signal) => resume(thread, Some(signal)),
            WaitStatus::Exited(pid, code) if self.traced.contains_key(&pid) => {
                bail!("a program ended with {code}")
            }
            WaitStatus::Signaled(pid, signal, _) if self.traced.contains_key(&pid) => {
                bail!("a program was ended by {signal}")
            }
            _ => Ok(()),
        }
    }

    fn process_of(&mut self, thread: Pid) -> Result<Pid> {
        if let Some(process) = self.threads.get(&thread) {
            return Ok(*process);
        }
        let path = format!("/proc/{thread}/status");
        let text = std::fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
        let group = text.lines().find_map(|line| line.strip_prefix("Tgid:"));
        let process = Pid::from_raw(group.context("a thread's process")?.trim().parse()?);
        self.threads.insert(thread, process);
        Ok(process)
    }
}

/// A thread that is gone meanwhile need not go on.
fn resume(thread: Pid, signal: Option<Signal>) -> Result<()> {
    match ptrace::cont(thread, signal) {
        Ok(()) | Err(Errno::ESRCH) => Ok(()),
        Err(why) => Err(why).context("letting a thread go on"),
    }
}

impl Traced {
    fn arm(pid: Pid, program: &Path, functions: &[Function]) -> Result<Self> {
        let path = format!("/proc/{pid}/mem");
        let memory = OpenOptions::new()
            .read(true)
            .write(true)
            .open(&path)
            .with_context(|| format!("opening {path}"))?;
        let mut traced = Self {
            memory,
            shift: shift(pid, program)?,
            armed: BTreeMap::new(),
            run: BTreeSet::new(),
        };
        for function in functions {
            let at = traced.shift + function.address;
            let mut byte = [0];
            traced
                .memory
                .read_exact_at(&mut byte, at)
                .context("reading the program's code")?;
            traced
                .memory
                .write_all_at(&[BREAKPOINT], at)
                .context("setting a breakpoint")?;
            traced.armed.insert(function.address, byte[0]);
        }
        Ok(traced)
    }

    /// Notes the function at whose beginning a thread has stopped, and lets it begin.
    fn pass(&mut self, thread: Pid) -> Result<()> {
        let mut registers = ptrace::getregs(thread).context("reading registers")?;
        // The processor is one behind the breakpoint.
        let at = registers.rip.wrapping_sub(1);
        let address = at.wrapping_sub(self.shift);
        // Two threads may meet the same one: the second finds it removed and begins anew as well.
        if let Some(byte) = self.armed.get(&address) {
            self.memory
                .write_all_at(&[*byte], at)
                .context("removing a breakpoint")?;
            self.run.insert(address);
            registers.rip = at;
            ptrace::setregs(thread, registers).context("setting registers")?;
        }
        Ok(())
    }
}

/// Where the program was put, less where its file says.
fn shift(pid: Pid, program: &Path) -> Result<u64> {
    let path = format!("/proc/{pid}/maps");
    let maps = std::fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
    let name = program.canonicalize()?;
    let first = maps
        .lines()
        .find(|line| line.ends_with(&*name.to_string_lossy()));
    let first = first.with_context(|| format!("{} is not in {path}", name.display()))?;
    let (begin, _) = first.split_once('-').context("a line of maps")?;
    u64::from_str_radix(begin, 16).context("an address in maps")
}
