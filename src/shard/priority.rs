//! Threads that give way to the cores where they share a CPU with one.
//!
//! Being nice does not do: the kernel lets a thread go on for a slice of milliseconds before it looks at who has come
//! meanwhile, however nice it is. What it takes is a slice longer than the others': whoever wakes with a shorter one has
//! the CPU at once (Linux 6.12 and later; before, only niceness counts). The idle policy would do that, too, but a
//! thread of it does not even die while others want the CPU, and with it its process, its ports and its locks stay.
//! Hence the `unsafe` here: no crate that we have offers the call.
#![allow(unsafe_code)]

use std::io;
use std::time::Duration;

use nix::libc;

/// What can be late gets a tenth of a CPU that a core needs, too.
const NICE: i32 = 10;
/// Its slice. Others have 3 ms at most; and the longer it is, the longer the thread waits for a CPU that is never free,
/// be it only to end with its process: at 50 ms for seconds.
const SLICE: Duration = Duration::from_millis(6);

/// From now on the calling thread lets cores have its CPU as soon as they want it, and has its tenth.
pub(super) fn give_way() -> io::Result<()> {
    let attributes = libc::sched_attr {
        size: size_of::<libc::sched_attr>() as u32,
        sched_policy: libc::SCHED_OTHER as u32,
        sched_flags: 0,
        sched_nice: NICE,
        sched_priority: 0,
        sched_runtime: SLICE.as_nanos() as u64,
        sched_deadline: 0,
        sched_period: 0,
    };
    // SAFETY: 0 is the calling thread, and the kernel reads one `sched_attr` of the size that it says, which lives until
    // the call is over.
    let answer = unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0) };
    if answer == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    /// Nice value and policy of the calling thread.
    fn now() -> [String; 2] {
        let stat = std::fs::read_to_string("/proc/thread-self/stat").unwrap();
        let behind_name = stat.rsplit(')').next().unwrap().to_owned();
        let mut fields = behind_name.split_whitespace().map(str::to_owned);
        // The 19th and the 41st, of which two stand before.
        [fields.nth(16).unwrap(), fields.nth(21).unwrap()]
    }

    #[test]
    fn the_calling_thread_and_no_other_gives_way() {
        let before = now();
        std::thread::spawn(|| {
            super::give_way().unwrap();
            assert_eq!(now(), ["10", "0"]);
        })
        .join()
        .unwrap();
        assert_eq!(now(), before);
    }
}
