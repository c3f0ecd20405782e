//! The memory that this process may use, and what is left of it.

use std::path::{Path, PathBuf};

/// Bytes of memory that this process may use in all: those of the machine, or of its control group or its limit of
/// address space (`ulimit -v`) if that is lower. `None` if the system does not say.
pub(crate) fn memory_bytes() -> Option<u64> {
    limits().into_iter().map(|limit| limit.total).min()
}

/// Bytes of memory that this process can still get, within the same limits.
pub(crate) fn available_memory_bytes() -> Option<u64> {
    limits().into_iter().map(|limit| limit.left).min()
}

/// Something that limits the memory of this process, in bytes.
struct Limit {
    total: u64,
    left: u64,
}

/// Those that the system tells of.
fn limits() -> Vec<Limit> {
    let read = |path: &Path| std::fs::read_to_string(path).unwrap_or_default();
    let (meminfo, status) = (read("/proc/meminfo".as_ref()), read("/proc/self/status".as_ref()));
    let machine = kib(&meminfo, "MemTotal:").zip(kib(&meminfo, "MemAvailable:"));
    let address_space = address_space(&read("/proc/self/limits".as_ref())).zip(kib(&status, "VmSize:"));
    let groups = group_folders(&read("/proc/self/cgroup".as_ref()));
    let groups = groups.iter().filter_map(|group| limit_of(group));
    let machine = machine.map(|(total, left)| Limit { total, left });
    let address_space = address_space.map(|(total, used)| Limit { total, left: total.saturating_sub(used) });
    machine.into_iter().chain(address_space).chain(groups).collect()
}

/// The folders of the control groups in `/proc/self/cgroup` that limit this process: its own, and every one above it,
/// of version 2 (`0::/a/b`) and of the memory controller of version 1 (`5:memory:/a/b`). In a container the latter names
/// a group that only the host sees; then the container's own is at the root.
fn group_folders(groups: &str) -> Vec<PathBuf> {
    let folders = groups.lines().filter_map(|line| {
        let (_, rest) = line.split_once(':')?;
        let (controllers, path) = rest.split_once(":/")?;
        let root = match controllers {
            "" => "/sys/fs/cgroup",
            _ if controllers.split(',').any(|name| name == "memory") => "/sys/fs/cgroup/memory",
            _ => return None,
        };
        Some((Path::new(root), Path::new(root).join(path)))
    });
    let all = folders.flat_map(|(root, own)| {
        own.ancestors().filter(|group| group.starts_with(root)).map(Path::to_path_buf).collect::<Vec<_>>()
    });
    all.collect()
}

/// The limit of a control group of either version; `None` if it has none.
fn limit_of(group: &Path) -> Option<Limit> {
    let read = |name: &str| std::fs::read_to_string(group.join(name)).ok();
    let total = read("memory.max").or_else(|| read("memory.limit_in_bytes"))?.trim().parse::<u64>().ok()?;
    // Pages of files can be dropped.
    let held = read("memory.stat").unwrap_or_default();
    let of = |name: &str| held.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<u64>().ok());
    let held = of("anon ").or_else(|| of("total_rss ")).unwrap_or(0);
    Some(Limit { total, left: total.saturating_sub(held) })
}

/// The value of a line of `/proc/meminfo` or `/proc/self/status`, in bytes.
fn kib(text: &str, name: &str) -> Option<u64> {
    let value = text.lines().find_map(|line| line.strip_prefix(name))?;
    Some(1024 * value.trim().trim_end_matches("kB").trim().parse::<u64>().ok()?)
}

/// The soft limit of address space in `/proc/self/limits`; `None` if there is none.
fn address_space(limits: &str) -> Option<u64> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max address space"))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn the_groups_of_both_versions_limit_a_process() {
        let groups = "12:cpuset:/\n5:memory:/docker/abc\n4:cpu,memory:/x\n1:name=systemd:/y\n0::/user.slice/a\n";
        let expected = [
            "/sys/fs/cgroup/memory/docker/abc",
            "/sys/fs/cgroup/memory/docker",
            "/sys/fs/cgroup/memory",
            "/sys/fs/cgroup/memory/x",
            "/sys/fs/cgroup/memory",
            "/sys/fs/cgroup/user.slice/a",
            "/sys/fs/cgroup/user.slice",
            "/sys/fs/cgroup",
        ];
        assert_eq!(group_folders(groups), expected.map(PathBuf::from));
        let folder = tempfile::tempdir().unwrap();
        let limit = |files: &[(&str, &str)]| {
            files.iter().for_each(|(name, text)| std::fs::write(folder.path().join(name), text).unwrap());
            let limit = limit_of(folder.path());
            files.iter().for_each(|(name, _)| std::fs::remove_file(folder.path().join(name)).unwrap());
            limit.map(|limit| (limit.total, limit.left))
        };
        let first = [("memory.limit_in_bytes", "1000\n"), ("memory.stat", "cache 7\nrss 1\ntotal_rss 300\n")];
        assert_eq!(limit(&first), Some((1000, 700)));
        assert_eq!(limit(&[("memory.max", "1000\n"), ("memory.stat", "anon 100\nfile 7\n")]), Some((1000, 900)));
        assert_eq!((limit(&[("memory.max", "max\n")]), limit(&[])), (None, None));
    }

    #[test]
    fn limits_are_read_as_the_system_writes_them() {
        let meminfo = "MemTotal:       32768 kB\nMemFree:  1 kB\nMemAvailable:    2048 kB\n";
        assert_eq!((kib(meminfo, "MemTotal:"), kib(meminfo, "MemAvailable:")), (Some(32 << 20), Some(2 << 20)));
        let limits = |soft: &str| {
            format!("Max stack size 8388608 unlimited bytes\nMax address space  {soft}  unlimited  bytes\n")
        };
        assert_eq!(address_space(&limits("6144000000")), Some(6_144_000_000));
        assert_eq!(address_space(&limits("unlimited")), None);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn what_is_left_is_part_of_what_there_is() {
        let (total, left) = (memory_bytes(), available_memory_bytes());
        assert!(left > Some(0) && left <= total, "{left:?} of {total:?}");
    }
}
