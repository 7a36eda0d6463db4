//! Tasks on the runtime, and work on threads that may wait, with their types in boxes; threads that give way.
//!
//! The runtime's code for a task is long, and is built once for each type of task. In a box all tasks are of
//! one type: that makes the program smaller, and sooner built.

use std::any::Any;
use std::pin::Pin;

use tokio::runtime::Runtime;
use tokio::task::{JoinError, JoinHandle};

/// A task in its box.
pub(crate) type Task<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// The result of work, of any type.
type Done = Box<dyn Any + Send>;

/// Starts a task on the runtime that this is called on.
pub(crate) fn spawn(task: impl Future<Output = ()> + Send + 'static) -> JoinHandle<()> {
    start(Box::pin(task))
}

#[inline(never)]
fn start(task: Task<()>) -> JoinHandle<()> {
    tokio::spawn(task)
}

/// Starts work on a thread that may wait for the disk, at once: it goes on if the future is dropped.
///
/// # Errors
/// The work panicked, or the runtime has ended.
pub(crate) fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> impl Future<Output = Result<T, JoinError>> + Send {
    let done = start_blocking(Box::new(move || Box::new(work()) as Done));
    async move {
        let done = done.await?.downcast();
        Ok(*done.expect("the result has the type of the work's result"))
    }
}

#[inline(never)]
fn start_blocking(work: Box<dyn FnOnce() -> Done + Send>) -> JoinHandle<Done> {
    tokio::task::spawn_blocking(work)
}

/// Runs a future on `runtime`, on the thread that this is called on, and returns its result.
pub(crate) fn run_on<T>(runtime: &Runtime, future: impl Future<Output = T>) -> T {
    let mut result = None;
    run_to_end(runtime, Box::pin(async { result = Some(future.await) }));
    result.expect("the future has come to its end")
}

#[inline(never)]
fn run_to_end(runtime: &Runtime, future: Pin<Box<dyn Future<Output = ()> + '_>>) {
    runtime.block_on(future);
}

/// Niceness of threads that give way.
#[cfg(target_os = "linux")]
const PATIENT_NICENESS: i32 = 10;

/// Lets all other threads have the processor before the one that this is called on.
pub(crate) fn give_way() {
    // Only on Linux does the niceness belong to one thread.
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::process::nice(PATIENT_NICENESS) {
        tracing::debug!(%error, "a thread cannot give way to others");
    }
}
