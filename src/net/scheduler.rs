//! What a thread may ask of Linux's scheduler for itself.
//!
//! | source | covered |
//! |---|---|
//! | Linux 3.14, `sched_setattr(2)` | policies `SCHED_OTHER` and `SCHED_RR`, niceness, real-time priority, `SCHED_FLAG_RESET_ON_FORK` |
//! | Linux 6.12 | `sched_runtime` of `SCHED_OTHER`: the slice, 0.1 to 100 ms |

use std::io;
use std::time::Duration;

/// `struct sched_attr`, as of its first version.
#[repr(C)]
#[derive(Default)]
struct Attributes {
    size: u32,
    policy: u32,
    flags: u64,
    nice: i32,
    priority: u32,
    /// Nanoseconds; those of `SCHED_OTHER` may have one.
    runtime: u64,
    deadline: u64,
    period: u64,
}

/// `SCHED_FLAG_RESET_ON_FORK`: what such a thread starts is ordinary.
const RESET_ON_FORK: u64 = 1;

/// Gives the calling thread, and those that it starts, such slices; its niceness stays. An older kernel ignores the number. Not for a
/// real-time thread: it would be one no more.
///
/// # Errors
/// What the kernel says.
pub(super) fn set_slice(slice: Duration) -> io::Result<()> {
    set(&mut Attributes {
        policy: libc::SCHED_OTHER as u32,
        // The call sets it too.
        nice: rustix::process::getpriority_process(None)?,
        runtime: slice.as_nanos() as u64,
        ..Attributes::default()
    })
}

/// Makes the calling thread a real-time one of that priority (1 to 99), in turn with others of it. What it starts is ordinary, and has
/// the kernel's slice.
///
/// # Errors
/// What the kernel says, mostly that this is not allowed.
pub(super) fn set_realtime(priority: u32) -> io::Result<()> {
    set(&mut Attributes {
        policy: libc::SCHED_RR as u32,
        flags: RESET_ON_FORK,
        priority,
        ..Attributes::default()
    })
}

// No safe wrapper has this call: neither the standard library nor rustix, and what crates offer of it is for deadlines.
#[allow(unsafe_code)]
fn set(attributes: &mut Attributes) -> io::Result<()> {
    attributes.size = size_of::<Attributes>() as u32;
    // SAFETY: the call reads `size` bytes from the address that it is given, which are those of `attributes`, and may write
    // another `size` there; both are ours until it returns, and it keeps no address. 0 is the calling thread.
    let done = unsafe {
        libc::syscall(
            libc::SYS_sched_setattr,
            0,
            std::ptr::from_mut(attributes),
            0,
        )
    };
    match done {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
