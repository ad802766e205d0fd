//! Small file systems of a test's own, to be filled and broken.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A file system of the test's own, unmounted at the end. Needs root.
#[derive(Debug)]
pub struct Disk {
    pub folder: PathBuf,
    _image: tempfile::TempDir,
}

impl Disk {
    /// Memory with a bound.
    pub fn tmpfs(size: &str) -> Option<Self> {
        Self::mount(|_, folder| {
            command("mount", &["-t", "tmpfs", "-o", &format!("size={size}"), "penstock-test", folder])
        })
    }

    /// Real ext4 on a loop device, read-only at the first error.
    pub fn ext4(size: &str) -> Option<Self> {
        Self::mount(|image, folder| {
            command("truncate", &["-s", size, image])?;
            command("mkfs.ext4", &["-q", image])?;
            command("mount", &["-o", "loop,errors=remount-ro", image, folder])
        })
    }

    fn mount(make: impl FnOnce(&str, &str) -> Result<(), String>) -> Option<Self> {
        let image = tempfile::tempdir().unwrap();
        let folder = image.path().join("mount");
        fs::create_dir(&folder).unwrap();
        match make(image.path().join("image").to_str().unwrap(), folder.to_str().unwrap()) {
            Ok(()) => Some(Self { folder, _image: image }),
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
    }
}

fn command(program: &str, arguments: &[&str]) -> Result<(), String> {
    let output = Command::new(program).args(arguments).output().map_err(|e| format!("{program}: {e}"))?;
    match output.status.success() {
        true => Ok(()),
        false => Err(format!("{program}: {}", String::from_utf8_lossy(&output.stderr).trim())),
    }
}
