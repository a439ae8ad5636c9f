//! What the machine itself can do in the same run: append and sync, and an HTTP server that only echoes.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};

use super::connection::request;
use super::load::{Until, run};
use super::process::cpu_of;

/// The median times, in microseconds, of an append with its fdatasync.
#[derive(Debug)]
pub(crate) struct Sync {
    /// Into space that was allocated and zeroed before, so that only data has to be written: the fastest way there is.
    pub(crate) prepared: f64,
    /// At the end of a file that grows, so that its new length is written too.
    pub(crate) growing: f64,
}

pub(crate) fn append_and_sync(folder: &Path, count: usize) -> Result<Sync> {
    let path = folder.join("ceiling");
    let record = [7; 512];
    let mut medians = [0.0; 2];
    for (median, prepared) in medians.iter_mut().zip([true, false]) {
        let mut options = OpenOptions::new();
        let file = options
            .create(true)
            .write(true)
            .truncate(true)
            .open(&path)
            .context("creating a file")?;
        if prepared {
            file.write_all_at(&vec![0; count * record.len()], 0)
                .context("preparing the file")?;
            file.sync_all().context("preparing the file")?;
        }
        let mut times = Vec::with_capacity(count);
        for at in 0..count {
            let start = Instant::now();
            file.write_all_at(&record, (at * record.len()) as u64)
                .context("appending")?;
            file.sync_data().context("syncing")?;
            times.push(start.elapsed().as_secs_f64() * 1e6);
        }
        times.sort_by(f64::total_cmp);
        *median = times[times.len() / 2];
    }
    std::fs::remove_file(&path).context("removing a file")?;
    let [prepared, growing] = medians;
    Ok(Sync { prepared, growing })
}

/// CPU per request, in microseconds, of a bare echo server under the same load.
pub(crate) fn echo(connections: usize, time: Duration, path: &str, body: usize) -> Result<f64> {
    let echo = Echo::start(body)?;
    let seen = run(echo.address, connections, Until::Time(time), |_, out| {
        request(out, "GET", path, b"")
    });
    let cpu = echo.finish()?;
    Ok(cpu.as_secs_f64() * 1e6 / seen?.requests as f64)
}

/// An echo server in a thread of its own.
struct Echo {
    address: SocketAddr,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<Duration>>,
}

impl Echo {
    fn start(body: usize) -> Result<Self> {
        let listener =
            TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("binding the echo server")?;
        let address = listener.local_addr()?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || serve(&listener, body, &stopped));
        Ok(Self {
            address,
            stop,
            thread,
        })
    }

    /// Stops it; returns the CPU time it has used.
    fn finish(self) -> Result<Duration> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread
            .join()
            .map_err(|_| anyhow::anyhow!("the echo server panicked"))?
    }
}

/// Answers every request with the same body until told to stop; returns the time this thread has used.
fn serve(listener: &TcpListener, body: usize, stop: &AtomicBool) -> Result<Duration> {
    const LISTENER: u64 = u64::MAX;
    let mut answer = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nX-Consul-Index: 12345\r\nX-Consul-Knownleader: true\r\nX-Consul-Lastcontact: 0\r\nContent-Length: {body}\r\n\r\n"
    )
    .into_bytes();
    answer.resize(answer.len() + body, b'x');
    listener.set_nonblocking(true)?;
    let epoll = epoll::create(CreateFlags::CLOEXEC)?;
    epoll::add(
        &epoll,
        listener,
        EventData::new_u64(LISTENER),
        EventFlags::IN,
    )?;
    let mut streams: Vec<Option<TcpStream>> = Vec::new();
    let mut events = Vec::with_capacity(1024);
    let mut scratch = [0; 16 * 1024];
    let timeout = Duration::from_millis(50).try_into().context("a timeout")?;
    while !stop.load(Ordering::Relaxed) {
        epoll::wait(
            &epoll,
            rustix::buffer::spare_capacity(&mut events),
            Some(&timeout),
        )?;
        for event in events.drain(..) {
            if event.data.u64() == LISTENER {
                while let Ok((stream, _)) = listener.accept() {
                    stream.set_nodelay(true)?;
                    stream.set_nonblocking(true)?;
                    epoll::add(
                        &epoll,
                        &stream,
                        EventData::new_u64(streams.len() as u64),
                        EventFlags::IN,
                    )?;
                    streams.push(Some(stream));
                }
                continue;
            }
            let slot = &mut streams[usize::try_from(event.data.u64())?];
            let Some(stream) = slot else { continue };
            // The load generator sends each request in one piece and waits for its answer.
            let alive = match stream.read(&mut scratch) {
                Ok(0) => false,
                Ok(_) => stream.write_all(&answer).is_ok(),
                Err(error) => error.kind() == ErrorKind::WouldBlock,
            };
            if !alive {
                *slot = None;
            }
        }
    }
    let thread = std::fs::read_link("/proc/thread-self").context("finding this thread")?;
    cpu_of(&format!("/proc/{}/stat", thread.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_load_generator_counts_what_the_echo_server_answers() {
        let echo = Echo::start(100).unwrap();
        let seen = run(echo.address, 8, Until::Count(200), |_, out| {
            request(out, "GET", "/", b"")
        })
        .unwrap();
        echo.finish().unwrap();
        assert_eq!(seen.requests, 200);
        assert_eq!(seen.latencies.len(), 200);
        assert!(seen.latencies.is_sorted());
        assert!(seen.gap <= seen.took);
    }

    #[test]
    fn a_sync_takes_time() {
        let folder = tempfile::tempdir().unwrap();
        let sync = append_and_sync(folder.path(), 3).unwrap();
        assert!(sync.prepared > 0.0 && sync.growing > 0.0);
    }
}
