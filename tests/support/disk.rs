//! Small file systems of a test's own, to be filled and broken.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

const OPTIONS: &str = "loop,errors=remount-ro";

/// A file system of the test's own, unmounted at the end. Needs root.
#[derive(Debug)]
pub struct Disk {
    pub folder: PathBuf,
    image: tempfile::TempDir,
}

/// What of the file system's own log a power cut leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Log {
    /// All of it; data that was not synced is gone.
    Kept,
    /// What was synced.
    Dropped,
}

impl Disk {
    /// Memory with a bound.
    pub fn tmpfs(size: &str) -> Option<Self> {
        Self::mount(|_, folder| {
            command("mount", &["-t", "tmpfs", "-o", &format!("size={size}"), "penstock-test", folder])
        })
    }

    /// Real ext4 of `size` on a device that has only `pool` bytes of its own: what is written beyond them fails.
    pub fn thin(size: &str, pool: &str) -> Option<Self> {
        Self::mount(|image, folder| {
            let pool_folder = format!("{image}-pool");
            fs::create_dir(&pool_folder).map_err(|error| error.to_string())?;
            command("mount", &["-t", "tmpfs", "-o", &format!("size={pool}"), "penstock-pool", &pool_folder])?;
            let inside = format!("{pool_folder}/image");
            command("truncate", &["-s", size, &inside])?;
            command("mkfs.ext4", &["-q", &inside])?;
            command("mount", &["-o", OPTIONS, &inside, folder])
        })
    }

    /// Real ext4 on a loop device, read-only at the first error.
    pub fn ext4(size: &str) -> Option<Self> {
        Self::mount(|image, folder| {
            command("truncate", &["-s", size, image])?;
            command("mkfs.ext4", &["-q", image])?;
            command("mount", &["-o", OPTIONS, image, folder])
        })
    }

    fn mount(make: impl FnOnce(&str, &str) -> Result<(), String>) -> Option<Self> {
        let image = tempfile::tempdir().unwrap();
        let folder = image.path().join("mount");
        fs::create_dir(&folder).unwrap();
        match make(image.path().join("image").to_str().unwrap(), folder.to_str().unwrap()) {
            Ok(()) => Some(Self { folder, image }),
            Err(why) => {
                println!("SKIPPED: this test mounts a file system of its own, which failed here: {why}");
                None
            }
        }
    }

    /// Bytes in use.
    pub fn used(&self) -> u64 {
        let stat = nix::sys::statvfs::statvfs(&self.folder).unwrap();
        (stat.blocks() - stat.blocks_free()) * stat.fragment_size()
    }

    /// The power goes: from now on nothing reaches the device, and what was not synced never will. ext4 only.
    pub fn cut(&self, log: Log) {
        // EXT4_IOC_SHUTDOWN takes a pointer, which Rust calls unsafe.
        let flag = if log == Log::Kept { 1 } else { 2 };
        let script = format!(
            "import fcntl, os, struct; fcntl.ioctl(os.open({:?}, 0), 0x8004587d, struct.pack('I', {flag}))",
            self.folder
        );
        command("python3", &["-c", &script]).unwrap();
    }

    /// The power is back: the file system is mounted anew and repairs itself. Nothing may have a file open.
    pub fn replug(&self) {
        let folder = self.folder.to_str().unwrap();
        // The ring of a process that was killed holds its files a moment longer.
        super::eventually("the file system is let go", Duration::from_secs(10), || {
            command("umount", &[folder]).is_ok()
        });
        let image = self.image.path().join("image");
        command("mount", &["-o", OPTIONS, image.to_str().unwrap(), folder]).unwrap();
    }

    /// Every write from now on fails: the kernel's own switch for testing, which puts the file system
    /// into the state that a real error of the device leaves it in.
    pub fn fail(&self) {
        let mounts = fs::read_to_string("/proc/mounts").unwrap();
        let folder = self.folder.to_str().unwrap();
        let line = mounts.lines().find(|line| line.split(' ').nth(1) == Some(folder)).unwrap();
        let device = Path::new(line.split(' ').next().unwrap()).file_name().unwrap().to_str().unwrap();
        fs::write(format!("/sys/fs/ext4/{device}/trigger_fs_error"), "test").unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazy: a gateway that is just being ended may hold it a moment longer.
        command("umount", &["-l", self.folder.to_str().unwrap_or_default()]).ok();
        let pool = self.image.path().join("image-pool");
        if pool.exists() {
            command("umount", &["-l", pool.to_str().unwrap_or_default()]).ok();
        }
    }
}

fn command(program: &str, arguments: &[&str]) -> Result<(), String> {
    let output = Command::new(program).args(arguments).output().map_err(|e| format!("{program}: {e}"))?;
    match output.status.success() {
        true => Ok(()),
        false => Err(format!("{program}: {}", String::from_utf8_lossy(&output.stderr).trim())),
    }
}
