//! [`read`]: reads the part of pickle that PyTorch uses for a dictionary of tensors, without running any code.
//!
//! A pickle is a program that may call any Python function. This reader knows only four kinds of names: an ordered
//! dictionary, a view into a storage, a parameter, and the storages. It turns them into data. Any other name or
//! instruction is an error. The file limits all sizes, and [`MOST_CONTAINERS`] limits the depth of nesting.
//!
//! Even a short file can nest tuples forty levels deep and use each one twice in the next: code that visits all leaves
//! would visit 2^40. So this code never prints, compares or copies the contents of a value; messages contain only its
//! [`Value::kind`].

use std::{collections::HashMap, rc::Rc};

use super::named_tensors::Stored;

/// Largest number of tuples, lists and dictionaries in one file. An SAE's file has a few dozen; a chain of millions
/// would overflow the stack.
const MOST_CONTAINERS: usize = 4096;

/// Largest number of dimensions of a tensor. An SAE's tensors have two; a tuple of a million sizes, used a thousand
/// times, would fill the memory.
const MOST_DIMENSIONS: usize = 8;

/// A function or class that a pickle names.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Global {
    OrderedDict,
    RebuildTensor,
    /// A trainable tensor. `state_dict()` has none; a dictionary of `named_parameters()` has them.
    RebuildParameter,
    Storage(Stored),
}

/// The storage that holds a tensor's values.
#[derive(Debug, PartialEq)]
pub(super) struct Storage {
    /// Name of the file that holds them.
    pub(super) key: Rc<str>,
    pub(super) stored: Stored,
    /// Number of values.
    pub(super) len: usize,
}

/// A tensor: a view into a storage, measured in values, not bytes.
#[derive(Debug, PartialEq)]
pub(super) struct View {
    pub(super) storage: Rc<Storage>,
    pub(super) offset: usize,
    pub(super) shape: Vec<usize>,
    pub(super) stride: Vec<usize>,
}

#[derive(Clone)]
#[cfg_attr(test, derive(Debug, PartialEq))]
pub(super) enum Value {
    None,
    /// No reader needs the value, so it is not kept.
    Bool,
    Int(i64),
    /// No reader needs this value either: an SAE's numbers are in tensors.
    Float,
    Text(Rc<str>),
    /// Shared, never copied, even if it is used often: a short file must not become a large value.
    Tuple(Rc<Vec<Value>>),
    List(Vec<Value>),
    Dict(Vec<(Rc<str>, Value)>),
    Global(Global),
    Storage(Rc<Storage>),
    Tensor(Rc<View>),
}

impl Value {
    /// The kind of the value, for messages.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::None => "nothing",
            Self::Bool => "a Boolean",
            Self::Int(_) => "an integer",
            Self::Float => "a number",
            Self::Text(_) => "a string",
            Self::Tuple(_) => "a tuple",
            Self::List(_) => "a list",
            Self::Dict(_) => "a dictionary",
            Self::Global(_) => "a function or class",
            Self::Storage(_) => "a storage",
            Self::Tensor(_) => "a tensor",
        }
    }

    pub(super) fn text(&self) -> Option<&str> {
        if let Self::Text(text) = self { Some(text) } else { None }
    }

    pub(super) fn size(&self) -> Option<usize> {
        if let Self::Int(number) = self { usize::try_from(*number).ok() } else { None }
    }

    /// The entry of a dictionary under `key`.
    pub(super) fn field(&self, key: &str) -> Option<&Self> {
        let Self::Dict(entries) = self else { return None };
        entries.iter().find(|(name, _)| **name == *key).map(|(_, value)| value)
    }

    fn sizes(&self) -> Option<Vec<usize>> {
        let Self::Tuple(items) = self else { return None };
        (items.len() <= MOST_DIMENSIONS).then_some(())?;
        items.iter().map(Self::size).collect()
    }
}

/// Reads a pickle. An error describes what was found instead of a dictionary of tensors.
pub(super) fn read(bytes: &[u8]) -> Result<Value, String> {
    let mut machine = Machine { bytes, at: 0, stack: vec![], marks: vec![], memo: HashMap::new(), containers: 0 };
    loop {
        let at = machine.at;
        let op = machine.byte()?;
        if op == b'.' {
            return machine.pop();
        }
        let known = machine.scalar(op)? || machine.container(op)? || machine.reference(op)? || machine.object(op)?;
        if !known {
            return Err(format!(
                "the pickle instruction {op:#04x} at byte {at}, which a dictionary of tensors does not need"
            ));
        }
    }
}

struct Machine<'a> {
    bytes: &'a [u8],
    at: usize,
    stack: Vec<Value>,
    /// Heights of the stack at which tuples, lists and dictionaries begin.
    marks: Vec<usize>,
    /// Stored values by number; `None` for lists and dictionaries, which may change after they were stored.
    memo: HashMap<u32, Option<Value>>,
    containers: usize,
}

impl Machine<'_> {
    fn scalar(&mut self, op: u8) -> Result<bool, String> {
        let value = match op {
            b'N' => Value::None,
            0x88 | 0x89 => Value::Bool,
            b'K' => Value::Int(i64::from(self.byte()?)),
            b'M' => Value::Int(i64::from(u16::from_le_bytes(self.array()?))),
            b'J' => Value::Int(i64::from(i32::from_le_bytes(self.array()?))),
            0x8a => self.long()?,
            b'G' => {
                self.slice(8)?;
                Value::Float
            }
            b'X' => {
                let len = u32::from_le_bytes(self.array()?);
                self.text(len as usize)?
            }
            0x8c => {
                let len = self.byte()?;
                self.text(len as usize)?
            }
            _ => return Ok(false),
        };
        self.stack.push(value);
        Ok(true)
    }

    fn container(&mut self, op: u8) -> Result<bool, String> {
        match op {
            b'(' => self.marks.push(self.stack.len()),
            b')' => self.tuple(0)?,
            0x85..=0x87 => self.tuple(usize::from(op - 0x84))?,
            b't' => {
                let len = self.since_mark()?;
                self.tuple(len)?;
            }
            b'}' => self.push_container(Value::Dict(vec![]))?,
            b']' => self.push_container(Value::List(vec![]))?,
            b's' => self.set_items(2)?,
            b'u' => {
                let len = self.since_mark()?;
                self.set_items(len)?;
            }
            b'a' => self.append(1)?,
            b'e' => {
                let len = self.since_mark()?;
                self.append(len)?;
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn reference(&mut self, op: u8) -> Result<bool, String> {
        match op {
            0x80 => drop(self.byte()?),
            0x95 => drop(self.array::<8>()?),
            b'q' => {
                let place = u32::from(self.byte()?);
                self.keep(place)?;
            }
            b'r' => {
                let place = u32::from_le_bytes(self.array()?);
                self.keep(place)?;
            }
            0x94 => self.keep(self.memo.len() as u32)?,
            b'h' => {
                let place = u32::from(self.byte()?);
                self.recall(place)?;
            }
            b'j' => {
                let place = u32::from_le_bytes(self.array()?);
                self.recall(place)?;
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn object(&mut self, op: u8) -> Result<bool, String> {
        match op {
            b'c' => {
                let (module, name) = (self.line()?, self.line()?);
                self.global(&module, &name)?;
            }
            0x93 => {
                let (name, module) = (self.pop()?, self.pop()?);
                self.global(module.text().unwrap_or_default(), name.text().unwrap_or_default())?;
            }
            b'Q' => {
                let id = self.pop()?;
                let storage = storage(&id).ok_or_else(|| format!("{} instead of the id of a storage", id.kind()))?;
                self.stack.push(Value::Storage(Rc::new(storage)));
            }
            b'R' => {
                let (arguments, function) = (self.pop()?, self.pop()?);
                let found = || format!("{} called with {}", function.kind(), arguments.kind());
                let made = call(&function, &arguments).ok_or_else(found)?;
                self.push_container(made)?;
            }
            b'b' => {
                // A module's dictionary has version numbers beside its tensors. They are not needed here.
                let state = self.pop()?;
                if state.field("_metadata").is_none() || !matches!(self.stack.last(), Some(Value::Dict(_))) {
                    return Err(format!("{} as the state of an object", state.kind()));
                }
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn global(&mut self, module: &str, name: &str) -> Result<(), String> {
        let global = match (module, name) {
            ("collections", "OrderedDict") => Global::OrderedDict,
            ("torch._utils", "_rebuild_tensor_v2") => Global::RebuildTensor,
            ("torch._utils", "_rebuild_parameter") => Global::RebuildParameter,
            ("torch", "DoubleStorage") => Global::Storage(Stored::F64),
            ("torch", "FloatStorage") => Global::Storage(Stored::F32),
            ("torch", "HalfStorage") => Global::Storage(Stored::F16),
            ("torch", "BFloat16Storage") => Global::Storage(Stored::Bf16),
            ("torch", "LongStorage") => Global::Storage(Stored::I64),
            ("torch", "IntStorage") => Global::Storage(Stored::I32),
            ("torch", "BoolStorage") => Global::Storage(Stored::Bool),
            _ => return Err(format!("`{module}.{name}`, which Python would load and may run; nothing was run")),
        };
        self.stack.push(Value::Global(global));
        Ok(())
    }

    fn tuple(&mut self, len: usize) -> Result<(), String> {
        let items = self.take(len)?;
        self.push_container(Value::Tuple(Rc::new(items)))
    }

    fn set_items(&mut self, len: usize) -> Result<(), String> {
        let items = self.take(len)?;
        let Some(Value::Dict(entries)) = self.stack.last_mut() else {
            return Err("dictionary entries without a dictionary".into());
        };
        let mut items = items.into_iter();
        while let (Some(key), Some(value)) = (items.next(), items.next()) {
            let Value::Text(key) = key else { return Err(format!("{} as a key of a dictionary", key.kind())) };
            if entries.iter().any(|(known, _)| *known == key) {
                return Err(format!("{key:?} twice in a dictionary"));
            }
            entries.push((key, value));
        }
        Ok(())
    }

    fn append(&mut self, len: usize) -> Result<(), String> {
        let items = self.take(len)?;
        let Some(Value::List(list)) = self.stack.last_mut() else { return Err("list items without a list".into()) };
        list.extend(items);
        Ok(())
    }

    fn push_container(&mut self, value: Value) -> Result<(), String> {
        self.containers += 1;
        if self.containers > MOST_CONTAINERS {
            return Err(format!("more than {MOST_CONTAINERS} tuples, lists and dictionaries"));
        }
        self.stack.push(value);
        Ok(())
    }

    fn keep(&mut self, place: u32) -> Result<(), String> {
        let top = self.stack.last().ok_or("an empty stack to store a value from")?;
        let kept = (!matches!(top, Value::List(_) | Value::Dict(_))).then(|| top.clone());
        self.memo.insert(place, kept);
        Ok(())
    }

    fn recall(&mut self, place: u32) -> Result<(), String> {
        let kept = self.memo.get(&place).ok_or_else(|| format!("value number {place}, which was never stored"))?;
        let kept = kept.clone().ok_or("a list or dictionary that is used twice")?;
        self.stack.push(kept);
        Ok(())
    }

    /// Removes the last mark and returns the number of values above it.
    fn since_mark(&mut self) -> Result<usize, String> {
        let mark = self.marks.pop().ok_or("the end of a container without its beginning")?;
        self.stack.len().checked_sub(mark).ok_or_else(|| "the end of a container whose values are missing".into())
    }

    /// The last `len` values of the stack.
    fn take(&mut self, len: usize) -> Result<Vec<Value>, String> {
        let rest = self.stack.len().checked_sub(len).ok_or("fewer values on the stack than needed")?;
        Ok(self.stack.split_off(rest))
    }

    fn pop(&mut self) -> Result<Value, String> {
        self.stack.pop().ok_or_else(|| "fewer values on the stack than needed".into())
    }

    fn long(&mut self) -> Result<Value, String> {
        let len = usize::from(self.byte()?);
        let bytes = self.slice(len)?;
        if len > 8 {
            return Err(format!("an integer of {len} bytes"));
        }
        let negative = bytes.last().is_some_and(|byte| byte & 0x80 != 0);
        let mut number = [if negative { 0xff } else { 0 }; 8];
        number[..len].copy_from_slice(bytes);
        Ok(Value::Int(i64::from_le_bytes(number)))
    }

    fn text(&mut self, len: usize) -> Result<Value, String> {
        let text = std::str::from_utf8(self.slice(len)?).map_err(|error| format!("text that is not UTF-8: {error}"))?;
        Ok(Value::Text(text.into()))
    }

    fn line(&mut self) -> Result<String, String> {
        let rest = &self.bytes[self.at..];
        let len = rest.iter().position(|&byte| byte == b'\n').ok_or("a name without an end")?;
        let line = String::from_utf8_lossy(&rest[..len]).into_owned();
        self.at += len + 1;
        Ok(line)
    }

    fn byte(&mut self) -> Result<u8, String> {
        Ok(self.array::<1>()?[0])
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], String> {
        let mut array = [0; N];
        array.copy_from_slice(self.slice(N)?);
        Ok(array)
    }

    fn slice(&mut self, len: usize) -> Result<&[u8], String> {
        let end = self.at.checked_add(len).filter(|&end| end <= self.bytes.len()).ok_or("the end of the file")?;
        let slice = &self.bytes[self.at..end];
        self.at = end;
        Ok(slice)
    }
}

/// `('storage', torch.FloatStorage, '0', 'cpu', 24)`
fn storage(id: &Value) -> Option<Storage> {
    let Value::Tuple(id) = id else { return None };
    let [kind, Value::Global(Global::Storage(stored)), Value::Text(key), _device, len] = &id[..] else { return None };
    (kind.text()? == "storage").then_some(())?;
    Some(Storage { key: key.clone(), stored: *stored, len: len.size()? })
}

/// The return value of the functions that this reader knows.
fn call(function: &Value, arguments: &Value) -> Option<Value> {
    let (Value::Global(function), Value::Tuple(arguments)) = (function, arguments) else { return None };
    match (function, &arguments[..]) {
        (Global::OrderedDict, []) => Some(Value::Dict(vec![])),
        (Global::RebuildTensor, [Value::Storage(storage), offset, shape, stride, ..]) => {
            let (shape, stride) = (shape.sizes()?, stride.sizes()?);
            let storage = storage.clone();
            (shape.len() == stride.len()).then_some(())?;
            Some(Value::Tensor(Rc::new(View { storage, offset: offset.size()?, shape, stride })))
        }
        (Global::RebuildParameter, [tensor @ Value::Tensor(_), ..]) => Some(tensor.clone()),
        _ => None,
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn plain_values_are_read() {
        // {'k': 32, 'on': True, 'x': (1, -2), 'big': 2**40, 'half': 0.5}
        let mut bytes =
            b"\x80\x02}q\x00(X\x01\x00\x00\x00kK\x20X\x02\x00\x00\x00on\x88X\x01\x00\x00\x00xK\x01".to_vec();
        bytes.extend(b"J\xfe\xff\xff\xff\x86X\x03\x00\x00\x00big\x8a\x06\x00\x00\x00\x00\x00\x01");
        bytes.extend(b"X\x04\x00\x00\x00halfG\x3f\xe0\x00\x00\x00\x00\x00\x00u.");
        let value = read(&bytes).unwrap();
        assert_eq!(value.field("k"), Some(&Value::Int(32)));
        assert_eq!(value.field("on"), Some(&Value::Bool));
        assert_eq!(value.field("x"), Some(&Value::Tuple(Rc::new(vec![Value::Int(1), Value::Int(-2)]))));
        assert_eq!(value.field("big"), Some(&Value::Int(1 << 40)));
        assert_eq!(value.field("half"), Some(&Value::Float));
    }

    #[test]
    fn what_would_run_code_is_refused_by_name() {
        // os.system('touch /tmp/x') as pickle writes it; the same with newer instructions; an object of a class.
        let call = read(b"\x80\x02cposix\nsystem\nX\x05\x00\x00\x00touch\x85R.").unwrap_err();
        assert!(call.contains("`posix.system`") && call.contains("nothing was run"), "{call}");
        let call = read(b"\x80\x04\x8c\x08builtins\x8c\x04eval\x93\x8c\x011\x85R.").unwrap_err();
        assert!(call.contains("`builtins.eval`"), "{call}");
        let call = read(b"\x80\x02ccollections\nOrderedDict\n)\x81.").unwrap_err();
        assert!(call.contains("0x81"), "{call}");
        // A known function called with wrong arguments is refused.
        assert!(read(b"\x80\x02ccollections\nOrderedDict\nK\x01\x85R.").is_err());
    }

    /// A tuple that contains a smaller tuple twice, and so on down to 1: 2^40 leaves in 200 bytes.
    fn bomb(place: u8) -> Vec<u8> {
        let twice = [b'q', place, b'h', place, 0x86];
        [b"K\x01".to_vec(), twice.repeat(40)].concat()
    }

    #[test]
    fn a_short_file_does_not_become_a_large_value() {
        let refused = |parts: &[&[u8]]| read(&parts.concat()).unwrap_err();
        assert_eq!(refused(&[&bomb(0), b"Q."]), "a tuple instead of the id of a storage");
        assert_eq!(refused(&[&bomb(0), b"\x85R."]), "fewer values on the stack than needed");
        assert_eq!(
            refused(&[b"ccollections\nOrderedDict\n", &bomb(0), b"R."]),
            "a function or class called with a tuple"
        );
        assert_eq!(refused(&[b"}", &bomb(0), b"b."]), "a tuple as the state of an object");
        // The same key twice: comparing the two would never end.
        assert_eq!(refused(&[b"}", &bomb(0), b"N", b"s", &bomb(1), b"N", b"s."]), "a tuple as a key of a dictionary");
        assert_eq!(refused(&[b"}\x8c\x01kN", b"s", b"\x8c\x01kN", b"s."]), "\"k\" twice in a dictionary");
        let view = |sizes: usize| {
            let sizes = [b"(", &b"K\x01".repeat(sizes)[..], b"t"].concat();
            let storage = b"(\x8c\x07storagectorch\nFloatStorage\n\x8c\x010\x8c\x03cpuK\x01tQK\0";
            read(&[b"ctorch._utils\n_rebuild_tensor_v2\n(", &storage[..], &sizes, &sizes, b"tR."].concat())
        };
        assert!(matches!(view(MOST_DIMENSIONS), Ok(Value::Tensor(_))));
        assert_eq!(view(MOST_DIMENSIONS + 1).unwrap_err(), "a function or class called with a tuple");
    }

    #[test]
    fn broken_pickles_are_errors() {
        for bytes in [
            &b""[..],
            b"\x80",
            b"}",
            b".",
            b"t.",
            b"(0",
            b"h\x07.",
            b"X\xff\xff\xff\xffab.",
            b"cposix",
            b"K\x01K\x02s.",
            b"}q\x00h\x00.",
            b"K\x01t.",
        ] {
            assert!(read(bytes).is_err(), "{bytes:?}");
        }
        let deep = [&b"K\x01"[..], &vec![0x85; 100_000], b"."].concat();
        assert!(read(&deep).unwrap_err().contains("more than 4096"));
    }
}
