//! What `--help` prints.

use crate::sandbox::Sandbox;

/// The help of every command, with its name.
fn helps(sandbox: &Sandbox) -> Vec<(String, String)> {
    let own = sandbox.ok(&["--help"]);
    let (_, commands) = own.split_once("Commands:\n").unwrap();
    let lines = commands.lines().take_while(|line| !line.is_empty());
    let names = lines.filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    let names: Vec<&str> = names.filter_map(|line| line.split_whitespace().next()).filter(|it| *it != "help").collect();
    let of_each = names.iter().map(|name| (name.to_string(), sandbox.ok(&[name, "--help"]))).collect();
    [vec![("refract".to_string(), own.clone())], of_each].concat()
}

#[test]
fn every_help_ends_with_an_example_that_can_be_pasted() {
    let sandbox = Sandbox::new();
    let helps = helps(&sandbox);
    assert!(helps.len() > 15, "{helps:?}");
    for (name, help) in helps {
        let (_, examples) = help.rsplit_once("Example").unwrap_or_else(|| panic!("{name} has no example"));
        assert!(help.lines().all(|line| line.chars().count() <= 110), "{name}");
        let lines: Vec<&str> = examples.lines().filter(|line| line.starts_with("  ")).collect();
        assert!(lines.iter().all(|line| line.len() <= 60), "{name}: clap would wrap:\n{examples}");
        assert!(!examples.contains("\n\n\n") && examples.matches("\n  refract").count() > 0, "{name}");
        for example in lines.join("\n").replace("\\\n", " ").lines() {
            let words: Vec<&str> = example
                .split('\'')
                .enumerate()
                .flat_map(|(n, part)| if n % 2 == 0 { part.split_whitespace().collect() } else { vec![part] })
                .take_while(|word| *word != ">")
                .skip(1)
                .collect();
            // clap reads all flags before it prints the help.
            sandbox.ok(&[&words[..], &["--help"]].concat());
        }
    }
}

#[test]
fn help_shows_the_defaults_of_the_libraries() {
    let helps: Vec<String> = helps(&Sandbox::new()).into_iter().map(|(_, help)| help).collect();
    let all = helps.join("\n").split_whitespace().collect::<Vec<_>>().join(" ");
    for expected in [
        "Tokens per context [default: 256]",
        "Peak learning rate [default: 0.004",
        "shuffled together [default: 512]",
        "times their size in memory [default: 16]",
        "The kind of SAE to train [default: batch-topk]",
    ] {
        assert!(all.contains(expected), "{expected}:\n{all}");
    }
    assert!(!all.contains("] [default"), "a default is said twice:\n{all}");
}
