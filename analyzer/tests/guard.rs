//! Guards on a tiny random llama, whose SAE is the identity: what is scored, where rules hold, what they change, and where
//! a text is stopped.

#![expect(clippy::unwrap_used, reason = "tests")]

mod tiny;

use analyzer::{
    Action, GenerateConfig, Guard, GuardRules, Needs, PlacedSae, Release, Rule, Score, ScoreOf, SteeredSae, Workbench,
    generate,
};
use candle_core::{Device, Tensor};
use harvester::{
    Batch, Corpus, CorpusOptions, Edit, HarvestConfig, Hook, HookPoint, LiveModel, NoHook, Packing, Rows, Silent,
    SpecialToken, StorageDtype,
};
use trainer::Sae;

use tiny::{D, at, identity, model, point};

fn score(name: &str, of: ScoreOf, above: f32) -> Score {
    let (needs, at) = (Needs::default(), Default::default());
    Score { name: name.into(), of, sae: None, smooth: None, above, needs, release: None, at }
}

fn rule(name: &str, score: &str, then: Action) -> Rule {
    Rule { name: name.into(), all: vec![score.into()], any: vec![], not: vec![], then }
}

fn intervene(edits: &[&str]) -> Action {
    Action::Intervene(edits.iter().map(|edit| edit.parse().unwrap()).collect())
}

fn guard(sae: &Sae, rules: GuardRules) -> Guard<'_> {
    Guard::new(&model(), &[at(sae, 1e9).into()], rules).unwrap()
}

/// The rows after a hook, from rows of a text from position 0 on.
fn after(hook: &mut dyn Hook, x: &[[f32; D]]) -> Vec<f32> {
    let rows = Rows::of(&Batch::of([vec![5; x.len()]]), &[0]);
    let before = Tensor::from_slice(x.as_flattened(), (x.len(), D), &Device::Cpu).unwrap();
    match hook.apply(point(), &rows, &before).unwrap() {
        Edit::Keep => x.as_flattened().to_vec(),
        Edit::Replace(edited) => edited.flatten_all().unwrap().to_vec1().unwrap(),
        Edit::Variants(_) => panic!("a guard has no variants"),
    }
}

#[test]
fn a_rule_edits_the_tokens_on_which_it_holds_and_says_where() {
    let sae = identity(0.0);
    let mut sea = score("sea", ScoreOf::Max(vec![3, 4]), 1.0);
    sea.release = Some(Release { below: 0.4, tokens: 1 });
    let rules = vec![rule("no sea", "sea", intervene(&["suppress 3", "suppress 7"]))];
    let mut hook = guard(&sae, GuardRules { hold_back: 0, scores: vec![sea], rules });
    // Position 0 has no score. Latent 4 begins it, latent 3 keeps it on, and the last token releases it.
    let mut x = [[0.5; D]; 6];
    for (row, (third, fourth)) in
        x.iter_mut().zip([(9.0, 9.0), (0.9, 0.3), (0.5, 2.0), (0.6, 0.1), (0.1, 0.3), (3.0, 0.0)])
    {
        (row[3], row[4]) = (third, fourth);
    }
    let mut want = x;
    for row in [2, 3, 5] {
        (want[row][3], want[row][7]) = (0.0, 0.0);
    }
    assert_eq!(after(&mut hook, &x), want.as_flattened());
    let said: Vec<_> = hook.events().iter().map(|event| (event.begins, event.position, event.scores[0].1)).collect();
    assert_eq!(said, [(true, 2, Some(2.0)), (false, 4, Some(0.3)), (true, 5, Some(3.0))]);
    assert_eq!(hook.events()[0].action, "intervene");
}

#[test]
fn sums_directions_and_probes_are_scored() {
    let sae = identity(0.0);
    let folder = tempfile::tempdir().unwrap();
    let mut v = [0.0f32; D];
    (v[3], v[5]) = (3.0, -4.0);
    let vector = folder.path().join("v.safetensors");
    let bytes: Vec<u8> = v.iter().flat_map(|value| value.to_le_bytes()).collect();
    let tensor = safetensors::tensor::TensorView::new(safetensors::Dtype::F32, vec![D], &bytes).unwrap();
    std::fs::write(&vector, safetensors::serialize([("direction", tensor)], None).unwrap()).unwrap();
    let probe = folder.path().join("p.json");
    let text = format!(
        r#"{{"latents": [[3, 2.0], [5, -1.0]], "bias": 0.5, "d_sae": {}, "sae_sha256": "", "auc": null,
            "documents": [4, 4]}}"#,
        2 * D
    );
    std::fs::write(&probe, text).unwrap();
    let scores = vec![
        score("sum", ScoreOf::Sum(vec![3, D as u32 + 3, 5]), 0.0),
        score("direction", ScoreOf::Direction(vector), 0.0),
        score("probe", ScoreOf::Probe(probe), 0.0),
    ];
    let mut together = rule("all", "sum", Action::Flag);
    together.all.extend(["direction".into(), "probe".into()]);
    let mut hook = guard(&sae, GuardRules { hold_back: 0, scores, rules: vec![together] });
    let mut row = [0.25; D];
    (row[3], row[5]) = (6.0, 1.0);
    after(&mut hook, &[row, row]);
    let values: Vec<f32> = hook.events()[0].scores.iter().map(|(_, value)| value.unwrap()).collect();
    assert_eq!(values[0], 7.0, "of latent D + 3 there is nothing");
    assert!((values[1] - (3.0 * 6.0 - 4.0) / 5.0).abs() < 1e-6, "the vector counts with length 1");
    assert_eq!(values[2], 0.5 + 2.0 * 6.0 - 1.0);
    assert!(hook.is_flagged(0) && hook.stopped(0).is_none());
}

#[test]
fn a_guard_that_cannot_work_is_refused_by_name() {
    let sae = identity(0.0);
    let refused = |score: Score, then: Action| {
        let rules = GuardRules { hold_back: 0, rules: vec![rule("r", &score.name, then)], scores: vec![score] };
        Guard::new(&model(), &[at(&sae, 1e9).into()], rules).unwrap_err().to_string()
    };
    let unknown = refused(score("s", ScoreOf::Latent(500), 1.0), Action::Log);
    assert!(unknown.contains("score `s`") && unknown.contains("500"), "{unknown}");
    let other = Score { sae: Some("other".into()), ..score("s", ScoreOf::Latent(5), 1.0) };
    let no_sae = refused(other, Action::Log);
    assert!(no_sae.contains("score `s`") && no_sae.contains("other"), "{no_sae}");
    let early = r#"{"kind": "add", "direction": [1.0], "value": 1.0, "hook_point": "blocks.0.hook_resid_post"}"#;
    let early = early.replace("[1.0]", &format!("{:?}", [1.0; D]));
    let too_early = refused(score("s", ScoreOf::Latent(5), 1.0), intervene(&[&early]));
    assert!(too_early.contains("rule `r`") && too_early.contains("blocks.0"), "{too_early}");
}

/// What is written after a prompt under a guard is what whole passes give, and watching alone changes nothing.
#[test]
fn a_guarded_text_is_the_same_with_and_without_a_cache() {
    let (model, sae) = (model(), identity(0.0));
    let prompt: Vec<u32> = (0..6).map(|i| 100 + 17 * i).collect();
    let config = GenerateConfig { max_new_tokens: 12, ..GenerateConfig::default() };
    let write = |hook: &mut dyn Hook| generate(&model, &[&prompt], &config, hook, &Silent).unwrap().remove(0);
    let of = |then: Action| {
        let mut often = score("s", ScoreOf::Latent(3), 0.2);
        often.smooth = Some(analyzer::Smooth::Mean(3));
        GuardRules { hold_back: 0, scores: vec![often], rules: vec![rule("r", "s", then)] }
    };
    let plain = write(&mut NoHook);
    assert_eq!(write(&mut guard(&sae, of(Action::Log))), plain);
    let rules = of(intervene(&["clamp 9=60", "clamp 20=40"]));
    let mut hook = guard(&sae, rules.clone());
    let guarded = write(&mut hook);
    assert_ne!(guarded, plain);
    let mut text = prompt.clone();
    for token in &guarded {
        let resid = model.resid_final(&Batch::of([&text]), None, &mut guard(&sae, rules.clone())).unwrap();
        let last = resid.narrow(0, text.len() - 1, 1).unwrap();
        let last: Vec<f32> = model.unembed(&last).unwrap().flatten_all().unwrap().to_vec1().unwrap();
        let best = (0..last.len()).max_by(|a, b| last[*a].total_cmp(&last[*b])).unwrap();
        assert_eq!(best as u32, *token);
        text.push(*token);
    }
    // The events of the cached passes are those of one pass over the text.
    let mut whole = guard(&sae, rules);
    model.run(&Batch::of([&text[..text.len() - 1]]), &mut whole).unwrap();
    assert!(!whole.events().is_empty());
    assert_eq!(hook.events(), whole.events());
}

fn bench() -> Workbench {
    let model = model();
    let sae = PlacedSae {
        path: "tiny".into(),
        sae: identity(0.0),
        hook_point: point(),
        sink_norm: 1e9,
        bos: Some(SpecialToken::None),
        model: model.identity().unwrap().clone(),
        sha256: String::new(),
        manifest: None,
    };
    Workbench::new(sae, Some(&model)).unwrap()
}

#[test]
fn a_stopped_text_ends_before_the_tokens_that_were_held_back() {
    let bench = bench();
    let all: Vec<u32> = (0..2 * D as u32).collect();
    let written = |hold_back: usize| {
        // Every token hits; the third written one stops the text.
        let mut any = score("any", ScoreOf::Sum(all.clone()), 0.0);
        (any.needs, any.at) = (Needs { hits: 3, of: 3 }, "generated".parse().unwrap());
        let rules = vec![rule("enough", "any", Action::Stop(" END".into()))];
        let rules = GuardRules { hold_back, scores: vec![any], rules };
        let steering = rules.open(&bench, vec![], None).unwrap();
        let config = GenerateConfig { max_new_tokens: 8, ..GenerateConfig::default() };
        let mut seen = vec![];
        let each = &mut |texts: [&str; 2]| seen.push(texts[1].to_string());
        let guarded = bench.guarded("The sea", &rules, &steering, &config, each, &Silent).unwrap();
        assert!(seen.iter().all(|text| guarded.with.starts_with(&**text)), "what was sent stays: {seen:?}");
        guarded
    };
    let tokens = |text: &str| bench.model(&Silent).unwrap().tokenizer().prompt(SpecialToken::None, text).unwrap();
    for (hold_back, sent) in [(0, 3), (1, 2), (2, 1), (3, 0), (9, 0)] {
        let guarded = written(hold_back);
        assert_eq!(guarded.stopped.as_deref(), Some("enough"), "{hold_back}");
        let with = guarded.with.strip_suffix(" END").unwrap();
        assert!(guarded.without.starts_with(with), "{with} of {}", guarded.without);
        assert_eq!((guarded.held_back, sent), (3 - sent, sent), "{hold_back}: {with}");
        assert!(!guarded.events.is_empty() && guarded.events[0].position == tokens("The sea").len() + 2);
    }
}

#[test]
fn a_corpus_is_watched_with_the_scores_of_its_tokens() {
    let (model, sae) = (model(), identity(0.0));
    let folder = tempfile::tempdir().unwrap();
    let texts = ["The sea is wide.", "A short one.", "And a text that is longer than one context of eight tokens is."];
    let lines: Vec<String> = texts.iter().map(|text| format!("{{\"text\": \"{text}\"}}")).collect();
    std::fs::write(folder.path().join("texts.jsonl"), lines.join("\n")).unwrap();
    let config = HarvestConfig {
        hook_points: vec![point()],
        packing: Packing::Document,
        min_document_tokens: 1,
        ctx_len: 8,
        bos: SpecialToken::None,
        separator: SpecialToken::None,
        dtype: StorageDtype::F32,
        ..HarvestConfig::default()
    };
    let corpus = Corpus::open(&[folder.path().to_path_buf()], &CorpusOptions::default()).unwrap();
    let live = LiveModel::new(&model, corpus, &config).unwrap();
    let scores = vec![score("s", ScoreOf::Latent(3), 0.0)];
    let mut guard = guard(&sae, GuardRules { hold_back: 0, scores, rules: vec![rule("r", "s", Action::Log)] });
    let mut watched = vec![];
    guard
        .watch_corpus(&live, &Silent, |document| {
            watched.push(document);
            Ok(())
        })
        .unwrap();
    watched.sort_by_key(|document| document.record.document);
    assert_eq!(watched.len(), texts.len());
    for (text, document) in texts.iter().zip(&watched) {
        let tokens = model.tokenizer().prompt(SpecialToken::None, text).unwrap();
        assert_eq!(document.tokens, tokens.len(), "{text}");
        let mut expected: Vec<Option<f32>> = vec![];
        for context in tokens.chunks(8) {
            let mut read = Read(vec![]);
            model.run(&Batch::of([context]), &mut read).unwrap();
            for (position, row) in read.0.chunks_exact(D).enumerate() {
                // Position 0 of a context has no score: that of the token before it stays.
                let before = expected.last().copied().flatten();
                expected.push(if position == 0 { before } else { Some(row[3].max(0.0)) });
            }
        }
        assert_eq!(document.scores[0], expected, "{text}");
        let begins = document.events.iter().filter(|event| event.begins).count();
        let is_on = |at: usize| expected[at].is_some_and(|value| value > 0.0);
        let onsets = (0..expected.len()).filter(|&at| is_on(at) && (at == 0 || !is_on(at - 1))).count();
        assert_eq!(begins, onsets, "{text}");
    }
    let at_0: SteeredSae<'_> = analyzer::SaeSite { hook_point: HookPoint::resid_post(0), ..at(&sae, 1e9) }.into();
    let other = GuardRules {
        hold_back: 0,
        scores: vec![score("s", ScoreOf::Latent(3), 0.0)],
        rules: vec![rule("r", "s", Action::Log)],
    };
    let mut elsewhere = Guard::new(&model, &[at_0], other).unwrap();
    assert!(elsewhere.watch_corpus(&live, &Silent, |_| Ok(())).is_err(), "the corpus has no activations there");
}

/// Keeps the activation at the hook point.
struct Read(Vec<f32>);

impl Hook for Read {
    fn wants(&self, at: HookPoint) -> bool {
        at == point()
    }

    fn apply(&mut self, _point: HookPoint, _rows: &Rows, activation: &Tensor) -> harvester::Result<Edit> {
        self.0 = activation.flatten_all()?.to_vec1()?;
        Ok(Edit::Keep)
    }
}
