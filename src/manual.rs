//! `refract completions` and `refract man`: what clap knows of the command line, for shells and for `man`.

use anyhow::Context;

use crate::{
    cli::{self, CompletionsArgs, ManArgs},
    terminal::write_result,
};

pub(crate) fn completions(args: &CompletionsArgs) -> anyhow::Result<()> {
    let mut script = vec![];
    clap_complete::generate(args.shell, &mut cli::command(), "refract", &mut script);
    write_result(&String::from_utf8_lossy(&script));
    Ok(())
}

pub(crate) fn man(args: &ManArgs) -> anyhow::Result<()> {
    if let Some(out) = &args.out {
        std::fs::create_dir_all(out).with_context(|| format!("cannot create {}", out.display()))?;
        return clap_mangen::generate_to(cli::command(), out)
            .with_context(|| format!("cannot write to {}", out.display()));
    }
    let mut page = vec![];
    clap_mangen::Man::new(cli::command()).render(&mut page)?;
    write_result(&String::from_utf8_lossy(&page));
    Ok(())
}
