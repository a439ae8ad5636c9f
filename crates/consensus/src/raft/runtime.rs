//! The runtime that the Raft library runs on: tokio's, but with all chance drawn from a seed.
//!
//! Production and simulation use the same one, so that the library is instantiated once and what is simulated is what
//! runs.

use std::cell::RefCell;
use std::convert::Infallible;
use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::future::{self, Either};
use openraft::{AsyncRuntime, Instant, OptionalSend};
use openraft_rt_tokio::{TokioInstant, TokioRuntime};
use rand::rand_core::TryRng;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Tokio with seeded chance.
#[derive(Debug)]
pub(crate) struct SeededRuntime(TokioRuntime);

/// Where threads that nobody seeded take their chance from: production runs on one thread, but need not.
static NEXT_SEED: AtomicU64 = AtomicU64::new(0);

thread_local! {
    static CHANCE: RefCell<Option<ChaCha8Rng>> = const { RefCell::new(None) };
}

/// Seeds the chance of this thread, and of threads that begin to draw later.
pub(crate) fn seed(seed: u64) {
    NEXT_SEED.store(seed.wrapping_add(1), Ordering::Relaxed);
    CHANCE.with_borrow_mut(|chance| *chance = Some(ChaCha8Rng::seed_from_u64(seed)));
}

/// The seeded generator of this thread.
#[derive(Debug)]
pub(crate) struct SeededChance;

impl SeededChance {
    fn draw<T>(draw: impl FnOnce(&mut ChaCha8Rng) -> T) -> T {
        CHANCE.with_borrow_mut(|chance| {
            let chance = chance.get_or_insert_with(|| {
                ChaCha8Rng::seed_from_u64(NEXT_SEED.fetch_add(1, Ordering::Relaxed))
            });
            draw(chance)
        })
    }
}

impl TryRng for SeededChance {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        Ok(Self::draw(Rng::next_u32))
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        Ok(Self::draw(Rng::next_u64))
    }

    fn try_fill_bytes(&mut self, out: &mut [u8]) -> Result<(), Infallible> {
        Self::draw(|chance| chance.fill_bytes(out));
        Ok(())
    }
}

/// Waits shorter than this are over at once: tokio's timer counts in milliseconds, and the library has a wait of one
/// microsecond in the path of each write.
const SHORTEST_SLEEP: Duration = Duration::from_micros(100);

impl AsyncRuntime for SeededRuntime {
    type JoinError = tokio::task::JoinError;
    type JoinHandle<T: OptionalSend + 'static> = tokio::task::JoinHandle<T>;
    type Sleep = Either<future::Ready<()>, tokio::time::Sleep>;
    type Instant = TokioInstant;
    type TimeoutError = tokio::time::error::Elapsed;
    type Timeout<R, T: Future<Output = R> + OptionalSend> = tokio::time::Timeout<T>;
    type ThreadLocalRng = SeededChance;
    type Mpsc = <TokioRuntime as AsyncRuntime>::Mpsc;
    type Watch = super::watched::Watched;
    type Oneshot = <TokioRuntime as AsyncRuntime>::Oneshot;
    type Mutex<T: OptionalSend + 'static> = <TokioRuntime as AsyncRuntime>::Mutex<T>;

    fn spawn<T>(future: T) -> Self::JoinHandle<T::Output>
    where
        T: Future + OptionalSend + 'static,
        T::Output: OptionalSend + 'static,
    {
        TokioRuntime::spawn(future)
    }

    fn sleep(duration: Duration) -> Self::Sleep {
        if duration <= SHORTEST_SLEEP {
            Either::Left(future::ready(()))
        } else {
            Either::Right(TokioRuntime::sleep(duration))
        }
    }

    fn sleep_until(deadline: Self::Instant) -> Self::Sleep {
        let now = TokioInstant::now();
        if deadline <= now + SHORTEST_SLEEP {
            Either::Left(future::ready(()))
        } else {
            Either::Right(TokioRuntime::sleep_until(deadline))
        }
    }

    fn timeout<R, F: Future<Output = R> + OptionalSend>(
        duration: Duration,
        future: F,
    ) -> Self::Timeout<R, F> {
        TokioRuntime::timeout(duration, future)
    }

    fn timeout_at<R, F: Future<Output = R> + OptionalSend>(
        deadline: Self::Instant,
        future: F,
    ) -> Self::Timeout<R, F> {
        TokioRuntime::timeout_at(deadline, future)
    }

    fn is_panic(join_error: &Self::JoinError) -> bool {
        join_error.is_panic()
    }

    fn thread_rng() -> Self::ThreadLocalRng {
        SeededChance
    }

    fn new(threads: usize) -> Self {
        Self(TokioRuntime::new(threads))
    }

    fn block_on<F, T>(&mut self, future: F) -> T
    where
        F: Future<Output = T>,
    {
        self.0.block_on(future)
    }
}
