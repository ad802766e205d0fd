//! A thread that runs only while nobody else wants its CPU.
//!
//! Being nice does not do: the kernel lets a thread go on for a slice of milliseconds before it looks at who has come
//! meanwhile, however nice it is. Of a thread with this policy it takes the CPU at once. Hence the `unsafe` here: no
//! crate that we have offers the call.
#![allow(unsafe_code)]

use std::io;

use nix::libc;

/// From now on the calling thread is one.
pub(super) fn run_idle() -> io::Result<()> {
    let parameters = libc::sched_param { sched_priority: 0 };
    // SAFETY: 0 is the calling thread, and the kernel reads one `sched_param`, which lives until the call is over. The
    // system call itself, because a C library may refuse the function (musl does).
    let answer =
        unsafe { libc::syscall(libc::SYS_sched_setscheduler, 0, libc::SCHED_IDLE, &raw const parameters) };
    if answer == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_thread_and_no_other_becomes_idle() {
        let policy = || {
            let stat = std::fs::read_to_string("/proc/thread-self/stat").unwrap();
            let behind_name = stat.rsplit(')').next().unwrap().to_owned();
            // The 41st, of which two stand before.
            behind_name.split_whitespace().nth(38).unwrap().to_owned()
        };
        std::thread::spawn(move || {
            super::run_idle().unwrap();
            assert_eq!(policy(), "5");
        })
        .join()
        .unwrap();
        assert_ne!(policy(), "5");
    }
}
