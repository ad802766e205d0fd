//! What `/proc`, `/sys` and `/run` say about this machine, read below a root that tests put elsewhere.

use std::fs;
use std::path::{Path, PathBuf};

/// A machine that is looked at.
#[derive(Debug)]
pub(super) struct Machine {
    root: PathBuf,
}

impl Machine {
    /// The one this runs on.
    pub(super) fn here() -> Self {
        Self { root: PathBuf::from("/") }
    }

    /// True if questions that no file answers may be asked of the system.
    pub(super) fn is_here(&self) -> bool {
        self.root == Path::new("/")
    }

    /// Where `path` (without its first slash) lies.
    pub(super) fn path(&self, path: impl AsRef<Path>) -> PathBuf {
        self.root.join(path)
    }

    /// A file without the white space at its ends; `None` if this kernel has no such file.
    pub(super) fn text(&self, path: impl AsRef<Path>) -> Option<String> {
        fs::read_to_string(self.path(path)).ok().map(|text| text.trim().to_owned())
    }

    pub(super) fn number(&self, path: impl AsRef<Path>) -> Option<u64> {
        self.text(path)?.parse().ok()
    }

    /// Names in a folder, sorted; none if it is not there.
    pub(super) fn names(&self, path: impl AsRef<Path>) -> Vec<String> {
        let entries = fs::read_dir(self.path(path)).into_iter().flatten().flatten();
        let mut names: Vec<_> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
        names.sort();
        names
    }

    /// The value after `key` in a file of `key: value` lines, such as `/proc/meminfo`.
    pub(super) fn field(&self, path: &str, key: &str) -> Option<String> {
        let text = self.text(path)?;
        let mut lines = text.lines();
        lines.find_map(|line| Some(line.strip_prefix(key)?.strip_prefix(':')?.trim().to_owned()))
    }

    /// CPUs that this process may run on, ascending.
    pub(super) fn cpus(&self) -> Vec<usize> {
        self.field("proc/self/status", "Cpus_allowed_list").map(|list| number_list(&list)).unwrap_or_default()
    }

    /// A file of this process's control group; version 2 only.
    pub(super) fn control_group(&self, file: &str) -> Option<String> {
        let own = self.text("proc/self/cgroup")?;
        let path = own.lines().find_map(|line| line.strip_prefix("0::"))?;
        self.text(Path::new("sys/fs/cgroup").join(path.trim_start_matches('/')).join(file))
    }

    /// The folder of a device in the tree of devices, links resolved.
    pub(super) fn device(&self, link: impl AsRef<Path>) -> Option<PathBuf> {
        fs::canonicalize(self.path(link)).ok()
    }

    /// The nearest `name` in a device's folder or in those of what it hangs on.
    pub(super) fn above(&self, device: &Path, name: &str) -> Option<PathBuf> {
        let root = fs::canonicalize(&self.root).ok()?;
        let folders = device.ancestors().take_while(|folder| *folder != root);
        folders.map(|folder| folder.join(name)).find(|path| path.exists())
    }

    /// NUMA node that a device hangs on; `None` if it says none.
    pub(super) fn node_of(&self, device: &Path) -> Option<usize> {
        // -1 = belongs to none in particular.
        fs::read_to_string(self.above(device, "numa_node")?).ok()?.trim().parse().ok()
    }

    /// Network cards that are up, with their devices; virtual interfaces have none.
    pub(super) fn cards(&self) -> Vec<(String, PathBuf)> {
        let all = self.names("sys/class/net").into_iter();
        let up = all.filter(|name| {
            let state = self.text(format!("sys/class/net/{name}/operstate"));
            matches!(state.as_deref(), None | Some("up" | "unknown"))
        });
        up.filter_map(|name| {
            let device = self.device(format!("sys/class/net/{name}/device"))?;
            Some((name, device))
        })
        .collect()
    }
}

/// `0-3,8` as the kernel writes lists of CPUs and ports; what is no number is left out.
pub(super) fn number_list(text: &str) -> Vec<usize> {
    let mut numbers = Vec::new();
    for part in text.trim().split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        if let (Ok(first), Ok(last)) = (first.parse::<usize>(), last.parse::<usize>()) {
            numbers.extend(first..=last.min(65_535));
        }
    }
    numbers
}

/// The same the other way, for people: `0-3,8`. `numbers` ascend.
pub(super) fn as_list(numbers: &[usize]) -> String {
    let mut parts: Vec<(usize, usize)> = Vec::new();
    for number in numbers {
        match parts.last_mut() {
            Some((_, last)) if *last + 1 == *number => *last = *number,
            _ => parts.push((*number, *number)),
        }
    }
    let shown = parts.iter().map(
        |(first, last)| {
            if first == last { first.to_string() } else { format!("{first}-{last}") }
        },
    );
    shown.collect::<Vec<_>>().join(",")
}

/// A machine of files: `(path, text)`; a path that ends in `->` is a link to `text`.
#[cfg(test)]
pub(super) fn fake(files: &[(&str, &str)]) -> (tempfile::TempDir, Machine) {
    let folder = tempfile::tempdir().unwrap();
    for (path, text) in files {
        let path_of = |path: &str| folder.path().join(path);
        let target = path.strip_suffix("->").unwrap_or(path);
        fs::create_dir_all(path_of(target).parent().unwrap()).unwrap();
        if target == *path {
            fs::write(path_of(path), text).unwrap();
        } else {
            fs::create_dir_all(path_of(text)).unwrap();
            std::os::unix::fs::symlink(path_of(text), path_of(target)).unwrap();
        }
    }
    let machine = Machine { root: folder.path().to_owned() };
    (folder, machine)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn list_is_read_and_written() {
        let check = |text: &str, cpus: &[usize]| {
            assert_eq!(number_list(text), cpus, "{text}");
            assert_eq!(as_list(cpus), text);
        };
        check("0-3,8", &[0, 1, 2, 3, 8]);
        check("5", &[5]);
        check("", &[]);
    }

    #[test]
    fn device_is_asked_by_what_it_hangs_on() {
        let (_folder, machine) = fake(&[
            ("sys/devices/pci0/0000:00:03.0/numa_node", "1\n"),
            ("sys/class/net/eth0/device->", "sys/devices/pci0/0000:00:03.0/virtio2"),
            ("sys/class/net/eth0/operstate", "up\n"),
            ("sys/class/net/eth1/device->", "sys/devices/pci0/0000:00:04.0"),
            ("sys/class/net/eth1/operstate", "down\n"),
            ("sys/class/net/lo/operstate", "unknown\n"),
        ]);
        let cards = machine.cards();
        assert_eq!(cards.len(), 1, "one is down, one has no device: {cards:?}");
        assert!(cards[0].1.ends_with("virtio2") && cards[0].0 == "eth0");
        assert_eq!(machine.node_of(&cards[0].1), Some(1));
        assert_eq!(machine.node_of(&machine.device("sys/class/net/eth1/device").unwrap()), None);
    }

    #[test]
    fn own_control_group_and_fields_are_found() {
        let (_folder, machine) = fake(&[
            ("proc/self/cgroup", "0::/system.slice/penstock.service\n"),
            ("sys/fs/cgroup/system.slice/penstock.service/memory.swap.max", "0\n"),
            ("proc/self/status", "Name:\tx\nCpus_allowed:\tff\nCpus_allowed_list:\t2-4\n"),
        ]);
        assert_eq!(machine.control_group("memory.swap.max").as_deref(), Some("0"));
        assert_eq!(machine.cpus(), [2, 3, 4]);
        assert_eq!(machine.field("proc/self/status", "Cpus_allowed").as_deref(), Some("ff"));
    }
}
