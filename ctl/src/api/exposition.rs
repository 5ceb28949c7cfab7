//! Prometheus's text format, version 0.0.4: what `GET /metrics` answers with.
//!
//! A page is families, each with its help and type, and under it a sample a combination of labels. The page keeps to what the
//! format demands whatever it is given: label values are escaped, a family is written once, and its samples stand together.

use std::fmt::Write;

/// What the answer calls itself.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// How a family's values behave over time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// It only grows while the daemon lives; its name ends in `_total`.
    Counter,
    /// It goes up and down.
    Gauge,
}

/// A page of metrics that is being written.
#[derive(Clone, Debug, Default)]
pub struct Page {
    text: String,
}

/// A family of a page, for its samples.
#[derive(Debug)]
pub struct Family<'p> {
    name: &'static str,
    text: &'p mut String,
}

impl Page {
    /// Begins a family. Its name is of the program, so a wrong one is a bug: letters, digits and underscores, `_total` at the
    /// end of counters and of nothing else.
    pub fn family(&mut self, name: &'static str, kind: Kind, help: &str) -> Family<'_> {
        debug_assert!(is_name(name), "{name}");
        debug_assert_eq!(name.ends_with("_total"), kind == Kind::Counter, "{name}");
        let word = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
        };
        self.text.push_str("# HELP ");
        self.text.push_str(name);
        self.text.push(' ');
        escape(&mut self.text, help, false);
        // Writing to a string cannot fail, here and below.
        let _ = write!(self.text, "\n# TYPE {name} {word}\n");
        Family { name, text: &mut self.text }
    }

    /// A family with one sample that bears no labels.
    pub fn single(&mut self, name: &'static str, kind: Kind, help: &str, value: impl Into<Value>) {
        self.family(name, kind, help).sample(&[], value);
    }

    /// The page.
    pub fn finish(self) -> String {
        self.text
    }
}

impl Family<'_> {
    /// Adds a sample. No two of a family bear the same labels.
    pub fn sample(&mut self, labels: &[(&'static str, &str)], value: impl Into<Value>) {
        self.text.push_str(self.name);
        for (number, (label, of)) in labels.iter().enumerate() {
            debug_assert!(is_name(label), "{label}");
            self.text.push(if number == 0 { '{' } else { ',' });
            self.text.push_str(label);
            self.text.push_str("=\"");
            escape(self.text, of, true);
            self.text.push('"');
        }
        if !labels.is_empty() {
            self.text.push('}');
        }
        let _ = match value.into() {
            Value::Whole(number) => writeln!(self.text, " {number}"),
            Value::Real(number) => writeln!(self.text, " {number}"),
        };
    }
}

/// The value of a sample: a whole number to its last digit, or a real one.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Value {
    /// Of what is counted.
    Whole(u64),
    /// Of what is measured.
    Real(f64),
}

impl From<u64> for Value {
    fn from(number: u64) -> Value {
        Value::Whole(number)
    }
}

impl From<usize> for Value {
    fn from(number: usize) -> Value {
        Value::Whole(number as u64)
    }
}

impl From<f64> for Value {
    fn from(number: f64) -> Value {
        Value::Real(number)
    }
}

/// A name of a metric or label that needs no quoting anywhere.
fn is_name(name: &str) -> bool {
    let first = name.as_bytes().first();
    first.is_some_and(|byte| byte.is_ascii_lowercase())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
}

/// Writes text as help, or as the value of a label, where quotes are escaped too.
fn escape(to: &mut String, text: &str, quotes: bool) {
    for letter in text.chars() {
        match letter {
            '\\' => to.push_str("\\\\"),
            '\n' => to.push_str("\\n"),
            '"' if quotes => to.push_str("\\\""),
            other => to.push(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    /// A reader of the format that shares nothing with the writer: samples by name and labels.
    pub(crate) fn parse(page: &str) -> BTreeMap<(String, Vec<(String, String)>), String> {
        let mut samples = BTreeMap::new();
        assert!(page.is_empty() || page.ends_with('\n'), "the last line ends");
        for line in page.split_terminator('\n').filter(|line| !line.starts_with('#')) {
            let mut letters = line.chars().peekable();
            let mut name = String::new();
            while let Some(letter) = letters.next_if(|letter| !matches!(letter, '{' | ' ')) {
                name.push(letter);
            }
            let mut labels = Vec::new();
            if letters.peek() == Some(&'{') {
                while matches!(letters.next(), Some('{' | ',')) {
                    let mut label = String::new();
                    while let Some(letter) = letters.next_if(|letter| *letter != '=') {
                        label.push(letter);
                    }
                    assert_eq!((letters.next(), letters.next()), (Some('='), Some('"')), "{line}");
                    let mut of = String::new();
                    loop {
                        match letters.next().expect("a value ends with a quote") {
                            '"' => break,
                            '\\' => match letters.next() {
                                Some('n') => of.push('\n'),
                                Some(escaped @ ('\\' | '"')) => of.push(escaped),
                                other => panic!("an escape that there is none: {other:?}"),
                            },
                            letter => of.push(letter),
                        }
                    }
                    labels.push((label, of));
                    if letters.peek() == Some(&'}') {
                        letters.next();
                        break;
                    }
                }
            }
            assert_eq!(letters.next(), Some(' '), "{line}");
            let value: String = letters.collect();
            value.parse::<f64>().unwrap_or_else(|_| panic!("no number: {line}"));
            assert_eq!(samples.insert((name, labels), value), None, "twice: {line}");
        }
        samples
    }

    #[test]
    fn a_page_is_written_as_the_format_has_it() {
        let mut page = Page::default();
        page.single("x_networks", Kind::Gauge, "How many\nnetworks \\ LANs.", 2_usize);
        let mut frames = page.family("x_frames_total", Kind::Counter, "Frames.");
        frames.sample(&[("network", "a\"b\\c\nd"), ("node", "")], u64::MAX);
        frames.sample(&[("network", "z"), ("node", "n")], 0.25);
        let expected = "# HELP x_networks How many\\nnetworks \\\\ LANs.\n# TYPE x_networks gauge\nx_networks 2\n\
            # HELP x_frames_total Frames.\n# TYPE x_frames_total counter\n\
            x_frames_total{network=\"a\\\"b\\\\c\\nd\",node=\"\"} 18446744073709551615\n\
            x_frames_total{network=\"z\",node=\"n\"} 0.25\n";
        assert_eq!(page.finish(), expected);
    }

    proptest! {
        #[test]
        fn whatever_a_label_says_a_reader_reads_it_back(
            values in prop::collection::btree_set("[\\PC\\n\\r\\t\"\\\\{},=# ]{0,12}", 1..5),
            number in any::<u64>(),
        ) {
            let mut page = Page::default();
            let mut family = page.family("x_of", Kind::Gauge, "Of\nall.");
            for value in &values {
                family.sample(&[("name", value.as_str()), ("other", "o")], number);
            }
            let read = parse(&page.finish());
            let expected: BTreeMap<_, _> = values
                .iter()
                .map(|value| {
                    let labels =
                        vec![("name".into(), value.clone()), ("other".into(), "o".into())];
                    (("x_of".to_owned(), labels), number.to_string())
                })
                .collect();
            prop_assert_eq!(read, expected);
        }
    }
}
