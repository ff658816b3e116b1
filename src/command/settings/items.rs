//! What a TOML document has, key by key, as far as options need it: texts, numbers, true and false, and arrays of these.

use toml_parser::{
    ErrorSink, ParseError, Raw, Source, Span,
    decoder::{Encoding, ScalarKind},
    parser::{EventReceiver, ValidateWhitespace, parse_document},
};

/// Names before a key are cut behind so many: no option has more than one.
const DEEPEST: usize = 4;

/// A key and its value.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Item {
    /// From the names of its table to its own.
    pub(super) path: Vec<String>,
    pub(super) line: usize,
    pub(super) scalars: Vec<(Type, String)>,
    pub(super) is_array: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Type {
    Text,
    Number,
    Bool,
    Date,
}

/// What is wrong, and in which line.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Mistake {
    pub(super) line: usize,
    pub(super) text: String,
}

/// The items, in their order, and what could not be read.
pub(super) fn items(text: &str) -> (Vec<Item>, Vec<Mistake>) {
    let source = Source::new(text);
    let tokens = source.lex().into_vec();
    let mut errors: Vec<ParseError> = Vec::new();
    let mut reader = Reader { source, table: Vec::new(), path: Vec::new(), item: None, items: Vec::new() };
    let mut checking = ValidateWhitespace::new(&mut reader, source);
    parse_document(&tokens, &mut checking, &mut errors);
    reader.end_item();
    let mistakes = errors.iter().map(|error| mistake(text, error)).collect();
    (reader.items, mistakes)
}

fn mistake(text: &str, error: &ParseError) -> Mistake {
    let at = error.unexpected().or(error.context()).map_or(0, |span| span.start());
    Mistake { line: line(text, at), text: error.description().to_owned() }
}

fn line(text: &str, at: usize) -> usize {
    let before = text.as_bytes().get(..at).unwrap_or(text.as_bytes());
    before.iter().filter(|&&b| b == b'\n').count() + 1
}

struct Reader<'a> {
    source: Source<'a>,
    table: Vec<String>,
    /// Of the key that is being read.
    path: Vec<String>,
    /// Whose value is being read.
    item: Option<Item>,
    items: Vec<Item>,
}

impl Reader<'_> {
    fn end_item(&mut self) {
        self.items.extend(self.item.take());
    }

    fn refuse(span: Span, what: &'static str, error: &mut dyn ErrorSink) -> bool {
        error.report_error(ParseError::new(what).with_unexpected(span));
        false
    }
}

impl EventReceiver for Reader<'_> {
    fn std_table_open(&mut self, _: Span, _: &mut dyn ErrorSink) {
        self.end_item();
        self.path.clear();
    }

    fn std_table_close(&mut self, _: Span, _: &mut dyn ErrorSink) {
        self.table = std::mem::take(&mut self.path);
    }

    fn array_table_open(&mut self, span: Span, error: &mut dyn ErrorSink) {
        self.std_table_open(span, error);
        Self::refuse(span, "options are in no array of tables ([[…]])", error);
    }

    fn array_table_close(&mut self, span: Span, error: &mut dyn ErrorSink) {
        self.std_table_close(span, error);
    }

    fn simple_key(&mut self, span: Span, encoding: Option<Encoding>, error: &mut dyn ErrorSink) {
        self.end_item();
        let mut key = String::new();
        if let Some(raw) = self.source.get(span) {
            let raw = Raw::new_unchecked(raw.as_str(), encoding, span);
            raw.decode_key(&mut key, error);
        }
        if self.path.len() < DEEPEST {
            self.path.push(key);
        }
    }

    fn key_val_sep(&mut self, span: Span, _: &mut dyn ErrorSink) {
        let mut path = self.table.clone();
        path.append(&mut self.path);
        let line = line(self.source.input(), span.start());
        self.item = Some(Item { path, line, scalars: Vec::new(), is_array: false });
    }

    fn scalar(&mut self, span: Span, encoding: Option<Encoding>, error: &mut dyn ErrorSink) {
        let (Some(item), Some(raw)) = (&mut self.item, self.source.get(span)) else { return };
        let raw = Raw::new_unchecked(raw.as_str(), encoding, span);
        let mut text = String::new();
        let (kind, text) = match raw.decode_scalar(&mut text, error) {
            ScalarKind::String => (Type::Text, text),
            ScalarKind::Boolean(value) => (Type::Bool, value.to_string()),
            ScalarKind::DateTime => (Type::Date, text),
            ScalarKind::Float => (Type::Number, text),
            ScalarKind::Integer(radix) => (Type::Number, decimal(&text, radix.value())),
        };
        item.scalars.push((kind, text));
    }

    fn array_open(&mut self, span: Span, error: &mut dyn ErrorSink) -> bool {
        match &mut self.item {
            Some(item) if !item.is_array => {
                item.is_array = true;
                true
            }
            _ => Self::refuse(span, "options are in no arrays of arrays", error),
        }
    }

    fn inline_table_open(&mut self, span: Span, error: &mut dyn ErrorSink) -> bool {
        Self::refuse(span, "options are in no inline tables ({…}): write [name] above them", error)
    }
}

/// As an option takes it.
fn decimal(text: &str, radix: u32) -> String {
    match i128::from_str_radix(text, radix) {
        Ok(number) => number.to_string(),
        Err(_) => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Vec<(String, usize, String)> {
        let (items, mistakes) = items(text);
        assert_eq!(mistakes, [], "{text}");
        let shown = |item: Item| {
            let values: Vec<_> = item.scalars.iter().map(|(kind, text)| format!("{kind:?} {text}")).collect();
            let values = values.join(", ");
            (item.path.join("/"), item.line, if item.is_array { format!("[{values}]") } else { values })
        };
        items.into_iter().map(shown).collect()
    }

    #[test]
    fn all_that_options_need() {
        let text = "# comment\nlisten = [\"a:1\", 'b\\2', # more\n  \"\"\"c\n3\"\"\"]\nmax-connections = 1_000 # many\n\nx = 1.50\n\
                    \"quoted key\" = true\nhex = 0xff\ndate = 1979-05-27\n\n[connect]\r\nsend = \"\\u00e4\"\r\nlist.json = false\n[a.'b']\nc = []\n";
        let expected = [
            ("listen", 2, "[Text a:1, Text b\\2, Text c\n3]"),
            ("max-connections", 5, "Number 1000"),
            ("x", 7, "Number 1.50"),
            ("quoted key", 8, "Bool true"),
            ("hex", 9, "Number 255"),
            ("date", 10, "Date 1979-05-27"),
            ("connect/send", 13, "Text ä"),
            ("connect/list/json", 14, "Bool false"),
            ("a/b/c", 16, "[]"),
        ];
        let read = read(text);
        let read: Vec<_> =
            read.iter().map(|(path, line, text)| (path.as_str(), *line, text.as_str())).collect();
        assert_eq!(read, expected);
    }

    #[test]
    fn what_cannot_be_read_is_told_with_its_line() {
        for (text, line, part) in [
            ("a = 1\nb = \"x\nc = 2\n", 2, "string"),
            ("a = 1\nb 2\n", 2, ""),
            ("a = hello\n", 1, ""),
            ("\na = [1, [2]]\n", 2, "arrays of arrays"),
            ("a = {b = 1}\n", 1, "inline tables"),
            ("[[a]]\nb = 1\n", 1, "array of tables"),
            ("a = \"\\q\"\n", 1, "escape"),
            ("\n\n[a\n", 3, ""),
            ("a = 1 b = 2\n", 1, ""),
            ("=\n", 1, ""),
        ] {
            let (_, mistakes) = items(text);
            let first = mistakes.first().unwrap_or_else(|| panic!("{text:?} is taken"));
            assert!(first.line == line && first.text.contains(part), "{text:?}: {mistakes:?}");
        }
        let nested = format!("a = {}", "[".repeat(100_000));
        assert!(!items(&nested).1.is_empty());
        let keys = format!("{}a = 1", "a.".repeat(100_000));
        drop(items(&keys));
    }
}
