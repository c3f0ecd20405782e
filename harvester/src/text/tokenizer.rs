//! [`TextTokenizer`]: text to token ids and back, exactly as in the model's training. It is used between documents and
//! contexts, and wherever a latent's tokens are shown.
//!
//! There are two sources, with one file each: a folder's `tokenizer.json` (`folder.rs`), and the vocabulary inside a
//! GGUF (`gguf.rs`). `spelling.rs` gives the bytes of a token; a text is the bytes of its tokens.

mod attribution;
mod chat;
mod chat_date;
mod folder;
mod gguf;
mod python_text;
mod role;
mod spelling;
mod text_stream;

use std::{
    collections::{BTreeMap, HashSet},
    path::{Path, PathBuf},
    sync::OnceLock,
};

use tokenizers::Tokenizer;

pub(crate) use self::{
    chat::{CALLS, ChatMessage},
    role::Encoded,
    text_stream::TextStream,
};
pub use self::{chat_date::ChatDate, role::Role};
use super::special_token::SpecialToken;
use crate::{Error, Result};

/// A model's tokenizer, its special tokens and its chat template.
#[derive(Debug)]
pub struct TextTokenizer {
    path: PathBuf,
    tokenizer: Tokenizer,
    bos: Option<u32>,
    eos: Option<u32>,
    stop: HashSet<u32>,
    add_bos: bool,
    chat_template: Option<String>,
    /// The special tokens that the chat template knows by name, such as `bos_token`.
    template_tokens: BTreeMap<String, String>,
    sha256: String,
    /// Set once it was said that a message spells a special token.
    warned: OnceLock<()>,
}

impl TextTokenizer {
    /// Opens the tokenizer of a model: `tokenizer.json` in a folder, or the metadata of a `.gguf` file.
    ///
    /// # Errors
    /// The file cannot be read, is damaged, or holds a kind of tokenizer that refract cannot reproduce exactly.
    pub(crate) fn open(model_path: &Path) -> Result<Self> {
        if model_path.is_dir() { folder::read(model_path) } else { gguf::read(model_path) }
    }

    /// The token ids of a text. No BOS or EOS is added. Special tokens spelled out in the text become their ids, and
    /// bytes outside the vocabulary are dropped, both as in Hugging Face's tokenizers.
    ///
    /// # Errors
    /// The tokenizer refuses the text (an unknown token in a vocabulary that has no unknown token).
    pub(crate) fn encode(&self, text: &str) -> Result<Vec<u32>> {
        let encoding = self.tokenizer.encode_fast(text, false).map_err(|source| self.failed(source))?;
        Ok(encoding.get_ids().to_vec())
    }

    /// The token ids of a conversation as the model's chat template writes it, and the role of each.
    ///
    /// # Errors
    /// If the model has no chat template, or the template refuses these messages.
    pub(crate) fn encode_chat(&self, date: ChatDate, messages: &[ChatMessage]) -> Result<Encoded> {
        let text = self.render_chat(date, messages, false)?;
        let spans = attribution::attribute(messages, &text, |marked| self.render_chat(date, marked, false).ok());
        let encoding = self.tokenizer.encode(text, false).map_err(|source| self.failed(source))?;
        let roles = role::roles_of(encoding.get_offsets(), &spans);
        self.warn_of_control(encoding.get_tokens(), &roles);
        Ok(Encoded { tokens: encoding.get_ids().to_vec(), roles })
    }

    /// Like [`Self::encode_chat`], of a conversation with turns that call a tool and say nothing.
    ///
    /// # Errors
    /// A turn that does neither; or a template that does not know such turns and writes their content as a word, `None`.
    pub(crate) fn encode_incomplete_chat(&self, date: ChatDate, messages: &[ChatMessage]) -> Result<Encoded> {
        if messages.iter().any(|message| !message.has_content && !message.calls_tool()) {
            return Err(self.refused("a turn has no content, null or absent, and calls no tool"));
        }
        let words = |text: String| text.matches("None").count() + text.matches("null").count();
        let with_empty: Vec<_> =
            messages.iter().map(|message| ChatMessage { has_content: true, ..message.clone() }).collect();
        let silent = words(self.render_chat(date, messages, false)?);
        if silent > self.render_chat(date, &with_empty, false).map_or(0, words) {
            return Err(
                self.refused("it writes `None` or `null` as the content of a turn that calls a tool and has none")
            );
        }
        self.encode_chat(date, messages)
    }

    /// Warns once if a message, and not the template, wrote a special token.
    fn warn_of_control(&self, tokens: &[String], roles: &[Option<Role>]) {
        let added = self.tokenizer.get_added_vocabulary();
        let is_said = |role: &Option<Role>| role.is_some_and(|role| role != Role::Template);
        let said = tokens.iter().zip(roles).find(|(token, role)| is_said(role) && added.is_special_token(token));
        if let Some((token, _)) = said.filter(|_| self.warned.set(()).is_ok()) {
            tracing::warn!(
                "a message spells the control token {token}: it becomes that token, as in transformers, and so in any \
                 other message"
            );
        }
    }

    /// The text of some tokens, including special ones. A character with missing bytes becomes U+FFFD.
    pub fn decode(&self, ids: &[u32]) -> String {
        let mut stream = TextStream::new(self);
        let mut text: String = ids.iter().map(|id| stream.push(*id)).collect();
        text.push_str(&stream.finish());
        text
    }

    /// One token as a reader should see it, including spaces: bytes that are no whole character as `<0xE2>`, so that
    /// tokens can be told apart; `[id]` for an id outside the vocabulary.
    pub fn token_text(&self, id: u32) -> String {
        let Some(piece) = self.tokenizer.id_to_token(id) else { return format!("[{id}]") };
        let mut text = String::new();
        for chunk in self.bytes(id, false).utf8_chunks() {
            text += chunk.valid();
            chunk.invalid().iter().for_each(|byte| text += &format!("<0x{byte:02X}>"));
        }
        if text.is_empty() { piece } else { text }
    }

    /// Each of several consecutive tokens as a reader should see it. A character that is spread over several tokens is
    /// shown at the last of them; the others are empty.
    pub fn token_texts(&self, ids: &[u32]) -> Vec<String> {
        let mut stream = TextStream::continuing(self);
        let mut texts: Vec<String> = ids.iter().map(|id| stream.push(*id)).collect();
        // The first tokens may be the end of a character; such a rest is not shown.
        for text in texts.iter_mut().take(3) {
            let rest = text.trim_start_matches(char::REPLACEMENT_CHARACTER);
            if rest.len() == text.len() && !text.is_empty() {
                break;
            }
            *text = rest.to_string();
        }
        if let Some(last) = texts.last_mut() {
            last.push_str(&stream.finish());
        }
        texts
    }

    /// The bytes of a token; none for an id outside the vocabulary.
    fn bytes(&self, id: u32, begins_text: bool) -> Vec<u8> {
        let piece = self.tokenizer.id_to_token(id);
        piece.map_or_else(Vec::new, |piece| spelling::bytes_of(&self.tokenizer, piece, begins_text))
    }

    /// The end-of-text token.
    pub(crate) fn eos(&self) -> Option<u32> {
        self.eos
    }

    /// The tokens that are marks and no text, such as those around a text or a turn. True for those with which a generated
    /// text ends: the end-of-sequence token, the end of a turn, and whatever else the model's files name.
    pub fn special_tokens(&self) -> BTreeMap<u32, bool> {
        let added = self.tokenizer.get_added_tokens_decoder();
        let special = added.into_iter().filter(|(_, token)| token.special).map(|(id, _)| id);
        let marks = special.chain(self.bos).map(|id| (id, false));
        marks.chain(self.stop.iter().map(|id| (*id, true))).collect()
    }

    /// The token with which every text begins; `None` if the model was trained without one.
    pub(crate) fn text_bos(&self) -> Option<u32> {
        self.bos.filter(|_| self.add_bos)
    }

    /// The tokens of a complete text, with `bos` before it: the model's own as in its training, that of a harvest, or
    /// none. It is never there twice, even if a chat template has already written it.
    ///
    /// # Errors
    /// If the tokenizer refuses the text.
    pub fn prompt(&self, bos: SpecialToken, text: &str) -> Result<Vec<u32>> {
        let (bos, tokens) = (bos.resolve(self.text_bos()).id(), self.encode(text)?);
        Ok(bos_before(bos, tokens.first().copied()).into_iter().chain(tokens).collect())
    }

    /// SHA-256 in hexadecimal: of `tokenizer.json`, or of the vocabulary, merges and rules inside a GGUF.
    pub(crate) fn sha256(&self) -> &str {
        &self.sha256
    }

    /// A message to the model as the prompt that its own chat template makes of it, on the default day.
    ///
    /// # Errors
    /// The model has no chat template, or the template refuses the message.
    pub fn chat_prompt(&self, message: &str) -> Result<String> {
        self.render_chat(ChatDate::default(), &[ChatMessage::new("user", message)], true)
    }

    /// The text of a conversation, by the model's own chat template. Some templates write the date.
    pub(crate) fn render_chat(
        &self,
        date: ChatDate,
        messages: &[ChatMessage],
        add_generation_prompt: bool,
    ) -> Result<String> {
        let Some(template) = &self.chat_template else {
            let hint = "It is not a chat model: give it a plain prompt";
            return Err(Error::malformed(&self.path, "a chat template", "none", hint));
        };
        let tokens = &self.template_tokens;
        let prompt = chat::Prompt { messages, tools: None, documents: None, add_generation_prompt, tokens };
        chat::render(template, &prompt, date).map_err(|source| self.refused(&chat::reason(&source)))
    }

    /// The error for a conversation that the chat template refuses.
    pub(crate) fn refused(&self, reason: &str) -> Error {
        Error::ChatTemplate { path: self.path.clone(), reason: reason.to_owned() }
    }

    fn failed(&self, source: tokenizers::Error) -> Error {
        Error::Tokenizer { path: self.path.clone(), source }
    }
}

#[cfg(test)]
impl TextTokenizer {
    /// True if a generated text ends with this token.
    pub(crate) fn is_stop(&self, id: u32) -> bool {
        self.special_tokens().get(&id) == Some(&true)
    }

    /// The beginning-of-text token.
    pub(crate) fn bos(&self) -> Option<u32> {
        self.bos
    }

    /// True if the model was trained with [`bos`](Self::bos) before every text.
    pub(crate) fn add_bos(&self) -> bool {
        self.add_bos
    }

    /// Number of tokens, including added ones. The model's `d_vocab` may be larger: embeddings are often padded.
    pub(crate) fn d_vocab(&self) -> usize {
        self.tokenizer.get_vocab_size(true)
    }
}

/// The token to put before a text that begins with the token `first`: `bos`, or none if the text already begins with
/// it. Models never see two in training.
pub(crate) fn bos_before(bos: Option<u32>, first: Option<u32>) -> Option<u32> {
    bos.filter(|_| first != bos)
}
