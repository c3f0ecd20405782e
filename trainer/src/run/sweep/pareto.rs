//! [`write()`]: `pareto.html`, a plot of FVU against L0 for all runs of a sweep. It is one file that needs no network,
//! in the style of `curves.html`. Its data are also in `sweep.json`.

use std::path::Path;

use harvester::write_atomically;
use serde_json::json;

use super::file::{PARETO_FILE, RunState, SweepRow};
use crate::{Result, run::page::fill};

const TEMPLATE: &str = include_str!("pareto.html");
/// Seconds after which the page of an unfinished sweep reloads.
const INTERVAL: u64 = 10;

pub(super) fn write(out: &Path, rows: &[SweepRow]) -> Result<()> {
    Ok(write_atomically(&out.join(PARETO_FILE), page(rows).as_bytes())?)
}

fn page(rows: &[SweepRow]) -> String {
    let data = json!({ "refract_version": env!("CARGO_PKG_VERSION"), "runs": rows });
    let goes_on = rows.iter().any(|row| row.state == RunState::Unfinished);
    fill(TEMPLATE, &data, goes_on.then_some(INTERVAL))
}

#[cfg(test)]
mod tests {
    use super::{super::file::tests::row, *};

    #[test]
    fn the_page_has_every_run_and_needs_nothing_else() {
        let rows = [row("one", "a", Some((8.0, 0.4))), row("two", "b", Some((16.0, 0.3))), row("three", "a", None)];
        let page = page(&rows);
        for name in ["\"one\"", "\"two\"", "\"three\"", "the loss is NaN \\u003c/script>"] {
            assert!(page.contains(name), "{name}");
        }
        assert_eq!(page.matches("</script>").count(), 2, "a run's data do not end a script");
        assert!(!page.contains("{{") && !page.contains("http-equiv") && !page.contains("src="));
        let mut unfinished = rows;
        unfinished[0].state = RunState::Unfinished;
        assert!(super::page(&unfinished).contains("http-equiv=\"refresh\""));
    }
}
