//! Every family against Hugging Face transformers: one tiny random checkpoint per family, every hook point and the
//! logits.
//! `tests/fixtures/tiny/make_tiny.py` made the checkpoints and the references.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::{collections::HashMap, path::PathBuf};

use candle_core::{DType, Device, Tensor};

use crate::{
    Batch, Compute, Edit, Hook, HookPoint, KvCache, NoHook, Result, Row, Rows, Site,
    model::{Capture, Checkpoint, Transformer},
};

/// Both sides compute in f32; products of this depth differ by a few units in the last place, 1e-6 relative.
const TOLERANCE: f64 = 1e-5;

fn folder(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/tiny").join(name)
}

/// The model, the references, and their tokens: two texts of the same length.
fn load(name: &str) -> (Transformer, HashMap<String, Tensor>, Vec<Vec<u32>>) {
    let checkpoint = Checkpoint::open(&folder(name)).unwrap();
    let model = Transformer::load(&checkpoint, &Device::Cpu).unwrap();
    let reference = candle_core::safetensors::load(folder(name).join("reference.safetensors"), &Device::Cpu).unwrap();
    let tokens = reference["input_ids"].to_dtype(DType::U32).unwrap().to_vec2().unwrap();
    (model, reference, tokens)
}

/// The residual stream after the last block. `[rows, d_model]`
fn run(model: &Transformer, texts: &[impl AsRef<[u32]>]) -> Tensor {
    model.resid_final(&Batch::of(texts), None, &mut NoHook).unwrap()
}

/// Norm of the difference over the norm of the expected tensor.
pub(super) fn relative_error(got: &Tensor, want: &Tensor) -> f64 {
    let norm = |x: &Tensor| {
        x.to_dtype(DType::F64).unwrap().sqr().unwrap().sum_all().unwrap().to_scalar::<f64>().unwrap().sqrt()
    };
    let got = got.reshape(want.shape()).unwrap();
    norm(&(got - want).unwrap()) / norm(want)
}

fn every_point(model: &Transformer) -> Vec<HookPoint> {
    let blocks = (0..model.config().n_layers).flat_map(|layer| Site::ALL.map(|site| HookPoint::Block { layer, site }));
    [HookPoint::Embed].into_iter().chain(blocks).filter(|point| point.check(model.config()).is_ok()).collect()
}

fn assert_family_agrees(name: &str) {
    let (model, reference, tokens) = load(name);
    let points = every_point(&model);
    let mut capture = Capture::new(points.clone());
    let resid = model.resid_final(&Batch::of(&tokens), None, &mut capture).unwrap();
    for point in points {
        let want = reference.get(&point.to_string()).unwrap_or_else(|| panic!("{name}: no reference for {point}"));
        let error = relative_error(&capture.take(point).unwrap(), want);
        assert!(error < TOLERANCE, "{name} {point}: relative error {error:.1e}");
    }
    let error = relative_error(&model.head().unembed(&resid).unwrap(), &reference["logits"]);
    assert!(error < TOLERANCE, "{name} logits: relative error {error:.1e}");
    let known = |key: &&String| key.starts_with("blocks.") || key.starts_with("hook_embed");
    assert_eq!(reference.keys().filter(known).count(), every_point(&model).len(), "{name}: unread references");
}

#[test]
fn llama_agrees_with_transformers() {
    assert_family_agrees("llama");
}

#[test]
fn llama_untied_in_bf16_shards_agrees_with_transformers() {
    assert_family_agrees("llama_untied");
}

#[test]
fn llama_with_scaled_rope_agrees_with_transformers() {
    assert_family_agrees("llama3");
}

#[test]
fn mistral_with_a_window_in_f16_agrees_with_transformers() {
    assert_family_agrees("mistral");
}

#[test]
fn qwen2_with_a_window_above_agrees_with_transformers() {
    assert_family_agrees("qwen2");
}

#[test]
fn qwen3_agrees_with_transformers() {
    assert_family_agrees("qwen3");
}

#[test]
fn gemma_agrees_with_transformers() {
    assert_family_agrees("gemma");
}

#[test]
fn gemma2_agrees_with_transformers() {
    assert_family_agrees("gemma2");
}

#[test]
fn gemma3_agrees_with_transformers() {
    assert_family_agrees("gemma3");
}

#[test]
fn gpt2_agrees_with_transformers() {
    assert_family_agrees("gpt2");
}

#[test]
fn gpt_neox_agrees_with_transformers() {
    assert_family_agrees("gpt_neox");
}

#[test]
fn sequential_gpt_neox_agrees_with_transformers() {
    assert_family_agrees("gpt_neox_sequential");
}

#[test]
fn phi3_with_partial_rotation_agrees_with_transformers() {
    assert_family_agrees("phi3");
}

#[test]
fn phi3_with_longrope_agrees_with_transformers() {
    assert_family_agrees("phi3_long");
}

#[test]
fn olmo2_agrees_with_transformers() {
    assert_family_agrees("olmo2");
}

pub(super) const FAMILIES: [&str; 15] = [
    "llama",
    "llama_untied",
    "llama3",
    "mistral",
    "qwen2",
    "qwen3",
    "gemma",
    "gemma2",
    "gemma3",
    "gpt2",
    "gpt_neox",
    "gpt_neox_sequential",
    "phi3",
    "phi3_long",
    "olmo2",
];

fn logits(model: &Transformer, texts: &[impl AsRef<[u32]>]) -> Tensor {
    model.head().unembed(&run(model, texts)).unwrap()
}

/// The first `len` tokens of each text.
fn beginnings(texts: &[Vec<u32>], len: usize) -> Vec<&[u32]> {
    texts.iter().map(|text| &text[..len]).collect()
}

#[test]
fn a_short_text_agrees_with_transformers() {
    for name in FAMILIES {
        let (model, reference, tokens) = load(name);
        let want = &reference["short.logits"];
        let got = logits(&model, &beginnings(&tokens, want.dim(1).unwrap()));
        let error = relative_error(&got, want);
        assert!(error < TOLERANCE, "{name}: relative error {error:.1e}");
    }
}

/// transformers ran both texts in one batch, with the shorter one padded on the left and masked; here nothing is
/// padded.
#[test]
fn rows_agree_with_a_padded_batch_of_transformers() {
    for name in FAMILIES {
        let (model, reference, tokens) = load(name);
        let lengths = reference["padded.lengths"].to_vec1::<i64>().unwrap();
        assert!(lengths[1] < lengths[0], "{name}: nothing is padded");
        let texts: Vec<&[u32]> = tokens.iter().zip(&lengths).map(|(text, len)| &text[..*len as usize]).collect();
        let together = logits(&model, &texts);
        for (row, rows) in Batch::of(&texts).spans().enumerate() {
            let len = rows.len();
            let got = together.narrow(0, rows.start, len).unwrap();
            let want = reference["padded.logits"].get(row).unwrap();
            let want = want.narrow(0, want.dim(0).unwrap() - len, len).unwrap();
            let error = relative_error(&got, &want);
            assert!(error < TOLERANCE, "{name} row {row}: relative error {error:.1e}");
        }
    }
}

fn bits(x: &Tensor) -> Vec<u32> {
    x.flatten_all().unwrap().to_vec1::<f32>().unwrap().into_iter().map(f32::to_bits).collect()
}

#[test]
fn the_head_by_itself_is_the_models() {
    for name in FAMILIES {
        let (model, reference, tokens) = load(name);
        let head = Checkpoint::open(&folder(name)).unwrap().load_head(&Device::Cpu, Compute::F32).unwrap();
        let resid = run(&model, &tokens);
        let logits = head.unembed(&resid).unwrap();
        assert_eq!(bits(&logits), bits(&model.head().unembed(&resid).unwrap()), "{name}");
        assert!(relative_error(&logits, &reference["logits"]) < TOLERANCE, "{name}");
        let (rows, last) = (head.w_unembed(&[3, 0]).unwrap(), model.config().d_vocab as u32 - 1);
        assert_eq!(rows.dims2().unwrap(), (2, model.config().d_model), "{name}");
        assert!(head.w_unembed(&[last]).is_ok() && head.w_unembed(&[last + 1]).is_err(), "{name}");
    }
}

/// Returns every activation unchanged.
struct Identity;

impl Hook for Identity {
    fn wants(&self, _point: HookPoint) -> bool {
        true
    }

    fn apply(&mut self, _point: HookPoint, _rows: &Rows, activation: &Tensor) -> Result<Edit> {
        Ok(Edit::Replace(activation.copy()?))
    }
}

#[test]
fn identity_hook_changes_no_bit() {
    for name in FAMILIES {
        let (model, _, tokens) = load(name);
        let hooked = model.resid_final(&Batch::of(&tokens), None, &mut Identity).unwrap();
        assert_eq!(bits(&run(&model, &tokens)), bits(&hooked), "{name}");
    }
}

/// Continues with two copies of the activation at one point.
struct Twice(HookPoint);

impl Hook for Twice {
    fn wants(&self, point: HookPoint) -> bool {
        point == self.0
    }

    fn apply(&mut self, _point: HookPoint, _rows: &Rows, activation: &Tensor) -> Result<Edit> {
        Ok(Edit::Variants(vec![activation.clone(), activation.clone()]))
    }
}

#[test]
fn a_pass_goes_on_with_variants_from_every_point() {
    for name in FAMILIES {
        let (model, _, tokens) = load(name);
        let uneven = [&tokens[0][..], &tokens[1][..5]];
        let plain = bits(&run(&model, &uneven));
        let sites = Site::ALL.into_iter().map(|site| HookPoint::Block { layer: 1, site });
        for point in sites.chain([HookPoint::Embed]).filter(|point| point.check(model.config()).is_ok()) {
            let twice = bits(&model.resid_final(&Batch::of(uneven), None, &mut Twice(point)).unwrap());
            assert!(twice == [&plain[..], &plain[..]].concat(), "{name} {point}");
        }
    }
}

/// Adds a multiple of the number of the variant to the last row of each text: all variants in one pass, or one alone.
struct Nudges {
    point: HookPoint,
    variants: Vec<usize>,
    alone: bool,
}

impl Hook for Nudges {
    fn wants(&self, point: HookPoint) -> bool {
        point == self.point
    }

    fn apply(&mut self, _point: HookPoint, rows: &Rows, activation: &Tensor) -> Result<Edit> {
        let all: Vec<Row> = rows.iter().collect();
        let is_last = |(i, row): (usize, &Row)| all.get(i + 1).is_none_or(|next| next.sequence != row.sequence);
        let last: Vec<f32> = all.iter().enumerate().map(|it| f32::from(u8::from(is_last(it)))).collect();
        let last = Tensor::from_vec(last, (all.len(), 1), activation.device())?;
        let nudged = |variant: &usize| Ok(activation.broadcast_add(&(&last * (0.1 * *variant as f64))?)?);
        let mut variants: Vec<Tensor> = self.variants.iter().map(nudged).collect::<Result<_>>()?;
        Ok(if self.alone { Edit::Replace(variants.remove(0)) } else { Edit::Variants(variants) })
    }
}

#[test]
fn variants_of_one_token_share_a_cached_past_with_the_bits_of_whole_passes() {
    for name in FAMILIES {
        let (model, _, tokens) = load(name);
        let texts = [&tokens[0][..], &tokens[1][..5]];
        let mut cache = KvCache::new(model.config());
        let (mut past, mut next) = (Batch::default(), Batch::default());
        // The second text goes on by two tokens.
        for (text, new) in texts.iter().zip([1, 2]) {
            let (seen, unseen) = text.split_at(text.len() - new);
            let sequence = cache.add(text.len()).unwrap();
            past.push(sequence, seen);
            next.push(sequence, unseen);
        }
        model.resid_final(&past, Some(&mut cache), &mut NoHook).unwrap();
        let continued = [texts[0].len() - 1, texts[0].len() + 3, texts[0].len() + 4];
        let continued = Tensor::new(continued.map(|row| row as u32).as_slice(), &Device::Cpu).unwrap();
        for point in [HookPoint::Embed, HookPoint::resid_post(0), HookPoint::Block { layer: 1, site: Site::MlpPost }] {
            let mut nudges = Nudges { point, variants: (0..40).collect(), alone: false };
            let forked = model.resid_final(&next, Some(&mut cache), &mut nudges).unwrap(); // [40 * 3, d_model]
            for variant in [0, 1, 15, 16, 39] {
                let mut nudge = Nudges { point, variants: vec![variant], alone: true };
                let whole = model.resid_final(&Batch::of(texts), None, &mut nudge).unwrap();
                let (got, want) =
                    (forked.narrow(0, 3 * variant, 3).unwrap(), whole.index_select(&continued, 0).unwrap());
                assert!(bits(&got) == bits(&want), "{name} {point}, variant {variant}");
            }
        }
        assert_eq!([0, 1].map(|text| cache.len(text)), [texts[0].len() - 1, texts[1].len() - 2], "{name}");
        let plain = model.resid_final(&next, Some(&mut cache), &mut NoHook).unwrap();
        assert!(bits(&plain) == bits(&run(&model, &texts).index_select(&continued, 0).unwrap()), "{name}");
    }
}

#[test]
fn a_replacement_of_another_shape_is_refused() {
    /// Returns half of the activation.
    struct Half;
    impl Hook for Half {
        fn wants(&self, point: HookPoint) -> bool {
            point == HookPoint::resid_post(0)
        }
        fn apply(&mut self, _point: HookPoint, _rows: &Rows, activation: &Tensor) -> Result<Edit> {
            Ok(Edit::Replace(activation.narrow(0, 0, activation.dim(0)? / 2)?))
        }
    }
    let (model, _, tokens) = load("llama");
    let message = model.resid_final(&Batch::of(&tokens[..1]), None, &mut Half).unwrap_err().to_string();
    assert!(message.contains("expected an activation of shape [17, 48]"), "{message}");
}

/// Records every row that it is shown.
#[derive(Default)]
struct Census {
    seen: HashMap<HookPoint, Vec<Row>>,
    /// Point at which it makes two variants.
    doubles: Option<HookPoint>,
}

impl Hook for Census {
    fn wants(&self, _point: HookPoint) -> bool {
        true
    }

    fn apply(&mut self, point: HookPoint, rows: &Rows, activation: &Tensor) -> Result<Edit> {
        assert_eq!(activation.dim(0)?, rows.len(), "{point}");
        self.seen.entry(point).or_default().extend(rows.iter());
        let doubles = self.doubles == Some(point);
        Ok(if doubles { Edit::Variants(vec![activation.clone(), activation.clone()]) } else { Edit::Keep })
    }
}

#[test]
fn a_hook_sees_each_token_once_and_knows_its_sequence_and_position() {
    for name in ["llama", "gpt2", "gpt_neox", "olmo2"] {
        let (model, _, tokens) = load(name);
        let mut cache = KvCache::new(model.config());
        let (n, numbers) = (tokens[0].len(), [0, 1].map(|_| cache.add(17).unwrap()));
        let mut census = Census::default();
        // The second text in three passes, beside the two passes of the first.
        for parts in [[0..9, 0..4], [9..n, 4..5], [n..n, 5..12]] {
            let mut batch = Batch::default();
            for ((number, text), part) in numbers.iter().zip(&tokens).zip(parts).filter(|(_, part)| !part.is_empty()) {
                batch.push(*number, &text[part]);
            }
            model.resid_final(&batch, Some(&mut cache), &mut census).unwrap();
        }
        let of_text = |(sequence, len): (usize, usize)| {
            let rows = tokens[sequence][..len].iter().enumerate();
            rows.map(move |(position, token)| Row { variant: 0, sequence, position, token: *token })
        };
        let mut want: Vec<Row> = [(0, n), (1, 12)].into_iter().flat_map(of_text).collect();
        want.sort_by_key(|row| (row.sequence, row.position));
        assert_eq!(census.seen.len(), every_point(&model).len(), "{name}");
        for (point, mut rows) in census.seen {
            rows.sort_by_key(|row| (row.sequence, row.position));
            assert_eq!(rows, want, "{name} {point}");
        }
    }
    let (model, _, tokens) = load("llama");
    let [pre, mid] = [Site::ResidPre, Site::ResidMid].map(|site| HookPoint::Block { layer: 1, site });
    let mut census = Census { doubles: Some(pre), ..Census::default() };
    model.resid_final(&Batch::of(&tokens), None, &mut census).unwrap();
    assert_eq!((census.seen[&pre].len(), census.seen[&mid].len()), (34, 68));
    let variant = |variant: usize| census.seen[&mid].iter().filter(|row| row.variant == variant).count();
    assert_eq!((variant(0), variant(1)), (34, 34));
}

#[test]
fn a_replaced_activation_reaches_the_rest_of_the_pass() {
    /// Zeroes the residual stream after block 0.
    struct Zero;
    impl Hook for Zero {
        fn wants(&self, point: HookPoint) -> bool {
            point == HookPoint::resid_post(0)
        }
        fn apply(&mut self, _point: HookPoint, _rows: &Rows, activation: &Tensor) -> Result<Edit> {
            Ok(Edit::Replace(activation.zeros_like()?))
        }
    }
    let (model, _, tokens) = load("llama");
    let zeroed = model.resid_final(&Batch::of(&tokens), None, &mut Zero).unwrap();
    // With a zero residual stream, every position of a llama (no biases) stays zero.
    assert!(bits(&zeroed).into_iter().all(|bits| f32::from_bits(bits) == 0.0));
}

/// Bit for bit, where products are ours: elsewhere the order of a sum depends on how many rows there are.
fn assert_same(got: &Tensor, want: &Tensor, what: &str) {
    if Compute::F32.has_own_products() {
        assert!(bits(got) == bits(want), "{what}: relative error {:.1e}", relative_error(got, want));
    } else {
        assert!(relative_error(got, want) < 2e-6, "{what}: {:.1e}", relative_error(got, want));
    }
}

#[test]
fn a_text_of_a_batch_is_what_it_is_alone() {
    for name in FAMILIES {
        let (model, _, tokens) = load(name);
        let texts = [&tokens[0][..], &tokens[1][..6], &tokens[0][3..4], &tokens[1][..]];
        let together = run(&model, &texts);
        for (text, rows) in texts.iter().zip(Batch::of(texts).spans()) {
            let rows = together.narrow(0, rows.start, rows.len()).unwrap();
            assert_same(&run(&model, &[text]), &rows, name);
        }
    }
}

#[test]
fn a_cached_continuation_is_the_whole_text() {
    for name in FAMILIES {
        let (model, _, tokens) = load(name);
        let whole = run(&model, &tokens);
        let pos = tokens[0].len();
        let mut cache = KvCache::new(model.config());
        let numbers = [0, 1].map(|_| cache.add(pos).unwrap());
        let mut parts = [vec![], vec![]];
        for cut in [0, 9, 10, 11, pos].windows(2) {
            let mut batch = Batch::default();
            numbers.iter().zip(&tokens).for_each(|(number, text)| batch.push(*number, &text[cut[0]..cut[1]]));
            let resid = model.resid_final(&batch, Some(&mut cache), &mut NoHook).unwrap();
            parts.iter_mut().zip(batch.spans()).for_each(|(part, rows)| {
                part.push(resid.narrow(0, rows.start, rows.len()).unwrap());
            });
        }
        assert_same(&Tensor::cat(&parts.concat(), 0).unwrap(), &whole, name);
        let mut more = Batch::default();
        more.push(numbers[1], &[1]);
        assert!(model.resid_final(&more, Some(&mut cache), &mut NoHook).is_err(), "{name}: a full cache took more");
    }
}

/// Writes greedy texts of several lengths: their tokens, and the logits from which each was chosen.
struct Writer<'a> {
    model: &'a Transformer,
    cache: KvCache,
}

impl Writer<'_> {
    /// Writes one more token for each text; `texts` has its number in the cache, and its tokens that the cache has not
    /// seen.
    fn step(&mut self, texts: &[(usize, Vec<u32>)]) -> Vec<(u32, Tensor)> {
        let mut batch = Batch::default();
        texts.iter().for_each(|(number, unseen)| batch.push(*number, unseen));
        let resid = self.model.resid_final(&batch, Some(&mut self.cache), &mut NoHook).unwrap();
        let last = Tensor::new(batch.last_rows(), &Device::Cpu).unwrap();
        let logits = self.model.head().unembed(&resid.index_select(&last, 0).unwrap()).unwrap();
        let chosen = logits.argmax(1).unwrap().to_vec1::<u32>().unwrap();
        chosen.into_iter().enumerate().map(|(row, token)| (token, logits.narrow(0, row, 1).unwrap())).collect()
    }
}

/// With products of either type, sixteen prompts of 1 to 12 tokens, continued side by side for 1 to 9 tokens; one starts when another has ended.
#[test]
fn sixteen_texts_written_together_are_what_each_is_alone() {
    for (name, compute) in FAMILIES.iter().flat_map(|name| [(*name, Compute::F32), (*name, Compute::Int8)]) {
        let tokens = load(name).2;
        let model = Transformer::load_for(&Checkpoint::open(&folder(name)).unwrap(), &Device::Cpu, compute).unwrap();
        let prompt = |i: usize| tokens[i % 2][i % 5..][..1 + i * 7 % 12].to_vec();
        // LongRoPE refuses a text that grows beyond its short length of 8 tokens: here some end before it, beside
        // longer ones.
        let most = |i: usize| if name == "phi3_long" && prompt(i).len() <= 8 { 9 - prompt(i).len() } else { 9 };
        let new = |i: usize| 1 + i * 5 % most(i);
        let alone: Vec<Vec<(u32, Tensor)>> = (0..16)
            .map(|i| {
                let mut writer = Writer { model: &model, cache: KvCache::new(model.config()) };
                let (number, mut unseen) = (writer.cache.add(24).unwrap(), prompt(i));
                let mut step = || {
                    let (token, logits) = writer.step(&[(number, unseen.clone())]).remove(0);
                    unseen = vec![token];
                    (token, logits)
                };
                (0..new(i)).map(|_| step()).collect()
            })
            .collect();
        let mut writer = Writer { model: &model, cache: KvCache::new(model.config()) };
        let mut waiting: Vec<usize> = (0..16).rev().collect();
        let mut writing: Vec<(usize, usize, usize, Vec<u32>)> = vec![]; // which, number, written, unseen
        while !waiting.is_empty() || !writing.is_empty() {
            while writing.len() < 11
                && let Some(i) = waiting.pop()
            {
                writing.push((i, writer.cache.add(24).unwrap(), 0, prompt(i)));
            }
            let texts: Vec<_> = writing.iter().map(|(_, number, _, unseen)| (*number, unseen.clone())).collect();
            for ((i, _, written, unseen), (token, logits)) in writing.iter_mut().zip(writer.step(&texts)) {
                let (want, want_logits) = &alone[*i][*written];
                assert_same(&logits, want_logits, &format!("{name} in {compute}, text {i}, token {written}"));
                assert_eq!(token, *want);
                (*written, *unseen) = (*written + 1, vec![token]);
            }
            writing.retain(|(i, number, written, _)| {
                if *written == new(*i) {
                    writer.cache.free(*number);
                }
                *written < new(*i)
            });
        }
        assert!(writer.cache.is_empty(), "{name}");
    }
}

#[test]
fn sequences_that_a_cache_does_not_have_are_refused() {
    let (model, ..) = load("llama");
    let mut cache = KvCache::new(model.config());
    let first = cache.add(3).unwrap();
    let mut refused = |numbers: &[usize], tokens: &[u32]| {
        let mut batch = Batch::default();
        numbers.iter().for_each(|number| batch.push(*number, tokens));
        model.resid_final(&batch, Some(&mut cache), &mut NoHook).unwrap_err().to_string()
    };
    assert!(refused(&[first, 7], &[1]).contains("sequence 7"));
    assert!(refused(&[first, first], &[1]).contains("sequence 0 twice"));
    assert!(refused(&[first], &[1, 2, 3, 4]).contains("at most 3 tokens"));
    assert!(refused(&[first], &[]).contains("at least one token"));
    assert!(refused(&[], &[]).contains("at least one token"));
    cache.free(first);
    assert_eq!(cache.add(3).unwrap(), first + 1, "a number is never given twice");
    assert!(cache.add(model.config().ctx_len + 1).is_err());
}

/// A window wider than the text changes nothing; the windows of the fixtures do.
#[test]
fn windows_are_felt() {
    for name in ["mistral", "qwen2", "gemma2", "gemma3", "phi3"] {
        let (model, _, tokens) = load(name);
        let window = (0..3).find_map(|layer| model.config().window(layer)).unwrap();
        let text = &tokens[0];
        assert!(window < text.len(), "{name}");
        let mut other = text.clone();
        other[0] = (other[0] + 1) % 100;
        // The first block of these is local or, in Qwen 2, global: a token beyond the window feels the change or not.
        let captures = [text, &other].map(|text| {
            let mut capture = Capture::new(vec![HookPoint::resid_post(0)]);
            model.run(&Batch::of([text]), &mut capture).unwrap();
            capture.take(HookPoint::resid_post(0)).unwrap().narrow(0, window, text.len() - window).unwrap()
        });
        let same = bits(&captures[0]) == bits(&captures[1]);
        assert_eq!(same, model.config().window(0).is_some(), "{name}");
    }
}

#[test]
fn a_pass_ends_after_the_last_point_wanted() {
    let (model, _, tokens) = load("llama");
    let mut capture = Capture::new(vec![HookPoint::resid_post(0)]);
    assert_eq!(model.last_wanted(&capture), Some(HookPoint::resid_post(0)));
    model.run(&Batch::of(&tokens), &mut capture).unwrap();
    assert!(capture.take(HookPoint::resid_post(0)).is_some());
    assert!(model.config().flop_per_token(1, 17) < model.config().flop_per_token(3, 17));
}

#[test]
fn points_that_a_model_lacks_are_named() {
    let (model, ..) = load("gpt_neox");
    let past = HookPoint::resid_post(3).check(model.config()).unwrap_err().to_string();
    assert!(past.contains("0 to 2") && past.contains("blocks.3.hook_resid_post"), "{past}");
    let mid = HookPoint::Block { layer: 0, site: Site::ResidMid };
    assert!(mid.check(model.config()).unwrap_err().to_string().contains("parallel"));
    let (model, ..) = load("olmo2");
    let normalized = HookPoint::Block { layer: 0, site: Site::Ln1Normalized };
    assert!(normalized.check(model.config()).unwrap_err().to_string().contains("olmo2 has no norms before"));
}

#[test]
fn a_token_outside_the_vocabulary_is_an_error() {
    let (model, ..) = load("llama");
    let error = model.resid_final(&Batch::of([[1, 300]]), None, &mut NoHook).unwrap_err().to_string();
    assert!(error.contains("300"), "{error}");
}

#[test]
fn eight_bits_stay_near_f32_and_a_text_of_a_batch_is_what_it_is_alone() {
    for name in ["llama", "gpt2", "gpt_neox"] {
        let (exact, _, tokens) = load(name);
        let checkpoint = Checkpoint::open(&folder(name)).unwrap();
        let model = Transformer::load_for(&checkpoint, &Device::Cpu, Compute::Int8).unwrap();
        let resid = run(&model, &tokens);
        let error = relative_error(&resid, &run(&exact, &tokens));
        // Each token goes through about six products, and each is off by half a step of 1/127 of its group's largest
        // value.
        assert!(error > 1e-4 && error < 3e-2, "{name}: {error:.1e}");
        for (text, rows) in tokens.iter().zip(Batch::of(&tokens).spans()) {
            let alone = run(&model, &[text]);
            assert_eq!(bits(&resid.narrow(0, rows.start, rows.len()).unwrap()), bits(&alone), "{name}");
        }
    }
}
