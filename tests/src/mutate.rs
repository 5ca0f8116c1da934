//! Inputs that are nearly right: valid texts and files, changed by bytes, by pieces and by values, from
//! a fixed seed.

use serde_json::{Map, Value};

/// Largest input that is made, in bytes; what a property costs is held against its input's size.
const MOST_BYTES: usize = 64 << 10;
/// So deep that a reader without a limit of its own runs out of stack.
const DEPTH: usize = 20_000;
/// Numbers at which lengths, offsets and indices go wrong.
const NUMBERS: [u64; 16] = [
    0,
    1,
    2,
    7,
    8,
    64,
    255,
    256,
    4096,
    65_535,
    65_536,
    0x7FFF_FFFF,
    0xFFFF_FFFF,
    0x1_0000_0000,
    i64::MAX.cast_unsigned(),
    u64::MAX,
];
/// Texts at which escapes, paths and terminals go wrong.
const TEXTS: [&str; 14] = [
    "",
    " ",
    "\u{1b}[31m",
    "\n",
    "\0",
    "..",
    "../../x",
    "/x",
    "a/./b",
    "a//b",
    "\u{202e}x",
    "\u{FEFF}",
    "é",
    "1e999",
];

/// Numbers that look random and are the same on every machine: `SplitMix64`.
#[derive(Clone, Debug)]
pub struct Dice(u64);

impl Dice {
    /// Dice that fall the same way for the same seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Any number.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`, or 0 when `end` is 0.
    pub fn below(&mut self, end: usize) -> usize {
        let end = end.max(1) as u64;
        usize::try_from(self.number() % end).unwrap_or(0)
    }

    /// Yes, once in `times`.
    pub fn once_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }

    /// One of `items`, which are not empty.
    pub fn one_of<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.below(items.len())]
    }

    /// A number at which things go wrong, or any.
    pub fn odd_number(&mut self) -> u64 {
        match self.below(4) {
            0 => self.number() >> self.below(64),
            _ => self
                .one_of(&NUMBERS)
                .wrapping_add(self.number() % 3)
                .wrapping_sub(1),
        }
    }
}

/// Changes valid inputs.
#[derive(Clone, Debug)]
pub struct Mutator {
    /// Where the changes come from.
    pub dice: Dice,
    corpus: Vec<Vec<u8>>,
}

impl Mutator {
    /// A mutator of `corpus`, which is not empty.
    pub fn new(seed: u64, corpus: impl IntoIterator<Item = impl Into<Vec<u8>>>) -> Self {
        Self {
            dice: Dice::new(seed),
            corpus: corpus.into_iter().map(Into::into).collect(),
        }
    }

    /// One of the corpus as it is.
    pub fn valid(&mut self) -> &[u8] {
        self.dice.one_of::<Vec<u8>>(&self.corpus)
    }

    /// One of the corpus with up to four changes of bytes and pieces, or with none.
    pub fn bytes(&mut self) -> Vec<u8> {
        let mut input = self.valid().to_vec();
        for _ in 0..self.dice.below(5) {
            self.change(&mut input);
        }
        input.truncate(MOST_BYTES);
        input
    }

    /// One of the corpus, which is JSON, with up to four of its values changed; now and then a change
    /// of its bytes on top.
    pub fn json(&mut self) -> Vec<u8> {
        let mut value: Value = serde_json::from_slice(self.valid()).unwrap_or_default();
        for _ in 0..self.dice.below(5) {
            self.change_value(&mut value);
        }
        let mut input = value.to_string().into_bytes();
        if self.dice.once_in(4) {
            self.change(&mut input);
        }
        input.truncate(MOST_BYTES);
        input
    }

    fn change(&mut self, input: &mut Vec<u8>) {
        let dice = &mut self.dice;
        match dice.below(13) {
            0 => {
                let bit = 1 << dice.below(8);
                if let Some(byte) = at(input, dice) {
                    *byte ^= bit;
                }
            }
            1 => {
                let any = dice.number().to_le_bytes()[0];
                if let Some(byte) = at(input, dice) {
                    *byte = any;
                }
            }
            2 => {
                let (start, end) = piece(input, dice);
                input.drain(start..end);
            }
            3 => {
                let (start, end) = piece(input, dice);
                let copy = input[start..end].to_vec();
                let place = dice.below(input.len() + 1);
                input.splice(place..place, copy);
            }
            4 => input.truncate(dice.below(input.len() + 1)),
            5 => {
                // Not UTF-8, or a character of several bytes.
                let odd = *dice.one_of::<&[u8]>(&[b"\xff", b"\xc0\x80", "é".as_bytes()]);
                let place = dice.below(input.len() + 1);
                input.splice(place..place, odd.iter().copied());
            }
            6 => {
                let text = *dice.one_of(&TEXTS);
                let place = dice.below(input.len() + 1);
                input.splice(place..place, text.bytes());
            }
            7 => {
                // The front of this one and the back of another.
                let other = dice.one_of(&self.corpus).clone();
                let (here, there) = (dice.below(input.len() + 1), dice.below(other.len() + 1));
                input.truncate(here);
                input.extend_from_slice(&other[there..]);
            }
            8 => {
                let (number, place) = (dice.odd_number(), dice.below(input.len() + 1));
                let (start, end) = digits(input, place);
                input.splice(start..end, number.to_string().into_bytes());
            }
            9 => {
                // A number of the kinds that headers hold.
                let (number, width) = (dice.odd_number(), 1 << dice.below(4));
                let place = dice.below(input.len() / width + 1) * width;
                let end = (place + width).min(input.len());
                if let Some(field) = input.get_mut(place..end) {
                    field.copy_from_slice(&number.to_le_bytes()[..field.len()]);
                }
            }
            10 => {
                let (start, end) = line(input, dice);
                input.drain(start..end);
            }
            11 => {
                let (start, end) = line(input, dice);
                let copy = input[start..end].to_vec();
                let (place, _) = line(input, dice);
                input.splice(place..place, copy);
            }
            _ if dice.once_in(8) => {
                let mark = *dice.one_of(b"[{(\"\\-,:>");
                let place = dice.below(input.len() + 1);
                input.splice(place..place, std::iter::repeat_n(mark, DEPTH));
            }
            _ => {}
        }
    }

    /// Changes one value somewhere in `value`.
    fn change_value(&mut self, value: &mut Value) {
        let dice = &mut self.dice;
        let deeper = !dice.once_in(5);
        match value {
            Value::Object(map) if deeper && !map.is_empty() => {
                let index = dice.below(map.len());
                match dice.below(8) {
                    0 => drop(remove(map, index)),
                    // The value goes to another key.
                    1 => {
                        if let Some((_, value)) = remove(map, index) {
                            map.insert((*dice.one_of(&TEXTS)).to_owned(), value);
                        }
                    }
                    _ => {
                        if let Some(inner) = map.values_mut().nth(index) {
                            self.change_value(inner);
                        }
                    }
                }
            }
            Value::Array(items) if deeper && !items.is_empty() => {
                let index = dice.below(items.len());
                match dice.below(6) {
                    0 => drop(items.remove(index)),
                    1 => items.push(items[index].clone()),
                    _ => self.change_value(&mut items[index]),
                }
            }
            Value::String(text) if deeper => {
                let place = dice.below(text.chars().count() + 1);
                let place = text
                    .char_indices()
                    .nth(place)
                    .map_or(text.len(), |(at, _)| at);
                text.insert_str(place, dice.one_of::<&str>(&TEXTS));
            }
            Value::Number(_) if deeper => *value = self.odd_value(),
            _ => *value = self.any_value(),
        }
    }

    fn odd_value(&mut self) -> Value {
        let number = self.dice.odd_number();
        match self.dice.below(4) {
            0 => number.cast_signed().wrapping_neg().into(),
            // Not a number, which JSON has not, becomes `null`.
            1 => f64::from_bits(self.dice.number()).into(),
            _ => number.into(),
        }
    }

    /// A value of any kind, or one that the corpus has elsewhere.
    fn any_value(&mut self) -> Value {
        match self.dice.below(8) {
            0 => Value::Null,
            1 => self.dice.once_in(2).into(),
            2 => self.odd_value(),
            3 => (*self.dice.one_of(&TEXTS)).into(),
            4 => Value::Array(Vec::new()),
            5 => Value::Object(Map::new()),
            6 => {
                let depth = self.dice.below(200);
                (0..depth).fold(Value::Null, |inner, _| vec![inner].into())
            }
            _ => {
                let mut value: Value = serde_json::from_slice(self.valid()).unwrap_or_default();
                while !self.dice.once_in(4) {
                    let mut inner: Vec<Value> = match value {
                        Value::Object(map) => map.into_iter().map(|(_, inner)| inner).collect(),
                        Value::Array(items) => items,
                        leaf => return leaf,
                    };
                    if inner.is_empty() {
                        return Value::Null;
                    }
                    value = inner.swap_remove(self.dice.below(inner.len()));
                }
                value
            }
        }
    }
}

fn at<'a>(input: &'a mut [u8], dice: &mut Dice) -> Option<&'a mut u8> {
    let index = dice.below(input.len());
    input.get_mut(index)
}

/// Start and end of a few bytes.
fn piece(input: &[u8], dice: &mut Dice) -> (usize, usize) {
    let start = dice.below(input.len() + 1);
    let most = if dice.once_in(4) { input.len() } else { 16 };
    let end = (start + dice.below(most) + 1).min(input.len());
    (start, end)
}

/// Start and end of a line, with what ends it.
fn line(input: &[u8], dice: &mut Dice) -> (usize, usize) {
    let place = dice.below(input.len() + 1);
    let ends = |byte: &u8| *byte == b'\n';
    let start = input[..place].iter().rposition(ends).map_or(0, |at| at + 1);
    let end = input[place..].iter().position(ends);
    (start, end.map_or(input.len(), |at| place + at + 1))
}

/// Start and end of the next run of digits, or the end of the input.
fn digits(input: &[u8], place: usize) -> (usize, usize) {
    let is_digit = |byte: &u8| byte.is_ascii_digit();
    let start = input[place..].iter().position(is_digit);
    let start = start.map_or(input.len(), |at| place + at);
    let length = input[start..]
        .iter()
        .take_while(|byte| is_digit(byte))
        .count();
    (start, start + length)
}

fn remove(map: &mut Map<String, Value>, index: usize) -> Option<(String, Value)> {
    let key = map.keys().nth(index)?.clone();
    map.remove_entry(&key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_seeds_make_equal_inputs_and_they_are_many() {
        let corpus = [r#"{"a": [1, 2, {"b": "c"}], "d": 3}"#, "[]"];
        let inputs = |seed| {
            let mut mutator = Mutator::new(seed, corpus);
            (0..200)
                .map(|i| {
                    if i % 2 == 0 {
                        mutator.bytes()
                    } else {
                        mutator.json()
                    }
                })
                .collect::<Vec<_>>()
        };
        assert_eq!(inputs(1), inputs(1));
        assert_ne!(inputs(1), inputs(2));
        let mut distinct = inputs(3);
        distinct.sort();
        distinct.dedup();
        assert!(distinct.len() > 100, "{}", distinct.len());
        assert!(distinct.iter().all(|input| input.len() <= MOST_BYTES));
    }
}
