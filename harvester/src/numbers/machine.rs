//! Measured speed and memory of this machine, for estimates and benchmarks to compare with.

use std::{
    hint::black_box,
    path::Path,
    time::{Duration, Instant},
};

/// Side of the matrices multiplied: large enough for the product's full rate, small enough for a few milliseconds.
const SIDE: usize = 768;

/// Duration of the measurement.
const TIME: Duration = Duration::from_millis(100);

/// Rate of f32 matrix products on all cores, in FLOP/s: the best product within a tenth of a second.
pub fn gemm_flops() -> f64 {
    let (a, b) = (vec![1f32; SIDE * SIDE], vec![1f32; SIDE * SIDE]);
    let mut c = vec![0f32; SIDE * SIDE];
    let mut best = f64::INFINITY;
    let begin = Instant::now();
    while begin.elapsed() < TIME {
        let start = Instant::now();
        multiply(&a, &b, &mut c);
        best = best.min(start.elapsed().as_secs_f64());
    }
    black_box(&c);
    2.0 * (SIDE * SIDE * SIDE) as f64 / best
}

/// Bytes of memory that this process may use in all: those of the machine, or of its control group or its limit of
/// address space (`ulimit -v`) if that is lower. `None` if the system does not say.
pub fn memory_bytes() -> Option<u64> {
    limits().into_iter().map(|limit| limit.total).min()
}

/// Bytes of memory that this process can still get, within the same limits.
pub fn available_memory_bytes() -> Option<u64> {
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
    let of_group = |group: &Path| {
        let total = read(&group.join("memory.max")).trim().parse::<u64>().ok()?;
        // Pages of files can be dropped.
        let held = read(&group.join("memory.stat"));
        let held = held.lines().find_map(|line| line.strip_prefix("anon ")?.parse::<u64>().ok()).unwrap_or(0);
        Some(Limit { total, left: total.saturating_sub(held) })
    };
    // Every group above the process' own limits it as well.
    let groups = read("/proc/self/cgroup".as_ref());
    let own = groups.lines().find_map(|line| line.strip_prefix("0::/")).unwrap_or_default();
    let root = Path::new("/sys/fs/cgroup");
    let own = root.join(own);
    let groups = own.ancestors().filter(|group| group.starts_with(root)).filter_map(of_group);
    let machine = machine.map(|(total, left)| Limit { total, left });
    let address_space = address_space.map(|(total, used)| Limit { total, left: total.saturating_sub(used) });
    machine.into_iter().chain(address_space).chain(groups).collect()
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

/// Highest resident memory of this process so far, in MiB; 0 if the system does not say.
pub fn peak_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.trim().trim_end_matches("kB").trim().parse::<u64>().ok()).unwrap_or(0) / 1024
}

/// `c = a b`, all `[SIDE, SIDE]`, row-major.
fn multiply(a: &[f32], b: &[f32], c: &mut [f32]) {
    let (n, row) = (SIDE, SIDE as isize);
    assert!(a.len() == n * n && b.len() == n * n && c.len() == n * n);
    // SAFETY: the assertion bounds every address the product reads or writes.
    unsafe {
        gemm::gemm(
            n,
            n,
            n,
            c.as_mut_ptr(),
            1,
            row,
            false,
            a.as_ptr(),
            1,
            row,
            b.as_ptr(),
            1,
            row,
            0.0,
            1.0,
            false,
            false,
            false,
            gemm::Parallelism::Rayon(0),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
